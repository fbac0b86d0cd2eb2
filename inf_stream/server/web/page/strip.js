// The strip: the seconds of the stream from left to right, bright where their tokens are still kept. A slider, too.

import { clock } from "./times.js";

const FAR_BARS = 10;
const GROUND = "#10161f";
const MARK = "#4d9bff";
const MARK_HEIGHT = 6;
const LEAST_MARK = 4;
const CURSOR = "#ffffff";

export class Strip {
  #canvas;
  #onChosen;
  #memory = null;
  #marks = [];
  #chosen = null;
  #pointed = null;

  // `onChosen` gets a second that was chosen with pointer or keys, or null for now.
  constructor(canvas, onChosen) {
    this.#canvas = canvas;
    this.#onChosen = onChosen;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#choose(this.#secondAt(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) return this.#choose(this.#secondAt(event));
      this.#pointed = this.#secondAt(event);
      this.#draw();
    });
    canvas.addEventListener("pointerleave", () => {
      this.#pointed = null;
      this.#draw();
    });
    canvas.addEventListener("keydown", (event) => this.#pressed(event));
    this.#tell();
  }

  // `memory`: {from_s, width_s, kept: [tokens]}, or null.
  show(memory) {
    this.#memory = memory?.kept.length ? memory : null;
    this.#draw();
    this.#tell();
  }

  // Seconds to point out.
  mark(seconds) {
    this.#marks = seconds;
    this.#draw();
  }

  // Where the cursor stands: a second, or null for now.
  set chosen(second) {
    this.#chosen = second;
    this.#draw();
    this.#tell();
  }

  get endS() {
    const memory = this.#memory;
    return memory ? memory.from_s + memory.width_s * memory.kept.length : 0;
  }

  // Share of the seconds of which something is kept.
  get share() {
    const kept = this.#memory?.kept || [];
    return kept.length ? kept.filter((tokens) => tokens > 0).length / kept.length : 0;
  }

  // What is kept of a second, in words.
  describe(second) {
    const memory = this.#memory;
    const tokens = memory?.kept[Math.floor((second - memory.from_s) / memory.width_s)];
    if (tokens === undefined) return "";
    if (tokens <= 0) return "forgotten";
    if (tokens < 1) return "less than 1 token kept";
    return tokens < 1.5 ? "1 token kept" : `${Math.round(tokens)} tokens kept`;
  }

  #pressed(event) {
    const memory = this.#memory;
    if (!memory) return;
    const bar = memory.width_s;
    const at = this.#chosen ?? this.endS;
    const to = {
      ArrowLeft: at - bar,
      ArrowDown: at - bar,
      ArrowRight: at + bar,
      ArrowUp: at + bar,
      PageDown: at - FAR_BARS * bar,
      PageUp: at + FAR_BARS * bar,
      Home: memory.from_s,
      End: this.endS,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#choose(to);
  }

  #secondAt(event) {
    const memory = this.#memory;
    if (!memory) return null;
    const box = this.#canvas.getBoundingClientRect();
    const place = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return memory.from_s + place * (this.endS - memory.from_s);
  }

  #choose(second) {
    if (second === null) return;
    this.#onChosen(second >= this.endS ? null : Math.max(this.#memory.from_s, second));
  }

  #tell() {
    const now = Math.floor(this.endS);
    const at = this.#chosen === null ? now : Math.min(now, Math.floor(this.#chosen));
    const text = this.#chosen === null ? `now, ${clock(now)}` : `${clock(at)}, ${this.describe(at)}`;
    const told = { valuemin: Math.floor(this.#memory?.from_s || 0), valuemax: now, valuenow: at };
    for (const [name, value] of Object.entries(told)) this.#canvas.setAttribute(`aria-${name}`, String(value));
    this.#canvas.setAttribute("aria-valuetext", this.#memory ? text : "nothing yet");
    this.#canvas.setAttribute("aria-disabled", String(!this.#memory));
  }

  #draw() {
    const canvas = this.#canvas;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
    const paper = canvas.getContext("2d");
    paper.fillStyle = GROUND;
    paper.fillRect(0, 0, canvas.width, canvas.height);
    const memory = this.#memory;
    if (!memory) return;
    this.#drawKept(paper, memory.kept, canvas.width, canvas.height);
    const bar = canvas.width / memory.kept.length;
    const place = (second) => ((second - memory.from_s) / memory.width_s) * bar;
    paper.fillStyle = MARK;
    for (const second of this.#marks) {
      const left = Math.floor(place(second) / bar) * bar;
      paper.fillRect(Math.floor(left), 0, Math.ceil(Math.max(bar, LEAST_MARK * scale)), MARK_HEIGHT * scale);
    }
    const line = (second, width, colour) => {
      paper.fillStyle = colour;
      paper.fillRect(Math.round(place(second) - (width * scale) / 2), 0, Math.round(width * scale), canvas.height);
    };
    for (const second of [this.#pointed, this.#chosen].filter((second) => second !== null)) {
      line(second, 7, GROUND); // so that the cursor shows on bright and dark
      line(second, 3, CURSOR);
    }
  }

  // Column by column, so that no second is lost where the strip has fewer pixels than the stream has bars.
  #drawKept(paper, kept, width, height) {
    const most = Math.max(...kept, 1e-9);
    for (let x = 0; x < width; x++) {
      const first = Math.floor((x * kept.length) / width);
      const last = Math.max(first + 1, Math.ceil(((x + 1) * kept.length) / width));
      const tokens = Math.max(...kept.slice(first, last));
      if (tokens <= 0) continue;
      // The square root, so that single tokens show beside whole frames.
      const bright = Math.sqrt(tokens / most);
      paper.fillStyle = `hsl(${47 - 15 * (1 - bright)} 95% ${24 + 46 * bright}%)`;
      paper.fillRect(x, 0, 1, height);
    }
  }
}
