// The server's public protocol at /v1/stream, kept through lost connections.

const PAUSES_S = [0.5, 1, 2, 5, 10, 10, 10];
const FIRST_TRIES = 2;
const SEND_AHEAD_BYTES = 1 << 20;

export class Connection extends EventTarget {
  #socket = null;
  #handle = null;
  #seen = null;
  #tries = 0;
  #key = "";
  #wanted = false;
  #timer = 0;

  // Begin, or begin anew with another key.
  open(key = this.#key) {
    this.close();
    this.#key = key;
    this.#wanted = true;
    this.#handle = this.#seen = null;
    this.#tries = 0;
    this.#connect();
  }

  close() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    if (this.#socket) {
      this.#socket.onclose = this.#socket.onmessage = this.#socket.onopen = null;
      this.#socket.close(1000);
    }
    this.#socket = null;
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
    const address = new URL("/v1/stream", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (this.#handle) {
      address.searchParams.set("resume", this.#handle);
      if (this.#seen !== null) address.searchParams.set("after", String(this.#seen));
    }
    const protocols = ["inf-stream"];
    if (this.#key) protocols.push(`openai-insecure-api-key.${this.#key}`);
    this.#tell("status", { text: this.#handle ? "connecting again…" : "connecting…" });
    const socket = new WebSocket(address, protocols);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#tell("status", { text: "connected" });
    socket.onmessage = (event) => this.#received(JSON.parse(event.data));
    socket.onclose = (event) => this.#closed(event);
    this.#socket = socket;
  }

  #received(message) {
    if (message.seq !== undefined) this.#seen = message.seq;
    if (message.type === "hello") {
      this.#tries = 0;
      const isNew = this.#handle === null;
      this.#handle = message.handle;
      this.#tell("hello", { ...message, isNew });
      return;
    }
    this.#tell("message", message);
  }

  #closed(event) {
    this.#socket = null;
    if (!this.#wanted) return;
    // 1008: the session is gone or was refused; what it knew is lost, so say so and begin a new one when asked.
    // A browser is not told why it was turned away, so a first connection is tried a few times only.
    const most = this.#handle ? PAUSES_S.length : FIRST_TRIES;
    if (event.code === 1008 || event.code === 1000 || this.#tries >= most) {
      const reason = event.reason || (this.#handle ? "the connection was lost" : "the server may ask for an API key");
      this.#wanted = false;
      this.#tell("status", { text: `not connected: ${reason}`, ended: true, wantsKey: !this.#handle });
      return;
    }
    const pauseS = PAUSES_S[this.#tries++];
    this.#tell("status", { text: event.reason ? `${event.reason}; trying again…` : "connection lost; trying again…" });
    this.#timer = setTimeout(() => this.#connect(), pauseS * 1000);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
