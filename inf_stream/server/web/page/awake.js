// Keeps a phone's screen, and with it its camera, from going to sleep while something is watched.

export class Awake {
  #isWanted = false;
  #lock = null;

  constructor() {
    // The browser takes the lock away from a hidden page.
    document.addEventListener("visibilitychange", () => this.#update());
  }

  set wanted(isWanted) {
    if (isWanted === this.#isWanted) return;
    this.#isWanted = isWanted;
    this.#update();
  }

  async #update() {
    if (!this.#isWanted) {
      await this.#lock?.release();
      this.#lock = null;
    } else if (document.visibilityState === "visible") {
      this.#lock = await navigator.wakeLock?.request("screen").catch(() => null); // refused on a low battery
    }
  }
}
