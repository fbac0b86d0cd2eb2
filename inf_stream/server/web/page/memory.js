// The strip: the seconds of the stream from left to right, bright where their tokens are still kept.

import { clock } from "./times.js";

export class Strip {
  #canvas;
  #memory = null;
  #marks = [];
  #place = 0;

  constructor(canvas, onChosen) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      this.#choose((event.clientX - box.left) / box.width, onChosen);
    });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      this.#choose(Math.min(1, Math.max(0, this.#place + step)), onChosen);
    });
  }

  // `memory`: {from_s, width_s, kept: [tokens]}
  show(memory) {
    this.#memory = memory;
    this.#draw();
  }

  // Seconds to point out.
  mark(seconds) {
    this.#marks = seconds;
    this.#draw();
  }

  describe() {
    const memory = this.#memory;
    if (!memory || !memory.kept.length) return "Nothing yet.";
    const holds = memory.kept.filter((tokens) => tokens > 0).length;
    const end = memory.from_s + memory.width_s * memory.kept.length;
    const share = Math.round((100 * holds) / memory.kept.length);
    return `${clock(end)} of stream; something of ${share} % of its seconds is still kept. Brighter is more.`;
  }

  #choose(place, onChosen) {
    const memory = this.#memory;
    if (!memory || !memory.kept.length) return;
    this.#place = place;
    onChosen(memory.from_s + place * memory.width_s * memory.kept.length);
  }

  #draw() {
    const canvas = this.#canvas;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
    const memory = this.#memory;
    if (!memory || !memory.kept.length) return;
    const paper = canvas.getContext("2d");
    const most = Math.max(...memory.kept, 1e-9);
    const width = canvas.width / memory.kept.length;
    paper.fillStyle = "#0d1b2a";
    paper.fillRect(0, 0, canvas.width, canvas.height);
    memory.kept.forEach((tokens, n) => {
      if (tokens <= 0) return;
      // The square root, so that single tokens show beside whole frames.
      const bright = Math.sqrt(tokens / most);
      paper.fillStyle = `hsl(${45 - 10 * (1 - bright)} 95% ${18 + 52 * bright}%)`;
      paper.fillRect(Math.floor(n * width), 0, Math.ceil(width), canvas.height);
    });
    paper.fillStyle = "#7db4ff";
    for (const second of this.#marks) {
      const x = ((second - memory.from_s) / memory.width_s) * width;
      paper.fillRect(Math.round(x - scale), 0, Math.round(2 * scale), canvas.height);
    }
  }
}
