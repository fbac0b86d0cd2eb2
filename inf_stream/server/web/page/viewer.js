// What the stage shows: now, or a second that was chosen on the strip or in an answer.

import { $ } from "./elements.js";
import { clock } from "./times.js";

const NEAR_S = 1.5;

export class Viewer {
  #strip;
  #pictures;
  #clock;
  #past = null; // the second that is shown instead of now
  #picture = null;

  constructor(strip, pictures, streamClock) {
    this.#strip = strip;
    this.#pictures = pictures;
    this.#clock = streamClock;
    $("live").addEventListener("click", () => {
      this.show(null);
      $("strip").focus({ preventScroll: true });
    });
  }

  get isPast() {
    return this.#past !== null;
  }

  // A second of the stream, or null for now; returns whether there is such a second.
  show(second) {
    if (second !== null && second > Math.max(this.#strip.endS, this.#clock.nowMs / 1000)) return false;
    this.#past = this.#strip.chosen = second;
    this.#picture = this.isPast ? this.#pictures.nearest(second) : null;
    $("past").hidden = !this.#picture;
    if (this.#picture) $("past").src = this.#picture.address;
    $("past").alt = this.#picture ? `What was seen at ${clock(this.#picture.second)}` : "";
    $("live").hidden = !this.isPast;
    $("stage").classList.toggle("past", this.isPast);
    this.refresh();
    return true;
  }

  // What is shown, in words.
  describe() {
    const second = this.#past;
    if (second === null) return clock(this.#clock.nowMs / 1000);
    const parts = [clock(second), this.#strip.describe(second)];
    if (!this.#picture) parts.push("no picture");
    else if (Math.abs(this.#picture.second - second) > NEAR_S) parts.push(`picture of ${clock(this.#picture.second)}`);
    return parts.filter(Boolean).join(" · ");
  }

  refresh() {
    $("when").hidden = !this.#clock.hasBegun;
    $("when").textContent = this.describe();
    $("axis-to").textContent = this.#strip.endS ? `now ${clock(this.#strip.endS)}` : "now";
  }
}
