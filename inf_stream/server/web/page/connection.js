// The server's public protocol at /v1/stream, kept through lost connections and restarted servers.

const PATH = "/v1/stream";
const PAUSES_S = [0.5, 1, 2, 5, 10];
const SEND_AHEAD_BYTES = 1 << 20;
const ANSWER_MS = 5000;
const SENDABLE_KEY = /^[\w!#$%&'*+.^`|~-]*$/; // as the name of a subprotocol

// Events, each with a detail:
//   state    {name: "connecting" | "open"}
//            {name: "waiting", why: "lost" | "stopped" | "gone" | "full" | "unreachable", reason, retryAtMs}
//            {name: "ended", why: "asleep" | "taken" | "no-key" | "wrong-key" | "refused", reason}
//   hello    the server's, and {isNew, after}: whether the session is, and what became of the one before
//   message  any other of the server
export class Connection extends EventTarget {
  #socket = null;
  #handle = null;
  #seen = null;
  #after = null;
  #tries = 0;
  #key = "";
  #attempt = 0;
  #timer = 0;

  // Begin a new session, with another key if one is given.
  open(key = this.#key) {
    this.close();
    this.#key = key;
    this.#tries = 0;
    this.#forget(null);
    this.#connect();
  }

  close() {
    this.#attempt += 1;
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#socket?.close(1000);
    this.#socket = null;
  }

  // Do not wait any longer before the next attempt.
  retry() {
    if (!this.#timer) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  get isOpen() {
    return this.#socket !== null && this.#socket.readyState === WebSocket.OPEN;
  }

  // Whether another frame would only queue up here.
  get isBusy() {
    return !this.isOpen || this.#socket.bufferedAmount > SEND_AHEAD_BYTES;
  }

  send(message) {
    if (!this.isOpen) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  sendFrame(blob, timestampMs) {
    if (this.send({ type: "frame", timestamp_ms: timestampMs })) this.#socket.send(blob);
  }

  #connect() {
    const attempt = (this.#attempt += 1);
    this.#timer = 0;
    const address = new URL(PATH, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (this.#handle) {
      address.searchParams.set("resume", this.#handle);
      if (this.#seen !== null) address.searchParams.set("after", String(this.#seen));
    }
    const protocols = ["inf-stream"];
    if (this.#key) protocols.push(`openai-insecure-api-key.${this.#key}`);
    this.#tell("state", { name: "connecting" });
    if (!SENDABLE_KEY.test(this.#key)) return this.#end("wrong-key", "");
    const socket = new WebSocket(address, protocols);
    const ours = (handle) => (event) => attempt === this.#attempt && handle(event);
    let wasOpen = false;
    socket.onopen = ours(() => (wasOpen = true));
    socket.onmessage = ours((event) => this.#received(JSON.parse(event.data)));
    socket.onclose = ours((event) => this.#closed(event, wasOpen));
    this.#socket = socket;
  }

  #received(message) {
    if (message.seq !== undefined) this.#seen = message.seq;
    if (message.type !== "hello") return this.#tell("message", message);
    const isNew = this.#handle === null;
    this.#tries = 0;
    this.#handle = message.handle;
    this.#tell("state", { name: "open" });
    this.#tell("hello", { ...message, isNew, after: isNew ? this.#after : null });
    this.#after = null;
  }

  async #closed({ code, reason }, wasOpen) {
    this.#socket = null;
    if (code === 1000) return this.#end("asleep", reason);
    if (code === 1001 && reason.includes("another connection")) return this.#end("taken", reason);
    if (code === 1001) {
      this.#forget("stopped");
      return this.#wait("stopped", reason);
    }
    if (code === 1008) {
      if (!this.#handle) return this.#end("refused", reason);
      this.#forget("gone");
      return this.#wait("gone", reason);
    }
    if (code === 1013) return this.#wait("full", reason, Number(/try again in (\d+) s/.exec(reason)?.[1]));
    if (wasOpen) return this.#wait("lost", reason);
    return this.#refused();
  }

  // A browser does not tell why a WebSocket was turned away; the answer to a plain request does.
  async #refused() {
    const attempt = this.#attempt;
    const { status, reason } = await this.#ask();
    if (attempt !== this.#attempt) return;
    if (status === 401) this.#end(this.#key ? "wrong-key" : "no-key", reason);
    else if (status === 403) this.#end("refused", reason);
    else this.#wait(this.#after || (this.#handle ? "lost" : "unreachable"), "");
  }

  async #ask() {
    const headers = this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
    try {
      // OPTIONS, since browsers name the page's origin, which may be what is refused, in no GET.
      const response = await fetch(PATH, { method: "OPTIONS", headers, signal: AbortSignal.timeout(ANSWER_MS) });
      return { status: response.status, reason: (await response.json()).error?.message || "" };
    } catch {
      return { status: 0, reason: "" };
    }
  }

  #forget(after) {
    this.#handle = this.#seen = null;
    this.#after = after;
  }

  #wait(why, reason, pauseS = 0) {
    const ms = 1000 * (pauseS || PAUSES_S[Math.min(this.#tries++, PAUSES_S.length - 1)]);
    this.#timer = setTimeout(() => this.#connect(), ms);
    this.#tell("state", { name: "waiting", why, reason, retryAtMs: performance.now() + ms });
  }

  #end(why, reason) {
    this.#tell("state", { name: "ended", why, reason });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
