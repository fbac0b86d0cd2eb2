"""What a session needs of an engine. Every call is one bounded step and blocks until it is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from inf_stream.base.events import Evidence, FinishReason, Frame, Question


@dataclass(frozen=True, slots=True)
class AnswerStep:
    """Result of one decoding step: new text (may be empty) and, on the last step, why it ended."""

    text: str
    finished: FinishReason | None = None


@runtime_checkable
class SteppedEngine(Protocol):
    """A synchronous engine, called from one thread, one call at a time.

    At most one answer is open: `begin_answer`, then `step_answer` until it reports `finished`, then
    `end_answer`. To cancel, call `end_answer` at any point after `begin_answer`; the cache stays consistent,
    keeping what was said so far. Between `begin_answer` and `end_answer` no ingest call is allowed.
    """

    @property
    def frames_per_step(self) -> int:
        """Most frames one `ingest_frames` call takes."""
        ...

    @property
    def characters_per_step(self) -> int:
        """Most characters of streamed text one `ingest_text` call takes."""
        ...

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        """Encode frames and write them to the cache, in order."""
        ...

    def ingest_text(self, text: str, at_ns: int) -> None:
        """Read a piece of streamed text into the cache."""
        ...

    def begin_answer(self, question: Question) -> str | None:
        """Read the question's prompt into the cache; returns what its asker should be warned of, if anything."""
        ...

    def step_answer(self) -> AnswerStep:
        """Decode one token."""
        ...

    def end_answer(self) -> int:
        """Close the answer, finished or not; returns how many tokens it had."""
        ...

    def stats(self) -> dict[str, float | int | str]:
        """Counts and sizes now (tokens seen and kept, cache bytes, ...)."""
        ...

    def evidence(self) -> tuple[Evidence, ...]:
        """The frames that weighed most on the latest answer, the heaviest first."""
        ...


@runtime_checkable
class CopyInParts(Protocol):
    """A copy of an engine's state, made part by part (`inf_stream.base.state.StateCopy`)."""

    is_whole: bool
    parts_s: list[float]

    def go_on(self) -> None:
        """Copy about one part more."""
        ...
