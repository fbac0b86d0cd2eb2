// Puts the page together: source -> frames -> server -> answers, alerts, memory.

import { Connection } from "./connection.js";
import { Frames } from "./frames.js";
import { Strip } from "./memory.js";
import { clock, timeButton, withTimes } from "./times.js";

const MOST_LINES = 400;
const STATS_MS = 1000;
const PAST_MS = 4000;

const $ = (id) => document.getElementById(id);
const connection = new Connection();
const frames = new Frames($("video"), connection);
const strip = new Strip($("strip"), showSecond);
const open = new Map(); // id of an answer -> its line
const watches = new Map(); // id of a watch -> its question
let source = null; // {stream} or {address}
let asked = 0;
let settledInLastSeconds = [];

// ---- the server ----------------------------------------------------------------------------------

connection.addEventListener("status", ({ detail }) => {
  $("status").textContent = detail.text;
  if (!detail.ended) return;
  if (detail.wantsKey) $("entry").open = true;
  for (const answer of open.values()) problem(answer, "no answer: the connection ended");
  open.clear();
  problem(line("problem"), detail.text);
  refresh();
  const again = document.createElement("button");
  again.type = "button";
  again.textContent = "Begin a new session";
  again.addEventListener("click", begin);
  $("status").append(" ", again);
});

connection.addEventListener("hello", ({ detail: hello }) => {
  $("model").textContent = `${hello.model}, ${hello.limits.budget_tokens.toLocaleString("en")} tokens of memory`;
  if (hello.isNew) {
    frames.forget();
    for (const [id, question] of watches) sendWatch(id, question);
  }
  refresh();
});

connection.addEventListener("message", ({ detail: message }) => {
  const handle = {
    frame: onFrame,
    stats: onStats,
    alert: onAlert,
    "answer.started": (m) => open.get(m.id)?.classList.add("running"),
    "answer.delta": (m) => open.get(m.id)?.querySelector(".text").append(m.text),
    "answer.finished": onFinished,
    warning: (m) => problem(line("problem"), `${clock(m.at_s)} ${m.message}`),
    error: (m) => problem(line("problem"), m.message),
  }[message.type];
  handle?.(message);
});

function begin() {
  connection.open(sessionStorage.getItem("key") || "");
}

function onFrame(message) {
  frames.settled();
  if (message.outcome === "accepted") settledInLastSeconds.push(performance.now());
}

function onStats(message) {
  const now = performance.now();
  settledInLastSeconds = settledInLastSeconds.filter((at) => now - at < 10_000);
  const memory = message.memory;
  if (memory) {
    const [kept, most] = [memory.tokens_kept, memory.most_tokens].map((tokens) => tokens.toLocaleString("en"));
    $("figure-cache").textContent = `${kept} of ${most}`;
    strip.show(memory);
    $("memory-text").textContent = strip.describe();
  }
  const dropped = message.frames.dropped + frames.skipped;
  $("figure-frames").textContent = `${message.frames.accepted} · ${(settledInLastSeconds.length / 10).toFixed(1)}/s`;
  $("figure-dropped").textContent = String(dropped);
}

setInterval(() => connection.send({ type: "stats" }), STATS_MS);

// ---- the source ----------------------------------------------------------------------------------

$("camera").addEventListener("click", () =>
  capture(() => navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false })));
$("screen").addEventListener("click", () =>
  capture(() => navigator.mediaDevices.getDisplayMedia({ video: true, audio: false })));
$("file").addEventListener("click", () => $("chosen").click());
$("stop").addEventListener("click", stopSource);
$("fps").addEventListener("change", () => source && frames.start(Number($("fps").value), Boolean(source.address)));
$("chosen").addEventListener("change", async () => {
  const file = $("chosen").files[0];
  $("chosen").value = "";
  if (!file) return;
  stopSource();
  source = { address: URL.createObjectURL(file) };
  $("video").src = source.address;
  $("video").controls = true;
  await play(file.name);
});
$("video").addEventListener("ended", () => frames.stop());
$("video").addEventListener("error", () => {
  if (!source?.address) return;
  stopSource();
  problem(line("problem"), "this file cannot be played here; choose an MP4 (H.264) or WebM");
});

async function capture(ask) {
  if (!navigator.mediaDevices) {
    problem(line("problem"), "cameras are shown to secure pages only: open this one over https, or on localhost");
    return;
  }
  let stream;
  try {
    stream = await ask();
  } catch (error) {
    problem(line("problem"), `no picture: ${error.message}`);
    return;
  }
  stopSource();
  source = { stream };
  $("video").srcObject = stream;
  $("video").controls = false;
  stream.getVideoTracks()[0].addEventListener("ended", stopSource);
  await play("the stream");
}

async function play(name) {
  try {
    await $("video").play();
  } catch (error) {
    if (source) problem(line("problem"), `${name} cannot be played: ${error.message}`);
    return;
  }
  frames.start(Number($("fps").value), Boolean(source?.address));
  refresh();
}

function stopSource() {
  frames.stop();
  source?.stream?.getTracks().forEach((track) => track.stop());
  const address = source?.address;
  source = null;
  $("video").srcObject = null;
  $("video").removeAttribute("src");
  $("video").controls = false;
  $("video").load();
  if (address) URL.revokeObjectURL(address);
  refresh();
}

// ---- questions and answers -----------------------------------------------------------------------

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("question").value.trim();
  if (!text) return;
  const id = `q${(asked += 1)}`;
  if (!connection.send({ type: "ask", id, text, aside: $("aside").checked })) {
    problem(line("problem"), "not asked: there is no connection to the server");
    return;
  }
  $("question").value = "";
  line("question").append(text);
  const answer = line("answer");
  answer.append(paragraph("text"));
  open.set(id, answer);
  refresh();
});

$("cancel").addEventListener("click", cancelAll);
document.addEventListener("keydown", (event) => {
  const isTyping = /^(input|select|textarea)$/i.test(event.target.tagName);
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    $("question").focus();
  } else if (event.key === "Escape") {
    cancelAll();
  }
});

function cancelAll() {
  for (const id of open.keys()) connection.send({ type: "cancel", id });
}

function onFinished(message) {
  const answer = open.get(message.id);
  open.delete(message.id);
  refresh();
  if (!answer) return;
  answer.classList.remove("running");
  answer.querySelector(".text").replaceChildren(withTimes(message.text, showSecond));
  const why = { cancelled: "cancelled", failed: "the answer failed", refused: "refused: too many questions wait" };
  if (why[message.reason]) problem(answer, why[message.reason]);
  rests(answer, message.evidence);
  if (message.ttft_s !== null) $("figure-first").textContent = `${message.ttft_s.toFixed(2)} s`;
  scroll();
}

function onAlert(message) {
  const alert = line("alert");
  alert.setAttribute("role", "alert");
  const text = paragraph("text");
  const question = watches.get(message.metadata.trigger) || message.metadata.trigger;
  text.append(timeButton(clock(message.at_s), message.at_s, showSecond), ` ${question} `, withTimes(message.text, showSecond));
  alert.append(text);
  rests(alert, message.evidence);
  scroll();
}

function rests(item, evidence) {
  if (!evidence?.length) return;
  const told = paragraph("rests");
  told.append("rests on ");
  for (const { at_s } of evidence) told.append(timeButton(clock(at_s), at_s, showSecond), " ");
  item.append(told);
  strip.mark(evidence.map(({ at_s }) => at_s));
}

// ---- watches -------------------------------------------------------------------------------------

$("watch").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("watch-question").value.trim();
  if (!question || !connection.isOpen) return;
  const id = `w${(asked += 1)}`;
  sendWatch(id, question);
  $("watch-question").value = "";
  watches.set(id, question);
  const item = document.createElement("li");
  const remove = document.createElement("button");
  remove.type = "button";
  remove.textContent = "Remove";
  remove.setAttribute("aria-label", `Stop watching: ${question}`);
  remove.addEventListener("click", () => {
    connection.send({ type: "unwatch", id });
    watches.delete(id);
    item.remove();
    $("watch-question").focus();
  });
  item.append(question, remove);
  $("watches").append(item);
});

function sendWatch(id, question) {
  connection.send({ type: "watch", id, question });
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value.trim());
  begin();
});

// ---- small things --------------------------------------------------------------------------------

let pastTimer = 0;

// What was seen then, over the picture of now, for a moment.
function showSecond(second) {
  strip.mark([second]);
  const picture = frames.pictureAt(second);
  if (!picture) return;
  $("past").src = picture.address;
  $("past").alt = `What was seen at ${clock(picture.atS)}`;
  $("past-label").textContent = clock(picture.atS);
  $("past").hidden = $("past-label").hidden = false;
  clearTimeout(pastTimer);
  $("stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
  pastTimer = setTimeout(() => ($("past").hidden = $("past-label").hidden = true), PAST_MS);
}

function line(kind) {
  const item = document.createElement("li");
  item.className = kind;
  $("log").append(item);
  while ($("log").children.length > MOST_LINES) $("log").firstChild.remove();
  scroll();
  return item;
}

function paragraph(kind) {
  const made = document.createElement("p");
  made.className = kind;
  return made;
}

function problem(item, text) {
  const told = paragraph("problem");
  told.textContent = text;
  item.append(told);
  scroll();
}

function scroll() {
  $("log").scrollTop = $("log").scrollHeight;
}

function refresh() {
  $("stop").disabled = source === null;
  $("empty").hidden = source !== null;
  $("cancel").disabled = open.size === 0;
}

// A page that is left wants no more of its session; one that comes back from the browser's memory begins a new one.
window.addEventListener("pagehide", () => connection.close());
window.addEventListener("pageshow", (event) => event.persisted && begin());

refresh();
begin();
