// Camera, screen or file: what the video element shows. A new one takes over once it plays; until then the old one stays.

const NAMES = { camera: "The camera", screen: "The screen" };
const DATA_MS = 2000;

// Events: "changed", and "problem" with a text.
//   current  null or {kind: "camera" | "screen" | "file", name}
//   opening  what is being opened: null or such a kind
export class Sources extends EventTarget {
  #video;
  #wanted = 0;
  current = null;
  opening = null;

  constructor(video) {
    super();
    this.#video = video;
    video.addEventListener("error", () => {
      if (this.current?.kind === "file") this.#lost(this.current, "cannot be played any further");
    });
  }

  // Of all cameras, the one with this id; without one, the browser's choice, on phones the one at the back.
  camera(deviceId) {
    const video = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
    return this.#open("camera", () => this.#camera(video));
  }

  screen() {
    return this.#open("screen", () => navigator.mediaDevices.getDisplayMedia({ video: true }));
  }

  file(file) {
    return this.#open("file", () => this.#load(file));
  }

  stop() {
    this.#wanted += 1;
    this.opening = null;
    this.#release();
    this.#changed();
  }

  // Cameras that can be chosen; browsers name them only once one was allowed.
  async cameras() {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) || [];
    return devices.filter(({ kind, deviceId }) => kind === "videoinput" && deviceId);
  }

  async #open(kind, make) {
    const wanted = (this.#wanted += 1);
    this.opening = kind;
    this.#changed();
    let source = null;
    try {
      const made = await make();
      source = made instanceof MediaStream ? { kind, name: NAMES[kind], stream: made } : made;
    } catch (error) {
      if (wanted === this.#wanted) this.#problem(kind, error);
    }
    if (wanted !== this.#wanted) return this.#letGo(source);
    this.opening = null;
    if (source) this.#show(source);
    this.#changed();
  }

  // Many phones have one camera open at a time.
  async #camera(video) {
    try {
      return await navigator.mediaDevices.getUserMedia({ video });
    } catch (error) {
      if (error.name !== "NotReadableError" || this.current?.kind !== "camera") throw error;
      this.#release();
      return navigator.mediaDevices.getUserMedia({ video });
    }
  }

  // Refuses what cannot be played, before anything else ends for it.
  async #load(file) {
    const address = URL.createObjectURL(file);
    const trial = document.createElement("video");
    trial.muted = true;
    trial.preload = "auto";
    try {
      await new Promise((done, failed) => {
        trial.onloadeddata = done;
        trial.onloadedmetadata = () => setTimeout(done, DATA_MS); // some browsers load no picture before it is played
        trial.onerror = failed;
        trial.src = address;
      });
      if (!trial.videoWidth) throw new Error("there is no picture in it");
    } catch (error) {
      URL.revokeObjectURL(address);
      throw new Error(`${file.name} cannot be played here; choose an MP4 (H.264) or WebM video`, { cause: error });
    } finally {
      trial.removeAttribute("src");
      trial.load();
    }
    return { kind: "file", name: file.name, address };
  }

  #show(source) {
    const before = this.current;
    this.current = source;
    const video = this.#video;
    if (source.stream) {
      video.removeAttribute("src");
      video.srcObject = source.stream;
      source.stream.getVideoTracks()[0].addEventListener("ended", () => this.#lost(source, "has ended"));
    } else {
      video.srcObject = null;
      video.src = source.address;
    }
    video.controls = source.kind === "file";
    this.#letGo(before);
    video.play().catch(() => {}); // a file that may not start by itself has its controls
  }

  #release() {
    const source = this.current;
    const video = this.#video;
    this.current = null;
    video.srcObject = null;
    video.removeAttribute("src");
    video.controls = false;
    video.load();
    this.#letGo(source);
  }

  #lost(source, how) {
    if (source !== this.current) return;
    this.stop();
    this.#say(`${source.name} ${how}.`);
  }

  #letGo(source) {
    source?.stream?.getTracks().forEach((track) => track.stop());
    if (source?.address) URL.revokeObjectURL(source.address);
  }

  #problem(kind, error) {
    const known = {
      NotAllowedError: kind === "screen" ? "No screen was chosen." : "The browser may not use the camera; allow it beside the page's address.",
      NotFoundError: "No camera was found.",
      OverconstrainedError: "This camera is not there any more.",
      NotReadableError: `${NAMES[kind]} cannot be read; another program may be using it.`,
    };
    this.#say(known[error.name] || `${error.message}.`);
  }

  #say(text) {
    this.dispatchEvent(new CustomEvent("problem", { detail: text }));
  }

  #changed() {
    this.dispatchEvent(new Event("changed"));
  }
}
