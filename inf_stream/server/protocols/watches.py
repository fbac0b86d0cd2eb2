"""Standing questions: asked again and again as the stream goes on, reported only when there is something to say.

Decides when to ask and what to report, on stream times that are handed in; asks nothing by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inf_stream.base.clock import nanoseconds, seconds
from inf_stream.base.events import AnswerFinished, Evidence, FinishReason
from inf_stream.base.state import State
from inf_stream.server.protocols.messages import (
    MessageError,
    as_count,
    as_list,
    as_number,
    as_object,
    as_text,
    required,
)

MOST_S = 86400.0
_ID_CHARACTERS = 64
_EXPECT_CHARACTERS = 64
_TOKENS = 32


@dataclass(frozen=True)
class Watch:
    """One standing question.

    Attributes:
        id: names it in alerts.
        question: asked as an aside.
        expect: what an answer begins with that is worth an alert, small or capital; empty: each is.
        every_s: least stream time between two looks.
        cooldown_s: least stream time between two alerts.
        max_tokens: of an answer.
    """

    id: str
    question: str
    expect: str = "yes"
    every_s: float = 2.0
    cooldown_s: float = 30.0
    max_tokens: int = 16

    def as_object(self) -> dict[str, Any]:
        """As a client writes it."""
        return {
            "id": self.id,
            "question": self.question,
            "expect": self.expect,
            "every_s": self.every_s,
            "cooldown_s": self.cooldown_s,
            "max_output_tokens": self.max_tokens,
        }


@dataclass(frozen=True)
class WatchLimits:
    """What a server allows of watches."""

    most: int
    least_every_s: float
    text_characters: int


@dataclass(frozen=True, slots=True)
class Alert:
    """What a watch has to say, unasked."""

    watch: Watch
    text: str
    at_ns: int
    tokens: int
    evidence: tuple[Evidence, ...]
    stats: dict[str, float | int | str]

    def metadata(self) -> dict[str, str]:
        """What triggered it and when, as texts."""
        return {"trigger": self.watch.id, "stream_time_s": f"{seconds(self.at_ns):.3f}"}


def parse_watch(value: Any, where: str, limits: WatchLimits) -> Watch:
    """A watch as a client writes it.

    Raises:
        MessageError: a field is missing, unknown, or out of its limits.
    """
    given = as_object(value, where)
    known = {"id", "question", "expect", "every_s", "cooldown_s", "max_output_tokens", "type", "event_id"}
    for key in given:
        if key not in known:
            raise MessageError(f"'{where}.{key}' is unknown; known: {', '.join(sorted(known))}", param=f"{where}.{key}")
    return Watch(
        as_text(required(given, "id", where), f"{where}.id", most=_ID_CHARACTERS),
        as_text(required(given, "question", where), f"{where}.question", most=limits.text_characters),
        as_text(given.get("expect", Watch.expect), f"{where}.expect", most=_EXPECT_CHARACTERS),
        as_number(given.get("every_s", max(Watch.every_s, limits.least_every_s)), f"{where}.every_s",
                  limits.least_every_s, MOST_S),
        as_number(given.get("cooldown_s", Watch.cooldown_s), f"{where}.cooldown_s", 0.0, MOST_S),
        as_count(given.get("max_output_tokens", Watch.max_tokens), f"{where}.max_output_tokens", 1, _TOKENS),
    )  # fmt: skip


def parse_watches(value: Any, where: str, limits: WatchLimits) -> list[Watch]:
    """All watches of a session, as a client writes them.

    Raises:
        MessageError: see `parse_watch`; or there are too many, or two of one id.
    """
    given = as_list(value, where, most=limits.most)
    watches = [parse_watch(one, f"{where}[{index}]", limits) for index, one in enumerate(given)]
    if len({watch.id for watch in watches}) < len(watches):
        raise MessageError("two watches have the same id; give each its own", param=where)
    return watches


class _Standing:
    """A watch and how it stands: `armed` until it has reported what it sees now."""

    def __init__(self, watch: Watch):
        self.watch = watch
        self.asked_ns: int | None = None
        self.asking: str | None = None
        self.alerted_ns: int | None = None
        self.armed = True

    def as_object(self) -> dict[str, Any]:
        """For `Watchman.state`; of a question that is being answered only when it was asked."""
        return {
            "watch": self.watch.as_object(),
            "asked_ns": self.asked_ns,
            "alerted_ns": self.alerted_ns,
            "armed": self.armed,
        }


class Watchman:
    """The watches of one session."""

    def __init__(self, limits: WatchLimits):
        self.limits = limits
        self._standing: dict[str, _Standing] = {}
        self._asked: dict[str, _Standing] = {}

    @property
    def watches(self) -> list[Watch]:
        """Those that are set, oldest first."""
        return [standing.watch for standing in self._standing.values()]

    def set_all(self, watches: Sequence[Watch]) -> None:
        """These, and no others; what stays the same keeps its cool-down.

        Raises:
            MessageError: they are too many.
        """
        self._require_room(len(watches))
        before = self._standing
        self._standing = {}
        for watch in watches:
            same = before.get(watch.id)
            self._standing[watch.id] = same if same is not None and same.watch == watch else _Standing(watch)

    def set(self, watch: Watch) -> None:
        """Add a watch, or replace the one with its id.

        Raises:
            MessageError: they are too many.
        """
        self._require_room(len(self._standing.keys() | {watch.id}))
        self._standing[watch.id] = _Standing(watch)

    def unset(self, watch_id: str) -> None:
        """Take a watch away.

        Raises:
            MessageError: there is no such.
        """
        if self._standing.pop(watch_id, None) is None:
            raise MessageError(f"no watch '{watch_id}' is set", param="id")

    def due(self, at_ns: int) -> list[Watch]:
        """Watches to ask now that a new frame, of stream time `at_ns`, is in the memory; `asked` must follow."""
        return [
            s.watch
            for s in self._standing.values()
            if s.asking is None and _is_over(s.asked_ns, s.watch.every_s, at_ns)
        ]

    def asked(self, watch: Watch, question_id: str, at_ns: int) -> None:
        """A watch was asked under this id, about the frame of stream time `at_ns`."""
        standing = self._standing[watch.id]
        standing.asked_ns, standing.asking = at_ns, question_id
        self._asked[question_id] = standing

    def knows(self, question_id: str) -> bool:
        """Whether a question was asked for a watch and is not answered yet."""
        return question_id in self._asked

    def answered(self, finished: AnswerFinished) -> Alert | None:
        """Take in the answer to a watch's question; returns what is to be reported, if anything is."""
        standing = self._asked.pop(finished.question.id)
        standing.asking = None
        watch, at_ns, text = standing.watch, standing.asked_ns, finished.text.strip()
        assert at_ns is not None, "asked before it was answered"
        if self._standing.get(watch.id) is not standing or finished.reason not in _WHOLE:
            return None
        if not text.casefold().startswith(watch.expect.casefold()) or not text:
            standing.armed = True
            return None
        is_repeated = not standing.armed and watch.expect
        if is_repeated or not _is_over(standing.alerted_ns, watch.cooldown_s, at_ns):
            return None
        standing.armed, standing.alerted_ns = False, at_ns
        return Alert(watch, text, at_ns, finished.tokens, finished.evidence, finished.stats)

    def state(self) -> State:
        """All watches, and how they stand."""
        return State(facts={"standing": [standing.as_object() for standing in self._standing.values()]})

    def restore(self, state: State) -> None:
        """Set the watches of another watchman, as they stood.

        Raises:
            StateError: it is not what `state` gives.
            MessageError: the limits allow no such watches any more.
        """
        saved = state.fact("standing", list)
        self._require_room(len(saved))
        for one in saved:
            stood = State(facts=one)
            standing = _Standing(parse_watch(stood.fact("watch", dict), "watch", self.limits))
            standing.armed = stood.fact("armed", bool)
            if one["asked_ns"] is not None:
                standing.asked_ns = stood.count("asked_ns")
            if one["alerted_ns"] is not None:
                standing.alerted_ns = stood.count("alerted_ns")
            self._standing[standing.watch.id] = standing

    def _require_room(self, wanted: int) -> None:
        if wanted > self.limits.most:
            raise MessageError(f"{wanted} watches; at most {self.limits.most} may be set", param="watches")


_WHOLE = (FinishReason.STOP, FinishReason.LENGTH)


def _is_over(since_ns: int | None, pause_s: float, at_ns: int) -> bool:
    return since_ns is None or at_ns - since_ns >= nanoseconds(pause_s)
