"""The session as a state machine: events and step results in, actions out. No clock, socket, thread or GPU.

Two small machines run side by side. What may come in:

    OPEN --StreamEnded--> DRAINING --all worked off--> CLOSED
      \\------- stop ------> STOPPING --answer ended--/

and what the engine does, which is named by the step in flight (None, IngestFrames, IngestText, BeginAnswer,
StepAnswer, EndAnswer, CopyState). Their transitions are the tables `_ON_EVENT` and `_ON_RESULT` at the end of this
module; a pair that is not in its table is an error of the caller.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from inf_stream.base.errors import InfStreamError, SessionError
from inf_stream.base.events import (
    AnswerCancelled,
    AnswerStarted,
    FinishReason,
    Frame,
    FrameArrived,
    FrameDropped,
    FramesIngested,
    InputEvent,
    OutputEvent,
    QuestionAsked,
    SessionClosed,
    SourceNotice,
    StreamEnded,
    TextArrived,
    TextIngested,
    Warned,
)
from inf_stream.engine.protocol import CopyInParts
from inf_stream.session.answer import OpenAnswer, unanswered
from inf_stream.session.backlog import Backlog, WaitingQuestion
from inf_stream.session.limits import SessionLimits, StepSizes
from inf_stream.session.steps import (
    Action,
    AnswerEnded,
    BeginAnswer,
    Close,
    CopyState,
    Emit,
    EndAnswer,
    HandState,
    IngestFrames,
    IngestText,
    Intake,
    PartCopied,
    PauseSource,
    ResumeSource,
    RunStep,
    Step,
    StepAnswer,
    StepDone,
    StepFailed,
    StepResult,
    TokenDecoded,
)

FAILED = "failed"
"""`FrameDropped.rule` of frames that the engine refused."""
STOPPED = "stopped"
"""`FrameDropped.rule` of frames that still waited when the session was stopped."""


class SessionMachine:
    """One stream and its questions, decided step by step.

    A question goes before queued frames and text, so it waits for no more than the step in flight and earlier
    answers; asked `in_order`, it waits for all that came before it, and what came after waits for it. An answer runs
    to its end before frames go on; they queue meanwhile under the rule. Frames are left out whole and keep their real
    times: the time text before the next frame shows the model how long it saw nothing.

    Nothing is lost silently: each frame is ingested or in one `FrameDropped`, each question gets one
    `AnswerFinished`, and `SessionClosed` comes once, last. The time to a first token counts from the question's
    arrival, or, if it was asked `in_order`, from the moment its turn comes.

    `now_ns` is any clock that does not run backwards; only differences count. A method that raises `SessionError`
    has changed nothing.
    """

    def __init__(self, sizes: StepSizes, limits: SessionLimits):
        self._limits = limits
        self._backlog = Backlog(sizes, limits)
        self._intake = Intake.OPEN
        self._in_flight: Step | None = None
        self._answer: OpenAnswer | None = None
        self._copying: CopyState | None = None
        self._paused = False
        self._stream_ns = 0
        self._now_ns = 0
        self._frames_received = 0
        self._frames_ingested = 0
        self._dropped: Counter[str] = Counter()
        self._actions: list[Action] = []

    # ---- asked by drivers --------------------------------------------------------------------------

    @property
    def intake(self) -> Intake:
        """What is still taken in."""
        return self._intake

    @property
    def dropped_frames(self) -> Mapping[str, int]:
        """Frames left out so far, by rule."""
        return dict(self._dropped)

    def takes(self, event: InputEvent) -> bool:
        """Whether such an event may still come."""
        return (self._intake, type(event)) in _ON_EVENT

    def has_room(self, event: InputEvent) -> bool:
        """Whether the event would be taken now; if not, a `PauseSource` was handed out and a `ResumeSource` will be.

        Text longer than a step's characters may never find room: cut it first (`queue.cut_text`).
        """
        return self._backlog.has_room(event)

    # ---- told by drivers ---------------------------------------------------------------------------

    def receive(self, event: InputEvent, now_ns: int) -> list[Action]:
        """Take in one event.

        Raises:
            SessionError: the session takes no such event any more; a frame came to a full queue under WAIT, or text
                to a full one; a question's id is in use.
        """
        handle = _ON_EVENT.get((self._intake, type(event)))
        if handle is None:
            raise SessionError(f"{type(event).__name__} came to a session that is {self._intake.value}")
        self._now_ns = now_ns
        handle(self, event, now_ns)
        return self._advance()

    def step_done(self, result: StepResult, now_ns: int) -> list[Action]:
        """Take in the result of the step in flight.

        Raises:
            SessionError: no step is in flight, or it cannot have such a result.
        """
        step = self._in_flight
        handle = _ON_RESULT.get((type(step), type(result)))
        if handle is None:
            flying = "no step" if step is None else type(step).__name__
            raise SessionError(f"{type(result).__name__} was reported with {flying} in flight")
        self._in_flight, self._now_ns = None, now_ns
        handle(self, step, result, now_ns)
        return self._advance()

    def stop(self) -> list[Action]:
        """End soon: work off nothing that waits, end the open answer, close. May be called at any time."""
        if self._intake in (Intake.OPEN, Intake.DRAINING):
            self._intake = Intake.STOPPING
            self._discard_backlog(FinishReason.CANCELLED)
            if self._answer is not None:
                self._answer.cancel()
        return self._advance()

    def abort(self) -> list[Action]:
        """End now, running no further step, since the engine broke. May be called at any time."""
        if self._intake is not Intake.CLOSED:
            self._intake = Intake.STOPPING
            step, self._in_flight = self._in_flight, None
            match step:
                case IngestFrames(frames):
                    self._drop(frames, FAILED)
                case IngestText(text):
                    self._warn(f"{len(text)} characters of text were lost: the engine broke")
            if self._answer is not None:
                self._emit(self._answer.broken())
                self._answer = None
            self._discard_backlog(FinishReason.FAILED)
        return self._advance()

    def copy_state(self) -> list[Action]:
        """Copy the engine's state as soon as no answer is open, before all that waits, and hand it out.

        What was emitted before that `HandState` is in the copy, and nothing else. A session that takes nothing in any
        more hands out a `SessionError`.
        """
        self._copying = self._copying or CopyState()
        return self._advance()

    # ---- events ------------------------------------------------------------------------------------

    def _frame_arrived(self, event: FrameArrived, _now_ns: int) -> None:
        left_out = self._backlog.add_frame(event.frame)
        self._stream_reached(event.frame.at_ns)
        self._frames_received += 1
        if left_out is not None:
            self._drop((left_out,), self._limits.rule.value)

    def _text_arrived(self, event: TextArrived, _now_ns: int) -> None:
        self._backlog.add_text(event.text, event.at_ns)
        self._stream_reached(event.at_ns)

    def _question_asked(self, event: QuestionAsked, now_ns: int) -> None:
        question = event.question
        if self._backlog.holds_question(question.id) or self._is_open(question.id):
            raise SessionError(f"question id '{question.id}' is in use; give each question an id of its own")
        self._stream_reached(question.at_ns)
        if self._backlog.is_full_of_questions:
            self._warn(
                f"question '{question.id}' is refused: {self._limits.queue_questions} wait, the most allowed; "
                "ask again later or raise source.queue_questions"
            )
            self._emit(unanswered(question, FinishReason.REFUSED))
        else:
            self._backlog.add_question(question, in_order=event.in_order, asked_ns=now_ns)

    def _answer_cancelled(self, event: AnswerCancelled, _now_ns: int) -> None:
        if self._is_open(event.question_id):
            self._opened().cancel()
        elif self._backlog.holds_question(event.question_id):
            question = self._backlog.remove_question(event.question_id)
            self._emit(unanswered(question, FinishReason.CANCELLED))
        else:
            self._warn(f"no answer to cancel: question '{event.question_id}' is unknown or already answered")

    def _source_noticed(self, event: SourceNotice, _now_ns: int) -> None:
        self._stream_reached(event.at_ns)
        self._warn(event.message)

    def _stream_ended(self, _event: StreamEnded, _now_ns: int) -> None:
        self._intake = Intake.DRAINING

    # ---- results -----------------------------------------------------------------------------------

    def _frames_done(self, step: IngestFrames, _result: StepDone, _now_ns: int) -> None:
        self._frames_ingested += len(step.frames)
        self._emit(FramesIngested(len(step.frames), step.frames[-1].at_ns))

    def _frames_failed(self, step: IngestFrames, result: StepFailed, _now_ns: int) -> None:
        self._warn(f"{len(step.frames)} frames left out: {result.error}")
        self._drop(step.frames, FAILED)

    def _text_done(self, step: IngestText, _result: StepDone, _now_ns: int) -> None:
        self._emit(TextIngested(len(step.text), step.at_ns))

    def _text_failed(self, step: IngestText, result: StepFailed, _now_ns: int) -> None:
        self._warn(f"{len(step.text)} characters of text left out: {result.error}")

    def _begun(self, step: BeginAnswer, result: StepDone, _now_ns: int) -> None:
        answer = self._opened()
        answer.warning = result.warning
        if not answer.is_over:
            self._emit(AnswerStarted(step.question, answer.warning))

    def _decoded(self, _step: StepAnswer, result: TokenDecoded, now_ns: int) -> None:
        delta = self._opened().decoded(result.answer, now_ns)
        if delta is not None:
            self._emit(delta)

    def _decode_failed(self, _step: StepAnswer, result: StepFailed, _now_ns: int) -> None:
        self._answer_failed(result)
        self._opened().fail()

    def _ended(self, _step: EndAnswer, result: AnswerEnded, _now_ns: int) -> None:
        self._emit(self._opened().finished(result.tokens, result.stats, result.evidence))
        self._answer = None

    def _not_begun(self, step: BeginAnswer, result: StepFailed, now_ns: int) -> None:
        self._opened().fail()
        self._not_ended(step, result, now_ns)

    def _not_ended(self, _step: BeginAnswer | EndAnswer, result: StepFailed, _now_ns: int) -> None:
        self._answer_failed(result)
        self._emit(self._opened().broken())
        self._answer = None

    def _copied(self, _step: CopyState, result: PartCopied | StepFailed, _now_ns: int) -> None:
        if isinstance(result, StepFailed):
            self._hand_out(result.error)
        elif result.copy.is_whole:
            self._hand_out(result.copy)
        else:
            self._copying = CopyState(result.copy)

    # ---- what next ---------------------------------------------------------------------------------

    def _advance(self) -> list[Action]:
        """Start the next step if the engine is free, pause or resume the source, close when all is done."""
        if self._in_flight is None:
            if self._copying is not None and self._intake is not Intake.OPEN:
                self._hand_out(SessionError(f"the session is {self._intake.value}"))
            self._in_flight = self._next_step()
            if self._in_flight is not None:
                self._actions.append(RunStep(self._in_flight))
        if self._paused != self._backlog.is_full:
            self._paused = self._backlog.is_full
            self._actions.append(PauseSource() if self._paused else ResumeSource())
        if self._in_flight is None and self._intake in (Intake.DRAINING, Intake.STOPPING):
            self._intake = Intake.CLOSED
            self._emit(SessionClosed(self._stream_ns))
            self._actions.append(Close())
        actions, self._actions = self._actions, []
        return actions

    def _next_step(self) -> Step | None:
        if self._answer is not None:
            return EndAnswer() if self._answer.is_over else StepAnswer()
        if self._copying is not None:
            return self._copying
        step = self._backlog.take(flush=self._intake is not Intake.OPEN)
        if not isinstance(step, WaitingQuestion):
            return step
        self._answer = OpenAnswer(step.question, self._now_ns if step.in_order else step.asked_ns)
        return BeginAnswer(step.question)

    # ---- small words -------------------------------------------------------------------------------

    def _opened(self) -> OpenAnswer:
        assert self._answer is not None, "an answer is open"
        return self._answer

    def _is_open(self, question_id: str) -> bool:
        return self._answer is not None and self._answer.question.id == question_id

    def _stream_reached(self, at_ns: int) -> None:
        self._stream_ns = max(self._stream_ns, at_ns)

    def _emit(self, event: OutputEvent) -> None:
        self._actions.append(Emit(event))

    def _hand_out(self, copy: CopyInParts | InfStreamError) -> None:
        self._copying = None
        self._actions.append(HandState(copy))

    def _warn(self, message: str) -> None:
        self._emit(Warned(message, self._stream_ns))

    def _answer_failed(self, result: StepFailed) -> None:
        self._warn(f"answer to question '{self._opened().question.id}' failed: {result.error}")

    def _drop(self, frames: tuple[Frame, ...], rule: str) -> None:
        for frame in frames:
            self._dropped[rule] += 1
            self._emit(FrameDropped(frame.number, frame.at_ns, rule, self._dropped.total()))

    def _discard_backlog(self, reason: FinishReason) -> None:
        discarded = self._backlog.discard()
        self._drop(discarded.frames, STOPPED)
        if discarded.text_characters:
            self._warn(f"{discarded.text_characters} characters of text were not read: the session was stopped")
        for question in discarded.questions:
            self._emit(unanswered(question, reason))

    # ---- invariants --------------------------------------------------------------------------------

    def check(self) -> None:
        """Assert the invariants; cheap enough for every step of a test."""
        self._backlog.check()
        answering = isinstance(self._in_flight, BeginAnswer | StepAnswer | EndAnswer)
        assert answering == (self._answer is not None), "an answer is open just while its steps run"
        flying = len(self._in_flight.frames) if isinstance(self._in_flight, IngestFrames) else 0
        known = self._frames_ingested + self._dropped.total() + self._backlog.frames + flying
        assert known == self._frames_received, "each frame is ingested, dropped, waiting or in flight"
        assert self._paused == self._backlog.is_full, "the source is paused just while a queue is full"
        assert not self._actions, "all actions were handed out"
        is_idle = self._in_flight is None
        if self._intake in (Intake.STOPPING, Intake.CLOSED):
            assert self._backlog.is_empty, "a stopped session holds nothing back"
        if self._intake is Intake.OPEN and is_idle:
            assert not self._backlog.is_ready(flush=False), "no work waits while the engine is free"
        if self._intake is not Intake.OPEN:
            assert is_idle == (self._intake is Intake.CLOSED), "a session that has ended works, or is closed"


_OnEvent: TypeAlias = Callable[[SessionMachine, Any, int], None]
_OnResult: TypeAlias = Callable[[SessionMachine, Any, Any, int], None]
_M = SessionMachine

_ON_EVENT: Mapping[tuple[Intake, type], _OnEvent] = {
    (Intake.OPEN, FrameArrived): _M._frame_arrived,
    (Intake.OPEN, TextArrived): _M._text_arrived,
    (Intake.OPEN, QuestionAsked): _M._question_asked,
    (Intake.OPEN, AnswerCancelled): _M._answer_cancelled,
    (Intake.OPEN, SourceNotice): _M._source_noticed,
    (Intake.OPEN, StreamEnded): _M._stream_ended,
    (Intake.DRAINING, AnswerCancelled): _M._answer_cancelled,
    (Intake.DRAINING, SourceNotice): _M._source_noticed,
    (Intake.STOPPING, AnswerCancelled): _M._answer_cancelled,
    (Intake.STOPPING, SourceNotice): _M._source_noticed,
}
_ON_RESULT: Mapping[tuple[type, type], _OnResult] = {
    (IngestFrames, StepDone): _M._frames_done,
    (IngestFrames, StepFailed): _M._frames_failed,
    (IngestText, StepDone): _M._text_done,
    (IngestText, StepFailed): _M._text_failed,
    (BeginAnswer, StepDone): _M._begun,
    (BeginAnswer, StepFailed): _M._not_begun,
    (StepAnswer, TokenDecoded): _M._decoded,
    (StepAnswer, StepFailed): _M._decode_failed,
    (EndAnswer, AnswerEnded): _M._ended,
    (EndAnswer, StepFailed): _M._not_ended,
    (CopyState, PartCopied): _M._copied,
    (CopyState, StepFailed): _M._copied,
}
