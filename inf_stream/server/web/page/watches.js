// Watches: questions that the server asks by itself, again and again.

import { $, made } from "./elements.js";

export class Watches {
  #list;
  #connection;
  #most = Infinity;
  #made = 0;
  #watches = new Map(); // id -> {question, item}; without an item until the server has set it
  #unset = []; // ids that the server has not been told of
  #asked = []; // ids that the server has not answered to yet, which it does in order

  constructor(list, connection) {
    this.#list = list;
    this.#connection = connection;
  }

  // Set one; returns why it cannot be, or "".
  add(question) {
    const watches = [...this.#watches.values()];
    if (watches.some((watch) => plain(watch.question) === plain(question))) return "This watch is set already.";
    if (watches.length >= this.#most) return `At most ${this.#most} watches can be set here.`;
    const id = `w${(this.#made += 1)}`;
    if (!this.#ask(id, question)) return "Not set: there is no connection to the server.";
    this.#watches.set(id, { question, item: null });
    return "";
  }

  questionOf(id) {
    return this.#watches.get(id)?.question || id;
  }

  // The server has set one; returns its question if that is news.
  confirmed(id) {
    this.#asked = this.#asked.filter((other) => other !== id);
    const watch = this.#watches.get(id);
    if (!watch || watch.item) return null;
    watch.item = this.#item(id, watch.question);
    this.#list.append(watch.item);
    return watch.question;
  }

  // The server has refused one.
  refused() {
    const id = this.#asked.shift();
    this.#watches.get(id)?.item?.remove();
    this.#watches.delete(id);
  }

  // Another connection: ask again for what was not confirmed; in a new session, for all.
  begin(most, isNew) {
    this.#most = most;
    this.#asked = [];
    for (const id of isNew ? [] : this.#unset) this.#connection.send({ type: "unwatch", id });
    this.#unset = [];
    for (const [id, { question, item }] of this.#watches) if (isNew || !item) this.#ask(id, question);
  }

  #ask(id, question) {
    const isSent = this.#connection.send({ type: "watch", id, question });
    if (isSent) this.#asked.push(id);
    return isSent;
  }

  #item(id, question) {
    const item = made("li");
    const remove = made("button", "", "×");
    remove.setAttribute("aria-label", `Stop watching: ${question}`);
    remove.addEventListener("click", () => {
      if (!this.#connection.send({ type: "unwatch", id })) this.#unset.push(id);
      this.#watches.delete(id);
      const next = (item.nextElementSibling || item.previousElementSibling)?.querySelector("button");
      item.remove();
      (next || $("question")).focus();
    });
    item.append(made("span", "", question), remove);
    return item;
  }
}

function plain(question) {
  return question.toLowerCase().replace(/[\s?!.]+/g, " ").trim();
}
