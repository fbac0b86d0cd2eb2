"""Random events and random step results against the promises of the session machine."""

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.session_engine import ListEngine, ask, frame

from inf_stream.base.errors import BudgetError, SessionError
from inf_stream.base.events import (
    AnswerCancelled,
    AnswerFinished,
    FrameArrived,
    FrameDropped,
    OutputEvent,
    QuestionAsked,
    SessionClosed,
    StreamEnded,
    TextArrived,
)
from inf_stream.base.state import StateCopy
from inf_stream.session.limits import SessionLimits
from inf_stream.session.machine import Intake, SessionMachine
from inf_stream.session.queue import QueueRule
from inf_stream.session.steps import (
    Action,
    BeginAnswer,
    Close,
    Emit,
    HandState,
    IngestFrames,
    IngestText,
    PauseSource,
    ResumeSource,
    RunStep,
    Step,
    StepFailed,
    execute,
)


class RandomSession(RuleBasedStateMachine):
    @initialize(
        rule=st.sampled_from(list(QueueRule)),
        frames=st.integers(1, 4),
        questions=st.integers(1, 3),
        full=st.booleans(),
        portion=st.integers(1, 3),
    )
    def begin(self, rule: QueueRule, frames: int, questions: int, full: bool, portion: int) -> None:
        self.engine = ListEngine(frames_per_step=portion, characters_per_step=6)
        self.machine = SessionMachine(self.engine, SessionLimits(frames, rule, questions, 20, full))
        self.now_ns = 0
        self.flying: Step | None = None
        self.paused = False
        self.events: list[OutputEvent] = []
        self.ingested: list[int] = []
        self.arrived: list[Any] = []
        self.text_in, self.text_out, self.text_lost = "", "", 0
        self.asked: list[str] = []
        self.is_copying = False
        self.numbers = 0

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Emit(event):
                    assert not any(isinstance(e, SessionClosed) for e in self.events), "closed is last"
                    self.events.append(event)
                case RunStep(step):
                    assert self.flying is None, "one step in flight"
                    self.flying = step
                    self.started(step)
                case HandState(copy):
                    assert self.is_copying, "asked for"
                    self.is_copying = False
                    if isinstance(copy, StateCopy):
                        assert copy.state.facts["memory"] == self.engine.memory, "of this very moment"
                case PauseSource() | ResumeSource():
                    assert isinstance(action, PauseSource) != self.paused, "pauses and resumes alternate"
                    self.paused = not self.paused
                case Close():
                    assert isinstance(self.events[-1], SessionClosed)
                    assert action is actions[-1]
        self.machine.check()

    def started(self, step: Step) -> None:
        """What goes to the engine goes in order, and never beyond an `in_order` question that still waits."""
        done = {e.question.id for e in self.events if isinstance(e, AnswerFinished)}
        gone = {e.number for e in self.events if isinstance(e, FrameDropped)}
        waiting = [e for e in self.arrived if isinstance(e, QuestionAsked) and e.question.id not in done]
        if isinstance(step, IngestFrames):
            numbers = [f.number for f in step.frames]
            barrier = next((self.arrived.index(q) for q in waiting if q.in_order), len(self.arrived))
            assert all(self.arrived.index(n) < barrier for n in numbers)
            assert not any(not q.in_order for q in waiting), "a question goes before frames"
            self.ingested += numbers
        if isinstance(step, IngestText):
            self.text_out += step.text
        if isinstance(step, BeginAnswer):
            asked = next(q for q in waiting if q.question == step.question)
            if asked.in_order:
                before = self.arrived[: self.arrived.index(asked)]
                assert all(n in self.ingested or n in gone for n in before if isinstance(n, int))

    def send(self, event: Any) -> bool:
        if not (self.machine.takes(event) and self.machine.has_room(event)):
            return False
        if isinstance(event, FrameArrived):
            self.arrived.append(event.frame.number)
        elif isinstance(event, QuestionAsked):
            self.arrived.append(event)
        self.take(self.machine.receive(event, self.now_ns))
        return True

    @rule(count=st.integers(1, 4))
    def frames(self, count: int) -> None:
        for _ in range(count):
            self.numbers += self.send(FrameArrived(frame(self.numbers)))

    @rule(text=st.text(alphabet="ab ", max_size=15))
    def text(self, text: str) -> None:
        if self.send(TextArrived(text, self.numbers)):
            self.text_in += text

    @rule(in_order=st.booleans(), beyond=st.booleans())
    def question(self, in_order: bool, beyond: bool) -> None:
        event = ask(str(len(self.asked)), in_order=in_order)
        if self.machine.intake is Intake.OPEN and (beyond or self.machine.has_room(event)):
            self.asked.append(event.question.id)
            self.arrived.append(event)
            self.take(self.machine.receive(event, self.now_ns))

    @rule(number=st.integers(0, 9))
    def cancel(self, number: int) -> None:
        self.send(AnswerCancelled(str(number)))

    @precondition(lambda self: not self.is_copying)
    @rule()
    def copy(self) -> None:
        self.is_copying = True
        self.take(self.machine.copy_state())

    @precondition(lambda self: self.flying is not None)
    @rule(outcome=st.sampled_from(["done", "done", "done", "failed"]), wait=st.integers(0, 5))
    def step(self, outcome: str, wait: int) -> None:
        step, self.flying = self.flying, None
        assert step is not None
        self.now_ns += wait
        if outcome == "failed":
            self.engine.failures[len(self.engine.calls)] = BudgetError("no room")
        result = execute(self.engine, step)
        if isinstance(result, StepFailed) and isinstance(step, IngestText):
            self.text_lost += len(step.text)
        self.take(self.machine.step_done(result, self.now_ns))

    @rule(how=st.sampled_from(["end", "stop", "abort", "", "", ""]))
    def finish(self, how: str) -> None:
        if how == "end":
            self.send(StreamEnded())
        elif how == "stop":
            self.take(self.machine.stop())
        elif how == "abort":
            self.take(self.machine.abort())
            self.flying = None

    @invariant()
    def promises(self) -> None:
        answered = Counter(e.question.id for e in self.events if isinstance(e, AnswerFinished))
        assert all(count == 1 for count in answered.values())
        assert self.ingested == sorted(self.ingested), "frames go in order"
        assert self.text_in.startswith(self.text_out), "text goes in order"
        if self.machine.intake is Intake.CLOSED:
            assert self.flying is None
            assert not self.is_copying, "whoever asked for a copy has heard of it"
            assert sorted(answered) == sorted(self.asked)

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        self.send(StreamEnded())
        while self.flying is not None:
            self.step("done", 1)
        assert self.machine.intake is Intake.CLOSED
        assert isinstance(self.events[-1], SessionClosed)
        self.promises()
        dropped = [e.number for e in self.events if isinstance(e, FrameDropped)]
        failed = [e.number for e in self.events if isinstance(e, FrameDropped) and e.rule == "failed"]
        assert len(set(dropped)) == len(dropped)
        assert sorted(set(self.ingested) | set(dropped)) == list(range(self.numbers))
        assert set(self.ingested) & set(dropped) == set(failed)
        assert [e.dropped for e in self.events if isinstance(e, FrameDropped)] == list(range(1, len(dropped) + 1))
        try:
            self.machine.receive(StreamEnded(), 0)
        except SessionError:
            return
        raise AssertionError("a closed session takes nothing")


TestRandomSession = RandomSession.TestCase
TestRandomSession.settings = settings(max_examples=150, stateful_step_count=40)
