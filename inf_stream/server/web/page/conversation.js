// The conversation: questions, answers as they stream, alerts, and notes; said aloud once each is whole.

import { made, say } from "./elements.js";
import { clock, timeButton, withTimes } from "./times.js";

const MOST_LINES = 400;
const FAILURES = { cancelled: "Cancelled.", failed: "The answer failed.", refused: "Refused: too many questions wait." };

export class Conversation {
  #log;
  #end;
  #quiet;
  #loud;
  #onTime;
  #onCancel;
  #open = new Map(); // id of an answer -> its element
  #isFollowing = true;

  // `log` ends with `end`; `newest` is a button that leads there; `quiet` and `loud` are live regions; `onTime` gets
  // seconds that were clicked, `onCancel` ids.
  constructor({ log, end, newest, quiet, loud, onTime, onCancel }) {
    this.#log = log;
    this.#end = end;
    this.#quiet = quiet;
    this.#loud = loud;
    this.#onTime = onTime;
    this.#onCancel = onCancel;
    this.#follow(newest);
  }

  get openIds() {
    return [...this.#open.keys()];
  }

  ask(id, text) {
    this.#log.querySelector(".hint")?.remove();
    this.#add("h3", "question").append(text);
    const answer = this.#add("div", "answer");
    answer.append(made("p", "text"), this.#cancelButton(id));
    this.#open.set(id, answer);
    this.#isFollowing = true;
    this.#scroll();
  }

  // What its asker should know of an answer that begins.
  warn(id, warning) {
    this.#open.get(id)?.prepend(made("p", "warning", warning));
    this.#scroll();
  }

  heard(id, text) {
    this.#open.get(id)?.querySelector(".text").append(text);
    this.#scroll();
  }

  finished(message) {
    const answer = this.#open.get(message.id);
    if (!answer) return;
    const failure = FAILURES[message.reason];
    answer.querySelector(".text").replaceChildren(withTimes(message.text, this.#onTime));
    this.#close(message.id, failure);
    this.#rests(answer, message);
    this.#scroll();
    say(this.#quiet, [message.warning, `Answer: ${message.text}`, failure].filter(Boolean).join(" "));
  }

  alert(question, message) {
    const alert = this.#add("div", "alert");
    const text = made("p", "text");
    text.append(timeButton(clock(message.at_s), message.at_s, this.#onTime));
    text.append(` ${question} `, withTimes(message.text, this.#onTime));
    alert.append(text);
    this.#rests(alert, message);
    this.#scroll();
    say(this.#loud, `Alert: ${question} ${message.text}`);
  }

  // A line between what came before and what comes after.
  divide(text) {
    this.#add("p", "divider").append(text);
    this.#scroll();
  }

  note(text) {
    this.#add("p", "note").append(text);
    this.#scroll();
    say(this.#quiet, text);
  }

  problem(text) {
    this.#add("p", "problem").append(text);
    this.#scroll();
    say(this.#loud, text);
  }

  // These answers will not come any more.
  giveUp(why, ids = this.openIds) {
    for (const id of ids) if (this.#open.has(id)) this.#close(id, `No answer: ${why}.`);
  }

  #close(id, failure) {
    const answer = this.#open.get(id);
    this.#open.delete(id);
    const cancel = answer.querySelector(".cancel");
    const hadFocus = cancel === document.activeElement;
    cancel.remove();
    if (hadFocus) this.#log.focus({ preventScroll: true });
    if (failure) answer.append(made("p", "failure", failure));
  }

  #rests(item, { evidence }) {
    if (!evidence?.length) return;
    const rests = made("p", "rests", "rests on ");
    for (const { at_s: second, share } of [...evidence].sort((a, b) => a.at_s - b.at_s)) {
      const button = timeButton(clock(second), second, this.#onTime);
      button.title = `${Math.round(100 * share)} % of the answer's attention`;
      rests.append(button, " ");
    }
    item.append(rests);
  }

  #cancelButton(id) {
    const button = made("button", "cancel", "Cancel");
    button.addEventListener("click", () => this.#onCancel(id));
    return button;
  }

  #add(tag, kind) {
    const item = made(tag, kind);
    this.#end.before(item);
    while (this.#log.childElementCount > MOST_LINES) this.#log.firstElementChild.remove();
    return item;
  }

  // New lines are scrolled to, unless somebody reads older ones; then a button leads to them.
  #follow(newest) {
    new IntersectionObserver(([{ isIntersecting }]) => {
      this.#isFollowing = newest.hidden = isIntersecting;
    }).observe(this.#end);
    newest.addEventListener("click", () => {
      this.#isFollowing = true;
      this.#scroll();
      this.#log.focus({ preventScroll: true });
    });
  }

  #scroll() {
    if (this.#isFollowing) this.#end.scrollIntoView({ block: "nearest" });
  }
}
