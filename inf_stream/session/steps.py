"""What a session asks of its driver, and what the driver reports back."""

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import Evidence, Frame, OutputEvent, Question
from inf_stream.engine.protocol import AnswerStep, CopyInParts, SteppedEngine


class Intake(Enum):
    """What a session still takes in."""

    OPEN = "open"
    DRAINING = "working off the rest of an ended stream"
    STOPPING = "stopping"
    CLOSED = "closed"


# ---- steps: each is exactly one call of the engine, so each is bounded -------------------------


@dataclass(frozen=True, slots=True)
class IngestFrames:
    """Encode these frames into the cache; at most `frames_per_step` of them."""

    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class IngestText:
    """Read this piece of streamed text; at most `characters_per_step` long."""

    text: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class BeginAnswer:
    """Read the question's prompt."""

    question: Question


@dataclass(frozen=True, slots=True)
class StepAnswer:
    """Decode one token of the open answer."""


@dataclass(frozen=True, slots=True)
class EndAnswer:
    """Close the open answer, finished or not."""


@dataclass(frozen=True, slots=True)
class CopyState:
    """Copy the engine's state, or the next part of it into the `copy` that was begun."""

    copy: CopyInParts | None = None


Step: TypeAlias = IngestFrames | IngestText | BeginAnswer | StepAnswer | EndAnswer | CopyState

# ---- results ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepDone:
    """Frames or text are in the cache, or a question's prompt is; `warning` is what its asker should know."""

    warning: str | None = None


@dataclass(frozen=True, slots=True)
class TokenDecoded:
    """A `StepAnswer` is done."""

    answer: AnswerStep


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """An `EndAnswer` is done; `stats` and `evidence` are the engine's at this moment."""

    tokens: int
    stats: dict[str, float | int | str] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class PartCopied:
    """A `CopyState` is done; the copy is whole, or wants another."""

    copy: CopyInParts


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The engine refused the step, and can go on with another."""

    error: InfStreamError


StepResult: TypeAlias = StepDone | TokenDecoded | AnswerEnded | PartCopied | StepFailed


def execute(engine: SteppedEngine, step: Step) -> StepResult:
    """Make the one call of the engine that `step` stands for; a `CopyState` is for a `SavedEngine` alone.

    An `InfStreamError` becomes a `StepFailed`; whatever else the engine raises passes through.
    """
    try:
        match step:
            case IngestFrames(frames):
                engine.ingest_frames(frames)
            case IngestText(text, at_ns):
                engine.ingest_text(text, at_ns)
            case BeginAnswer(question):
                return StepDone(engine.begin_answer(question))
            case StepAnswer():
                return TokenDecoded(engine.step_answer())
            case EndAnswer():
                return AnswerEnded(engine.end_answer(), engine.stats(), engine.evidence())
            case CopyState(copy):
                from inf_stream.engine.saved import begin_copy  # needs torch, which reading a recording does not

                copy = copy or begin_copy(engine)
                copy.go_on()
                return PartCopied(copy)
    except InfStreamError as error:
        return StepFailed(error)
    return StepDone()


# ---- actions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunStep:
    """Execute this step and report its result by `step_done`; it is the only one in flight."""

    step: Step


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand this event to whoever listens."""

    event: OutputEvent


@dataclass(frozen=True, slots=True)
class HandState:
    """Hand this copy of the engine's state to whoever asked for it, or say why there is none."""

    copy: CopyInParts | InfStreamError


@dataclass(frozen=True, slots=True)
class PauseSource:
    """A queue is full and nothing may be lost: read no more from sources that can wait."""


@dataclass(frozen=True, slots=True)
class ResumeSource:
    """There is room again."""


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over; the last action."""


Action: TypeAlias = RunStep | Emit | HandState | PauseSource | ResumeSource | Close
