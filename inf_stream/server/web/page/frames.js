// Frames of a video element as JPEG, so many a second, with their time in the stream; and what they looked like.

const LONGEST_SIDE = 640;
const QUALITY = 0.85;
const MOST_WAITING = 4;
const MOST_REMEMBERED = 900;

export class Frames {
  #video;
  #connection;
  #canvas = document.createElement("canvas");
  #timer = 0;
  #beganMs = 0;
  #offsetMs = 0;
  #latestMs = -1;
  #waiting = 0;
  #isFile = false;
  #seen = new Map();

  constructor(video, connection) {
    this.#video = video;
    this.#connection = connection;
    this.skipped = 0;
  }

  start(fps, isFile) {
    this.stop();
    this.#isFile = isFile;
    // A source that follows another one goes on where that ended.
    this.#offsetMs = this.#latestMs < 0 ? 0 : this.#latestMs + 1000;
    this.#beganMs = performance.now();
    this.#timer = setInterval(() => this.#take(), 1000 / fps);
    this.#take();
  }

  stop() {
    clearInterval(this.#timer);
    this.#timer = 0;
  }

  // The stream begins anew.
  forget() {
    this.#latestMs = -1;
    this.#offsetMs = 0;
    this.#waiting = 0;
    this.#seen.forEach((address) => URL.revokeObjectURL(address));
    this.#seen.clear();
  }

  // The server has said what became of a frame.
  settled() {
    this.#waiting = Math.max(0, this.#waiting - 1);
  }

  // Address of the picture nearest to a second of the stream, and its time; or null.
  pictureAt(second) {
    let best = null;
    for (const atS of this.#seen.keys()) {
      if (best === null || Math.abs(atS - second) < Math.abs(best - second)) best = atS;
    }
    return best === null ? null : { atS: best, address: this.#seen.get(best) };
  }

  async #take() {
    const video = this.#video;
    if (!video.videoWidth || video.ended || (this.#isFile && video.paused)) return;
    if (this.#connection.isBusy || this.#waiting >= MOST_WAITING) {
      this.skipped += 1;
      return;
    }
    const ownMs = this.#isFile ? video.currentTime * 1000 : performance.now() - this.#beganMs;
    const atMs = Math.round(this.#offsetMs + ownMs);
    if (atMs <= this.#latestMs) return; // wound back: what was seen is not seen again
    this.#latestMs = atMs;
    const shrink = Math.min(1, LONGEST_SIDE / Math.max(video.videoWidth, video.videoHeight));
    this.#canvas.width = Math.max(1, Math.round(video.videoWidth * shrink));
    this.#canvas.height = Math.max(1, Math.round(video.videoHeight * shrink));
    this.#canvas.getContext("2d").drawImage(video, 0, 0, this.#canvas.width, this.#canvas.height);
    const blob = await new Promise((done) => this.#canvas.toBlob(done, "image/jpeg", QUALITY));
    if (!blob || !this.#connection.isOpen) return;
    this.#waiting += 1;
    this.#connection.sendFrame(blob, atMs);
    this.#seen.set(atMs / 1000, URL.createObjectURL(blob));
    if (this.#seen.size > MOST_REMEMBERED) {
      const [oldest, address] = this.#seen.entries().next().value;
      URL.revokeObjectURL(address);
      this.#seen.delete(oldest);
    }
  }
}
