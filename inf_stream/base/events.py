"""What flows: frames, text, questions and orders go in; answers, warnings and counts come out.

All times are stream times in nanoseconds since the stream began (`inf_stream.base.clock`).
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

Pixels: TypeAlias = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One sampled picture, RGB, 8 bits a channel.

    `number` counts the frames a source has sampled, from 0, dropped ones included, so that gaps show.
    """

    pixels: Pixels
    at_ns: int
    number: int


# ---- in ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FrameArrived:
    """A source delivered a frame."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class TextArrived:
    """A piece of streamed text (not a question) to be read and remembered."""

    text: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Question:
    """Something to answer. `max_tokens` of None takes the session's setting.

    An `aside` is answered out of what is remembered, and is itself not remembered: neither it nor its answer leaves a
    trace in the cache. What it `expect`s is how an answer begins, small or capital, that says the question names
    something that is there now; later questions can then name it, even if this one is an aside.
    """

    id: str
    text: str
    at_ns: int
    max_tokens: int | None = None
    aside: bool = False
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class QuestionAsked:
    """A question arrived. `in_order` waits for what is queued before it; otherwise it goes first."""

    question: Question
    in_order: bool = False


@dataclass(frozen=True, slots=True)
class AnswerCancelled:
    """The asker wants no more of this answer; whether it is waiting or running."""

    question_id: str


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """No more events will come; what is queued is still worked off."""


@dataclass(frozen=True, slots=True)
class SourceNotice:
    """Something about the source a user should know (a reconnect, a damaged stretch)."""

    message: str
    at_ns: int


InputEvent: TypeAlias = FrameArrived | TextArrived | QuestionAsked | AnswerCancelled | StreamEnded | SourceNotice


# ---- out ---------------------------------------------------------------------------------------


class FinishReason(str, Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AnswerStarted:
    """The first token of an answer is about to be computed; `warning` as in `AnswerFinished`."""

    question: Question
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """The next piece of an answer's text."""

    question_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A frame that an answer rests on, and its share of the attention that all frames received."""

    at_ns: int
    share: float


@dataclass(frozen=True, slots=True)
class AnswerFinished:
    """An answer is complete (or cut short, see `reason`).

    `ttft_s` is None for an answer that was cancelled before its first token. `evidence` has the frames that weighed
    most, the heaviest first; none for a stream of text. `tokens_per_s` is the speed after the first token; None if
    there was no second step. `warning` is what the asker should know of it: the question is about a time that the
    stream does not have.
    """

    question: Question
    text: str
    reason: FinishReason
    tokens: int
    ttft_s: float | None
    stats: dict[str, float | int | str] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    tokens_per_s: float | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class FramesIngested:
    """Frames up to stream time `at_ns` are in the cache."""

    count: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class TextIngested:
    """Streamed text up to stream time `at_ns` is in the cache."""

    characters: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class FrameDropped:
    """A frame was left out by a queue rule; `dropped` counts all of the session so far."""

    number: int
    at_ns: int
    rule: str
    dropped: int


@dataclass(frozen=True, slots=True)
class Warned:
    """Something went wrong that did not stop the session."""

    message: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The last event of every session."""

    at_ns: int


OutputEvent: TypeAlias = (
    AnswerStarted | AnswerDelta | AnswerFinished | FramesIngested | TextIngested | FrameDropped | Warned | SessionClosed
)
