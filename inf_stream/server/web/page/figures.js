// The figures: cache use, frame rate, drops, time to first token.

import { $, made } from "./elements.js";

const OVER_MS = 10_000;
const REASONS = { rate: "too fast", "drop-oldest": "model busy", model: "model busy", link: "link busy" };

export class Figures {
  #acceptedMs = [];

  accepted() {
    this.#acceptedMs.push(performance.now());
  }

  // The server's statistics; `skipped` frames, by reason, were never sent.
  show({ frames, memory }, skipped) {
    const now = performance.now();
    this.#acceptedMs = this.#acceptedMs.filter((at) => now - at < OVER_MS);
    const rate = (this.#acceptedMs.length * 1000) / OVER_MS;
    figure("frames", `${rate.toFixed(1)} / s`, frames.accepted ? `${many(frames.accepted)} in all` : "");
    const reasons = Object.entries({ ...frames.reasons, ...skipped }).sort((a, b) => b[1] - a[1]);
    const dropped = frames.dropped + skipped.model + skipped.link;
    figure("dropped", many(dropped), dropped ? REASONS[reasons[0][0]] || "" : "");
    if (!memory) return;
    const share = memory.tokens_kept / memory.most_tokens;
    figure("cache", many(memory.tokens_kept), `of ${many(memory.most_tokens)}`);
    $("cache-bar").style.setProperty("--share", share.toFixed(3));
  }

  firstToken(seconds) {
    figure("first", `${seconds.toFixed(2)} s`);
  }

  clear() {
    this.#acceptedMs = [];
    for (const name of ["cache", "frames", "dropped", "first"]) figure(name, "–");
    $("cache-bar").style.setProperty("--share", "0");
  }
}

function figure(name, value, more = "") {
  $(`figure-${name}`).replaceChildren(value, " ", made("small", "", more));
}

function many(number) {
  return number.toLocaleString("en");
}
