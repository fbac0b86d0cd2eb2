"""The steps a session gives its engine, each exactly one bounded call, and what comes back."""

from dataclasses import dataclass, field
from typing import TypeAlias

from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import Frame, Question
from inf_stream.engine.protocol import AnswerStep, SteppedEngine


@dataclass(frozen=True, slots=True)
class IngestFrames:
    """`ingest_frames(frames)`: frames encoded together. The grouping matters for an exact repetition."""

    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class IngestText:
    """`ingest_text(text, at_ns)`."""

    text: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class BeginAnswer:
    """`begin_answer(question)`."""

    question: Question


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """`step_answer()`: one token."""


@dataclass(frozen=True, slots=True)
class EndAnswer:
    """`end_answer()`: after the last token, or earlier when the answer was cancelled or failed."""


Step: TypeAlias = IngestFrames | IngestText | BeginAnswer | StepAnswer | EndAnswer


@dataclass(frozen=True, slots=True)
class StepDone:
    """Frames, text or a question's prompt are in the cache."""


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """An answer is closed: how many tokens it had, and the engine's counts and sizes now."""

    tokens: int
    stats: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The engine refused the step; the session goes on."""

    error: InfStreamError


@dataclass(frozen=True, slots=True)
class StepCrashed:
    """Something nobody expected went wrong in the step; the session must end."""

    error: BaseException


StepResult: TypeAlias = StepDone | AnswerStep | AnswerEnded | StepFailed
"""What `run_step` gives: an `AnswerStep` for `StepAnswer`, an `AnswerEnded` for `EndAnswer`, else a `StepDone`."""


def run_step(engine: SteppedEngine, step: Step) -> StepResult:
    """Run one step on the engine; blocks until it is done.

    An `InfStreamError` of the engine becomes a `StepFailed`; any other exception passes through.
    """
    try:
        return _call(engine, step)
    except InfStreamError as error:
        return StepFailed(error)


def _call(engine: SteppedEngine, step: Step) -> StepResult:
    match step:
        case IngestFrames(frames):
            engine.ingest_frames(frames)
        case IngestText(text, at_ns):
            engine.ingest_text(text, at_ns)
        case BeginAnswer(question):
            engine.begin_answer(question)
        case StepAnswer():
            return engine.step_answer()
        case EndAnswer():
            return AnswerEnded(engine.end_answer(), engine.stats())
    return StepDone()
