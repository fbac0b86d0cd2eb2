"""Running the steps of an earlier session through an engine again, without threads, to the same answers."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from inf_stream.base.events import (
    AnswerCancelled,
    FrameArrived,
    InputEvent,
    OutputEvent,
    Question,
    QuestionAsked,
    StreamEnded,
    TextArrived,
)
from inf_stream.engine.protocol import SteppedEngine
from inf_stream.session.limits import SessionLimits
from inf_stream.session.machine import SessionMachine
from inf_stream.session.steps import (
    Action,
    BeginAnswer,
    Emit,
    EndAnswer,
    IngestFrames,
    IngestText,
    RunStep,
    Step,
    StepAnswer,
    StepFailed,
    StepResult,
    execute,
)


@dataclass(frozen=True, slots=True)
class GiveAnswer:
    """An answer that took `decoding_steps`, whether it ended by itself, was cancelled, or failed."""

    question: Question
    decoding_steps: int


ExecutedStep: TypeAlias = IngestFrames | IngestText | GiveAnswer
"""What an engine did, in as much detail as another needs to do the same."""


class StepRecorder:
    """An observer for `SessionLoop` that hands each `ExecutedStep` to `record`, an answer once it has ended."""

    def __init__(self, record: Callable[[ExecutedStep], None]):
        self._record = record
        self._question: Question | None = None
        self._decoding_steps = 0

    def __call__(self, step: Step, result: StepResult) -> None:
        """Take in a step as it was executed."""
        match step:
            case IngestFrames() | IngestText():
                self._record(step)
            case BeginAnswer(question):
                self._question, self._decoding_steps = question, 0
                if isinstance(result, StepFailed):
                    self._answered()
            case StepAnswer():
                self._decoding_steps += 1
            case EndAnswer():
                self._answered()

    def _answered(self) -> None:
        assert self._question is not None, "an answer begins before it ends"
        self._record(GiveAnswer(self._question, self._decoding_steps))
        self._question = None


def replay(
    engine: SteppedEngine,
    steps: Iterable[ExecutedStep],
    *,
    clock_ns: Callable[[], int] = time.monotonic_ns,
) -> Iterator[OutputEvent]:
    """Let `engine` do what another did; yields what that session emitted, `SessionClosed` last.

    With an engine in the same state as the recorded one at its start, on the same machine, the answers are the same
    bit for bit, steps that failed included. Drops, refused questions and questions cancelled while they waited are
    not steps, so they do not appear again; a warning carries the stream time reached by the steps alone.
    """
    player = _Player(engine, clock_ns)
    for step in steps:
        yield from player.play(step)
    yield from player.receive(StreamEnded())


_NO_LIMIT = 1 << 62


class _Portions:
    """Step sizes that make each recorded step one step again."""

    characters_per_step = _NO_LIMIT

    def __init__(self) -> None:
        self.frames_per_step = 1


class _Player:
    """Feeds a machine the events that make it take one recorded step after the other."""

    def __init__(self, engine: SteppedEngine, clock_ns: Callable[[], int]):
        self._engine = engine
        self._clock_ns = clock_ns
        self._portions = _Portions()
        limits = SessionLimits(queue_frames=_NO_LIMIT, queue_characters=_NO_LIMIT, full_steps=True)
        self._machine = SessionMachine(self._portions, limits)
        self._answer = GiveAnswer(Question("", "", 0), 0)

    def play(self, step: ExecutedStep) -> Iterator[OutputEvent]:
        match step:
            case IngestFrames(frames):
                self._portions.frames_per_step = len(frames)
                for frame in frames:
                    yield from self.receive(FrameArrived(frame))
            case IngestText(text, at_ns):
                yield from self.receive(TextArrived(text, at_ns))
            case GiveAnswer(question):
                self._answer = step
                yield from self.receive(QuestionAsked(question))

    def receive(self, event: InputEvent) -> Iterator[OutputEvent]:
        yield from self._work_off(self._machine.receive(event, self._clock_ns()))

    def _work_off(self, actions: list[Action]) -> Iterator[OutputEvent]:
        pending = deque(actions)
        steps_left = self._answer.decoding_steps
        while pending:
            match pending.popleft():
                case Emit(event):
                    yield event
                case RunStep(step):
                    result = execute(self._engine, step)
                    if isinstance(step, StepAnswer):
                        steps_left -= 1
                    if isinstance(step, BeginAnswer | StepAnswer) and steps_left == 0:
                        pending.extend(self._cancel())
                    pending.extend(self._machine.step_done(result, self._clock_ns()))
                case _:
                    pass

    def _cancel(self) -> list[Action]:
        """The last recorded step runs: end here, unless the step itself ends the answer."""
        return self._machine.receive(AnswerCancelled(self._answer.question.id), self._clock_ns())
