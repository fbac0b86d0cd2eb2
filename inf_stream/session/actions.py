"""What the session machine tells its driver to do."""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from inf_stream.base.events import OutputEvent
from inf_stream.session.steps import Step


class Inlet(Enum):
    """A kind of input that can be held back on its own."""

    FRAMES = "frames"
    TEXT = "text"
    QUESTIONS = "questions"


@dataclass(frozen=True, slots=True)
class RunStep:
    """Run this step on the engine and hand its result to `step_done`."""

    step: Step


@dataclass(frozen=True, slots=True)
class Emit:
    """Tell whoever listens."""

    event: OutputEvent


@dataclass(frozen=True, slots=True)
class PauseSource:
    """Hold back input of this kind: its queue is full."""

    inlet: Inlet


@dataclass(frozen=True, slots=True)
class ResumeSource:
    """There is room for this kind of input again."""

    inlet: Inlet


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over; `error` is what ended it, if it was not the end of the stream or an abort."""

    error: BaseException | None = None


Action: TypeAlias = RunStep | Emit | PauseSource | ResumeSource | Close
