// Frames of a video element as JPEG, so many a second, each with its time in the stream.

const LONGEST_SIDE = 640;
const QUALITY = 0.85;
const MOST_WAITING = 4;
const MOST_BEHIND_MS = 500;
const SNAP = 8;

// Stream time as the server counts it: the latest that was told or heard, going on by wall time, never backwards.
export class StreamClock {
  #ms = 0;
  #atMs = null;

  get hasBegun() {
    return this.#atMs !== null;
  }

  get nowMs() {
    return this.hasBegun ? this.#ms + performance.now() - this.#atMs : 0;
  }

  hear(ms) {
    if (this.hasBegun && ms <= this.nowMs) return;
    this.#ms = ms;
    this.#atMs = performance.now();
  }

  reset() {
    this.#ms = 0;
    this.#atMs = null;
  }
}

export class Frames {
  #video;
  #connection;
  #clock;
  #onTaken;
  #canvas = document.createElement("canvas");
  #ticker = new Worker("/page/ticker.js");
  #fps = 1;
  #isFile = false;
  #isRunning = false;
  #isEncoding = false;
  #offsetMs = null;
  #waiting = 0;
  // Frames that were not sent, by what was too slow for them.
  skipped = { model: 0, link: 0 };

  // `onTaken` gets each frame that was sent, and its second of the stream.
  constructor(video, connection, clock, onTaken) {
    this.#video = video;
    this.#connection = connection;
    this.#clock = clock;
    this.#onTaken = onTaken;
    this.#ticker.onmessage = () => this.#take();
    video.addEventListener("loadeddata", () => this.#isRunning && this.start(this.#isFile));
  }

  set fps(fps) {
    this.#fps = fps;
    if (this.#isRunning) this.#ticker.postMessage(1000 / fps);
  }

  start(isFile) {
    this.#isFile = isFile;
    this.#isRunning = true;
    this.#offsetMs = null;
    this.#ticker.postMessage(1000 / this.#fps);
    this.#take();
  }

  stop() {
    this.#isRunning = false;
    this.#ticker.postMessage(0);
  }

  // A new session: the stream begins anew.
  reset() {
    this.#offsetMs = null;
    this.skipped = { model: 0, link: 0 };
    this.expectNone();
  }

  // The server has said what became of a frame.
  settled() {
    this.#waiting = Math.max(0, this.#waiting - 1);
  }

  // What was sent into a connection that was lost will never be settled.
  expectNone() {
    this.#waiting = 0;
  }

  async #take() {
    const video = this.#video;
    if (!this.#isRunning || !video.videoWidth || video.ended || (this.#isFile && video.paused)) return;
    if (!this.#connection.isOpen || this.#isEncoding) return;
    const slow = this.#connection.isBusy ? "link" : this.#waiting >= MOST_WAITING ? "model" : null;
    if (slow) {
      this.skipped[slow] += 1;
      return;
    }
    const atMs = this.#stamp();
    const shrink = Math.min(1, LONGEST_SIDE / Math.max(video.videoWidth, video.videoHeight));
    this.#canvas.width = Math.max(1, Math.round(video.videoWidth * shrink));
    this.#canvas.height = Math.max(1, Math.round(video.videoHeight * shrink));
    this.#canvas.getContext("2d").drawImage(video, 0, 0, this.#canvas.width, this.#canvas.height);
    this.#isEncoding = true;
    const blob = await new Promise((done) => this.#canvas.toBlob(done, "image/jpeg", QUALITY));
    this.#isEncoding = false;
    if (!blob || !this.#isRunning || !this.#connection.isOpen) return;
    this.#clock.hear(atMs);
    this.#waiting += 1;
    this.#connection.sendFrame(blob, atMs);
    this.#onTaken(blob, atMs / 1000);
  }

  // A file has its own time, which becomes the stream's; where it was wound back or stood still, the stream went on.
  #stamp() {
    const nowMs = this.#clock.nowMs;
    if (!this.#isFile) return this.#snapped(nowMs);
    const ownMs = this.#video.currentTime * 1000;
    this.#offsetMs ??= nowMs - ownMs;
    if (this.#offsetMs + ownMs < nowMs - MOST_BEHIND_MS) this.#offsetMs = nowMs - ownMs;
    return this.#snapped(this.#offsetMs + ownMs);
  }

  // Timers tremble; without this, now and then a second would have two frames and the next one none.
  #snapped(ms) {
    const stepMs = 1000 / this.#fps;
    const beatMs = stepMs * Math.round(ms / stepMs);
    return Math.max(0, Math.round(Math.abs(ms - beatMs) < stepMs / SNAP ? beatMs : ms));
  }
}
