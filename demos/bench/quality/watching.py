"""What is asked of an hour of video, and an engine that watches it and is judged by which answer it finds likeliest."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[1]))
from columns import RECALLS, S, Sizes, build_column, fits, live_share, recalled_share
from hours import Event, Hour
from options import likelihoods
from rivals import choose_as

from inf_stream.base.clock import format_clock
from inf_stream.base.events import Frame
from inf_stream.engine.assemble import Turn
from inf_stream.engine.moments import read_span
from inf_stream.models.weights.loaded import LoadedWeights

KINDS = ("at", "appear", "when", "first")
OPTIONS = 4


@dataclass(frozen=True)
class Asked:
    """A question, `age_s` after the event it is about; the first option is right."""

    at_s: int
    age_s: int
    kind: str
    text: str
    options: tuple[str, ...]
    event: Event


def make_questions(hour: Hour, ages_s: Sequence[int], each: int, rng: np.random.Generator) -> list[Asked]:
    """So many of each kind for each age, as far as the hour has events for them, and as many about now; in their order.

    Where no event shows a thing of its own, only "What was shown at mm:ss?" can be asked.
    """
    kinds = KINDS if any(event.key for event in hour.events) else ("at",)
    found: list[Asked] = []
    for kind, age_s in [("now", 0), *((kind, age) for age in ages_s for kind in kinds)]:
        in_time = [e for e in hour.events if e.start_s + max(age_s, e.held_s) <= hour.seconds]
        fit = [e for e in in_time if e.key or kind in _KEYLESS]
        made = (_ask(hour, fit[int(i)], age_s, kind, rng) for n in range(each) for i in rng.permutation(len(fit)))
        found += [asked for asked, _ in zip((asked for asked in made if asked), range(each), strict=False)]
    return sorted(found, key=lambda asked: asked.at_s)


_KEYLESS = ("at", "now")


def _ask(hour: Hour, event: Event, age_s: int, kind: str, rng: np.random.Generator) -> Asked | None:
    """A question about an event, if what has been seen by then allows one."""
    at_s = event.start_s + (age_s or event.held_s - 1)
    seen = [e for e in hour.events if e.start_s + e.held_s <= max(at_s, event.start_s + event.held_s)]
    others = [e for e in seen if e.picture != event.picture]
    clock = format_clock(event.start_s * S)

    def some(number: int, of: Sequence[Event]) -> list[Event]:
        return [of[int(i)] for i in rng.permutation(len(of))[:number]]

    text, options = "", tuple[str, ...]()
    if kind in _KEYLESS:
        captions = list(dict.fromkeys(e.caption for e in [event, *some(2 * OPTIONS, others)]))[:OPTIONS]
        text = "What do you see?" if kind == "now" else f"What was shown at {clock}?"
        options = tuple(captions if kind == "now" else (f"{clock} {caption}" for caption in captions))
    elif kind == "appear":
        text, options = f"Did {event.key} appear?", ("Yes.", "No.")
        if rng.random() < 0.5:
            text, options = f"Did {hour.never[int(rng.integers(len(hour.never)))]} appear?", ("No.", "Yes.")
    elif kind == "when":
        clocks = [format_clock(e.start_s * S) for e in [event, *some(OPTIONS - 1, others)]]
        text, options = f"When did {event.key} appear?", tuple(f"{clock}." for clock in clocks)
    elif kind == "first" and (rivals := [e for e in others if e.key]):
        (other,) = some(1, rivals)
        first, second = sorted((event, other), key=lambda e: e.start_s)
        pair = [str(event.key), str(other.key)]
        if rng.random() < 0.5:
            pair.reverse()
        text = f"Which came first, {pair[0]} or {pair[1]}?"
        options = tuple(f"{str(e.key)[:1].upper()}{str(e.key)[1:]}." for e in (first, second))
    whole = {"at": OPTIONS, "now": OPTIONS, "when": OPTIONS}.get(kind, 2)
    return Asked(at_s, age_s, kind, text, options, event) if len(options) == whole else None


class Watcher:
    """One engine on one hour, in one column (see `columns.py`).

    Args:
        weights: of the model.
        column: policy and way to recall.
        sizes: what it may keep.
    """

    def __init__(self, weights: LoadedWeights, column: str, sizes: Sizes):
        self.engine, self._recall = build_column(weights, column, sizes)
        self._reads_times = self._recall in (RECALLS["recall"], RECALLS["attended"])
        self._spans: dict[int, tuple[int, int]] = {}

    @property
    def fits(self) -> bool:
        """Whether a policy that keeps everything stays inside the context the model was trained on; others do."""
        return fits(self.engine, 0)

    def watch(self, hour: Hour, at_s: int) -> None:
        """Take in the frame of this second."""
        seen = self.engine.cache.seen_tokens
        self.engine.ingest_frames([Frame(hour.pixels(at_s), at_s * S, at_s // hour.every_s)])
        self._spans[at_s] = seen, self.engine.cache.seen_tokens

    @torch.inference_mode()
    def judge(self, asked: Asked, *, timed: bool) -> dict[str, Any]:
        """Which option it finds likeliest, by the mean log likelihood of its tokens; leaves no trace.

        With the share of the event's first frame that is live and that is recalled, and, if `timed`, thread time to the
        first token against that of the same question without recall.
        """
        likely, took_s, recalled = self._likelihoods(asked, with_recall=True)
        first, end = self._spans[asked.event.start_s]
        found = {
            "kind": asked.kind, "age": asked.age_s, "right": likely[0] == max(likely), "chance": 1 / len(likely),
            "kept": round(live_share(self.engine.cache, first, end), 3), "recalled": recalled,
        }  # fmt: skip
        if timed and recalled is not None:
            found["cost"] = round(took_s / self._likelihoods(asked, with_recall=False)[1], 3)
        return found

    @torch.inference_mode()
    def keep(self, asked: Asked) -> None:
        """Let the question and its right answer be a turn of the conversation."""
        engine, cache = self.engine, self.engine.cache
        try:
            self._open_recall(asked)
            chunk = engine._assembler.question(asked.text, asked.at_s * S)
            engine._reader.read(chunk)
            cache.end_choice(learn=True)
            engine._assembler.accept(chunk, Turn.ANSWER)
            answer = engine._assembler._chunk([engine._assembler._text(asked.options[0])])
            engine._reader.read(answer)
            engine._assembler.accept(answer, Turn.ANSWER)
        finally:
            cache.close_recall()
        engine._assembler.turn = Turn.ANSWERED

    def _open_recall(self, asked: Asked) -> None:
        span = read_span(asked.text, asked.at_s * S) if self._reads_times else None
        self.engine.cache.open_recall(span)
        choose_as(self._recall, self.engine.cache, span)

    def _likelihoods(self, asked: Asked, *, with_recall: bool) -> tuple[list[float], float, float | None]:
        engine, cache, model = self.engine, self.engine.cache, self.engine.model
        began_s = time.thread_time()
        before = engine._assembler.place()
        cache.set_mark()
        recalled: float | None = None
        try:
            if with_recall:
                self._open_recall(asked)
            chunk = engine._assembler.question(asked.text, asked.at_s * S)
            hidden = engine._reader.read(chunk)
            cache.end_choice(learn=False)
            engine._assembler.accept(chunk, engine._assembler.turn)
            first = model.logits(hidden[-1:])
            took_s = time.thread_time() - began_s
            if with_recall:
                recalled = recalled_share(cache, *self._spans[asked.event.start_s])
            found = likelihoods(engine, first, asked.options)
        finally:
            cache.close_recall()
            cache.return_to_mark()
            engine._assembler.return_to(before)
        return found, took_s, None if recalled is None else round(recalled, 3)
