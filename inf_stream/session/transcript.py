"""What a session says about the steps its engine made. Live sessions and replays say it through this one class."""

from collections import Counter
from dataclasses import dataclass, field

from inf_stream.base.clock import seconds
from inf_stream.base.errors import InfStreamError, SessionError
from inf_stream.base.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    FinishReason,
    Frame,
    FrameDropped,
    FramesIngested,
    OutputEvent,
    Question,
    TextIngested,
    Warned,
)
from inf_stream.engine.protocol import AnswerStep
from inf_stream.session.steps import (
    AnswerEnded,
    BeginAnswer,
    EndAnswer,
    IngestFrames,
    IngestText,
    Step,
    StepAnswer,
    StepFailed,
    StepResult,
)

FAILED = "failed"
"""Rule named in `FrameDropped` when the engine refused a frame."""


@dataclass
class _OpenAnswer:
    question: Question
    asked_ns: int
    pieces: list[str] = field(default_factory=list)
    tokens: int = 0
    first_ns: int | None = None
    finished: FinishReason | None = None

    def close(self, ended: AnswerEnded) -> AnswerFinished:
        ttft_s = None if self.first_ns is None else seconds(self.first_ns - self.asked_ns)
        reason = self.finished or FinishReason.CANCELLED
        return AnswerFinished(self.question, "".join(self.pieces), reason, ended.tokens, ttft_s, ended.stats)


def unanswered(question: Question) -> AnswerFinished:
    """The end of a question that never reached the engine."""
    return AnswerFinished(question, "", FinishReason.CANCELLED, 0, None)


class Transcript:
    """Turns finished steps into output events.

    Attributes:
        drops: frames left out so far, by rule.
    """

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self._open: _OpenAnswer | None = None

    @property
    def open_question(self) -> Question | None:
        """The question being answered."""
        return None if self._open is None else self._open.question

    def begin(self, question: Question, asked_ns: int) -> None:
        """The next step begins this question's answer; its time to the first token counts from `asked_ns`."""
        assert self._open is None, "one answer at a time"
        self._open = _OpenAnswer(question, asked_ns)

    def dropped(self, frame: Frame, rule: str) -> FrameDropped:
        """Count a frame that was left out."""
        self.drops[rule] += 1
        return FrameDropped(frame.number, frame.at_ns, rule, self.drops.total())

    def abandon(self) -> list[OutputEvent]:
        """The open answer, if there is one, will not be heard of again."""
        if self._open is None:
            return []
        return [self._finish(AnswerEnded(self._open.tokens))]

    def record(self, step: Step, result: StepResult, now_ns: int) -> list[OutputEvent]:
        """The events of one finished step.

        Raises:
            SessionError: an answer step although no answer was begun.
        """
        if isinstance(result, StepFailed):
            return self._failed(step, result.error)
        match step, result:
            case IngestFrames(frames), _:
                return [FramesIngested(len(frames), frames[-1].at_ns)]
            case IngestText(text, at_ns), _:
                return [TextIngested(len(text), at_ns)]
            case BeginAnswer(question), _:
                return [AnswerStarted(question)]
            case StepAnswer(), AnswerStep():
                return self._decoded(result, now_ns)
            case EndAnswer(), AnswerEnded():
                return [self._finish(result)]
        raise SessionError(f"result {result} does not belong to step {step}")

    def _decoded(self, result: AnswerStep, now_ns: int) -> list[OutputEvent]:
        answer = self._require_open()
        if answer.first_ns is None:
            answer.first_ns = now_ns
        answer.finished = result.finished
        answer.tokens += result.finished is not FinishReason.STOP
        if not result.text:
            return []
        answer.pieces.append(result.text)
        return [AnswerDelta(answer.question.id, result.text)]

    def _failed(self, step: Step, error: InfStreamError) -> list[OutputEvent]:
        match step:
            case IngestFrames(frames):
                which = f"frame {frames[0].number}" + (f" to {frames[-1].number}" if len(frames) > 1 else "")
                warning = Warned(f"{which} left out: {error}", frames[-1].at_ns)
                return [warning, *(self.dropped(frame, FAILED) for frame in frames)]
            case IngestText(text, at_ns):
                return [Warned(f"{len(text)} characters of text left out: {error}", at_ns)]
        answer = self._require_open()
        warning = Warned(f"answer to question '{answer.question.id}' failed: {error}", answer.question.at_ns)
        return [warning] if isinstance(step, StepAnswer) else [warning, *self.abandon()]

    def _finish(self, ended: AnswerEnded) -> AnswerFinished:
        finished = self._require_open().close(ended)
        self._open = None
        return finished

    def _require_open(self) -> _OpenAnswer:
        if self._open is None:
            raise SessionError("an answer step without a question; a recording must hold its BeginAnswer first")
        return self._open
