// What is going on, in words: said when it changes, with a count-down that is not read out.

const WAITING = {
  lost: "The connection was lost.",
  stopped: "The server has stopped.",
  gone: "The session has ended.",
  unreachable: "The server does not answer.",
};
const ENDED = {
  asleep: "The session has ended",
  taken: "The session goes on in another connection",
  "no-key": "The server asks for an API key",
  "wrong-key": "The server does not know this API key",
  refused: "The server refuses this page",
};

const AGAIN = { asleep: "Begin a new session", taken: "Begin a new session", refused: "Try again" };

export class Status {
  #lamp;
  #text;
  #countdown;
  #again;
  #retryAtMs = 0;

  constructor({ lamp, text, countdown, again }) {
    this.#lamp = lamp;
    this.#text = text;
    this.#countdown = countdown;
    this.#again = again;
    setInterval(() => this.#count(), 250);
  }

  // `link`: state of the connection; `doing`: {opening, source, isPaused, hasEnded, answers}.
  show(link, doing) {
    if (link.name === "connecting" && this.#retryAtMs) return this.#try();
    const [lamp, text] = link.name === "open" ? busy(doing) : [link.name, linkText(link)];
    this.#lamp.className = lamp;
    if (this.#text.textContent !== text) this.#text.textContent = text;
    this.#retryAtMs = link.name === "waiting" ? link.retryAtMs : 0;
    this.#again.hidden = link.name === "open" || link.name === "connecting" || /-key$/.test(link.why);
    this.#again.textContent = AGAIN[link.why] || "Try now";
    this.#count();
  }

  // Said to nobody: the server may be away for long.
  #try() {
    this.#retryAtMs = Infinity;
    this.#again.hidden = true;
    this.#count();
  }

  #count() {
    const seconds = Math.max(1, Math.ceil((this.#retryAtMs - performance.now()) / 1000));
    const waiting = seconds === Infinity ? "Trying…" : `Trying again in ${seconds} s`;
    this.#countdown.textContent = this.#retryAtMs ? waiting : "";
  }
}

export function linkText({ name, why, reason }) {
  if (name === "connecting") return "Connecting…";
  if (why === "full") return `${capital(reason.replace(/; try again.*/, ""))}.`;
  if (name === "waiting") return WAITING[why];
  return ["asleep", "refused"].includes(why) && reason ? `${ENDED[why]}: ${reason}` : ENDED[why];
}

function busy({ opening, source, isPaused, hasEnded, answers }) {
  if (answers > 1) return ["answering", `Answering, ${answers - 1} waiting`];
  if (answers) return ["answering", "Answering"];
  if (opening) return ["connecting", `Opening the ${opening}…`];
  if (!source) return ["idle", "Waiting for a source"];
  if (hasEnded) return ["idle", `${source.name} has ended`];
  if (isPaused) return ["idle", `${source.name} is paused`];
  return ["streaming", `Streaming ${source.kind === "file" ? source.name : `the ${source.kind}`}`];
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
