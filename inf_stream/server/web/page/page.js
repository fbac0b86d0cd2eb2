// Puts the page together: source -> frames -> server -> answers, alerts, memory.

import { Awake } from "./awake.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { $, say } from "./elements.js";
import { Figures } from "./figures.js";
import { Frames, StreamClock } from "./frames.js";
import { Pictures } from "./pictures.js";
import { Sources } from "./sources.js";
import { linkText, Status } from "./status.js";
import { Strip } from "./strip.js";
import { clock } from "./times.js";
import { offerSources, showCameras, showSource } from "./tools.js";
import { Viewer } from "./viewer.js";
import { Watches } from "./watches.js";

const STATS_MS = 1000;
const TITLE = document.title;

const video = $("video");
const connection = new Connection();
const streamClock = new StreamClock();
const pictures = new Pictures();
const frames = new Frames(video, connection, streamClock, (blob, second) => pictures.add(blob, second));
const sources = new Sources(video);
const strip = new Strip($("strip"), (second) => viewer.show(second));
const viewer = new Viewer(strip, pictures, streamClock);
const figures = new Figures();
const watches = new Watches($("watches"), connection);
const status = new Status({ lamp: $("lamp"), text: $("status"), countdown: $("countdown"), again: $("again") });
const conversation = new Conversation({
  log: $("log"),
  end: $("log-end"),
  newest: $("newest"),
  quiet: $("said"),
  loud: $("alarm"),
  onTime: showTime,
  onCancel: (id) => connection.send({ type: "cancel", id }),
});
const awake = new Awake();
const frameErrors = new Set();
let link = { name: "connecting" };
let hadSession = false;
let shownSource = null;
let asked = 0;
let doubtful = []; // answers that may have been lost with a connection
let alerts = 0; // while nobody looked

// ---- the server ----------------------------------------------------------------------------------

connection.addEventListener("state", ({ detail }) => {
  link = detail;
  const wantsKey = link.why === "no-key" || link.why === "wrong-key";
  if (link.name === "ended") conversation.giveUp(linkText(link).toLowerCase());
  if (wantsKey) askForKey();
  if (link.name === "open") $("key-form").hidden = true;
  refresh();
});

connection.addEventListener("hello", ({ detail: hello }) => {
  $("model").textContent = `${hello.model} · memory of ${hello.limits.budget_tokens.toLocaleString("en")} tokens`;
  $("question").maxLength = hello.limits.text_characters;
  frames.expectNone();
  if (hello.isNew) beginAnew();
  doubtful = conversation.openIds;
  if (doubtful.length) connection.send({ type: "stats" });
  watches.begin(hello.limits.watches, hello.isNew);
  refresh();
});

connection.addEventListener("message", ({ detail: message }) => {
  if (message.at_s !== undefined) streamClock.hear(message.at_s * 1000);
  MESSAGES[message.type]?.(message);
});

const MESSAGES = {
  frame: onFrame,
  stats: onStats,
  "answer.started": ({ id, warning }) => warning && conversation.warn(id, warning),
  "answer.delta": ({ id, text }) => conversation.heard(id, text),
  "answer.finished": onFinished,
  alert: onAlert,
  watching: ({ id }) => {
    const question = watches.confirmed(id);
    if (question) conversation.note(`Watching for “${question}”. You are told when the answer begins with “yes”.`);
  },
  warning: (m) => conversation.problem(`${clock(m.at_s)} ${m.message}`),
  error: (m) => {
    if (/^watch/.test(m.param)) watches.refused();
    if (m.code !== "not_active") conversation.problem(m.message); // what was to be cancelled had just ended
  },
};

function onFrame(message) {
  frames.settled();
  if (message.outcome === "accepted") figures.accepted();
  if (message.outcome !== "error" || frameErrors.has(message.reason)) return;
  frameErrors.add(message.reason);
  conversation.problem(`The server cannot take these frames: ${message.reason}.`);
}

function onStats(message) {
  if (doubtful.length && !message.questions_waiting) {
    conversation.giveUp("it was lost with the connection", doubtful);
    doubtful = [];
    refresh();
  }
  streamClock.hear(message.stream_s * 1000);
  figures.show(message, frames.skipped);
  if (message.memory) {
    strip.show(message.memory);
    $("axis-from").textContent = clock(message.memory.from_s);
    const share = strip.share === 1 ? "every second" : `${Math.floor(100 * strip.share)} % of the seconds`;
    $("memory-text").textContent = `something of ${share} is kept`;
  }
  viewer.refresh();
}

function onFinished(message) {
  conversation.finished(message);
  if (message.evidence?.length) strip.mark(message.evidence.map(({ at_s }) => at_s));
  if (message.ttft_s !== null) figures.firstToken(message.ttft_s);
  refresh();
}

function onAlert(message) {
  conversation.alert(watches.questionOf(message.metadata.trigger), message);
  strip.mark(message.evidence.map(({ at_s }) => at_s));
  if (document.visibilityState === "hidden") document.title = `(${(alerts += 1)}) ${TITLE}`;
}

document.addEventListener("visibilitychange", () => {
  alerts = 0;
  document.title = TITLE;
});

// Not for a page without a stream, nor for one that nobody watches and that watches nothing: what says nothing for long
// is ended by the server, so that a forgotten page leaves its place to others.
setInterval(() => {
  const isUsed = shownSource || conversation.openIds.length || document.visibilityState === "visible";
  if (streamClock.hasBegun && isUsed) connection.send({ type: "stats" });
}, STATS_MS);

// The stream, and all that is known of it, begin anew.
function beginAnew() {
  conversation.giveUp("the session has ended");
  streamClock.reset();
  frames.reset();
  frameErrors.clear();
  pictures.clear();
  strip.mark([]);
  strip.show(null);
  figures.clear();
  viewer.show(null);
  if (hadSession) conversation.divide("New session: nothing of the above is remembered");
  if (hadSession && shownSource) divideForSource();
  hadSession = true;
}

function begin() {
  connection.open(sessionStorage.getItem("key") || "");
}

$("again").addEventListener("click", () => (link.name === "waiting" ? connection.retry() : begin()));
window.addEventListener("online", () => connection.retry());

// ---- the API key ---------------------------------------------------------------------------------

function askForKey() {
  $("key-problem").textContent = `${linkText(link)}.`;
  $("key").setAttribute("aria-invalid", String(link.why === "wrong-key"));
  $("key-form").hidden = false;
  $("key").focus();
  $("key").select();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value.trim());
  begin();
});

// ---- the source ----------------------------------------------------------------------------------

$("fps").addEventListener("change", () => (frames.fps = Number($("fps").value)));
for (const change of ["play", "pause", "ended", "seeked"]) video.addEventListener(change, refresh);

function choose(open) {
  if (link.name === "ended" && $("key-form").hidden) begin();
  open();
}

sources.addEventListener("problem", ({ detail }) => conversation.problem(detail));
sources.addEventListener("changed", () => {
  if (sources.current !== shownSource) changeSource(sources.current);
  refresh();
});

function changeSource(source) {
  shownSource = source;
  viewer.show(null);
  frames.stop();
  if (!source) return;
  divideForSource();
  frames.start(source.kind === "file");
  if (source.kind === "camera") showCameras(sources);
}

function divideForSource() {
  conversation.divide(`${shownSource.name}, from ${clock(streamClock.nowMs / 1000)}`);
}

// ---- questions and watches -----------------------------------------------------------------------

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("question").value.trim();
  if (!text) return;
  const id = `q${(asked += 1)}`;
  if (!connection.send({ type: "ask", id, text, aside: $("aside").checked })) {
    conversation.problem("Not asked: there is no connection to the server.");
    return;
  }
  $("question").value = "";
  conversation.ask(id, text);
  refresh();
});

$("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});

$("watch").addEventListener("click", () => {
  const question = $("question").value.trim();
  const refused = question ? watches.add(question) : "Type what to watch for first: a question to be answered with yes.";
  if (refused) conversation.problem(refused);
  else $("question").value = "";
  $("question").focus();
});

for (const example of document.querySelectorAll(".hint button")) {
  example.addEventListener("click", () => {
    $("question").value = example.textContent;
    $("question").focus();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (viewer.isPast) viewer.show(null);
  else for (const id of conversation.openIds) connection.send({ type: "cancel", id });
});

// ---- now and then --------------------------------------------------------------------------------

function showTime(second) {
  if (viewer.show(second)) say($("said"), `Shown: ${viewer.describe()}. Escape goes back to now.`);
  else conversation.note(`The stream has not come to ${clock(second)} yet.`);
}

function refresh() {
  const [opening, source] = [sources.opening, sources.current];
  const doing = { opening, source, isPaused: source?.kind === "file" && video.paused, hasEnded: video.ended };
  status.show(link, { ...doing, answers: conversation.openIds.length });
  showSource(source);
  awake.wanted = Boolean(source);
}

new ResizeObserver(() =>
  document.documentElement.style.setProperty("--composer", `${$("ask").offsetHeight}px`)).observe($("ask"));

// A page that is left wants no more of its session; one that comes back from the browser's memory begins a new one.
window.addEventListener("pagehide", () => connection.close());
window.addEventListener("pageshow", (event) => event.persisted && begin());

figures.clear();
offerSources(sources, choose);
refresh();
begin();
