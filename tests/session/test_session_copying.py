"""The engine's state on its way out of a session: between two answers, before all that waits, in parts."""

from functools import partial

import pytest
from support.session_engine import ListEngine, S, ask, frames

from inf_stream.base.errors import InfStreamError, SessionError, StateError
from inf_stream.base.events import AnswerFinished, FramesIngested, OutputEvent, StreamEnded
from inf_stream.base.state import StateCopy
from inf_stream.engine import saved
from inf_stream.session.limits import SessionLimits
from inf_stream.session.machine import Intake, SessionMachine
from inf_stream.session.steps import (
    Action,
    CopyState,
    Emit,
    EndAnswer,
    HandState,
    IngestFrames,
    PartCopied,
    RunStep,
    Step,
    execute,
)


class Bench:
    """A machine and an engine of lists, one step at a time."""

    def __init__(self) -> None:
        self.engine = ListEngine()
        self.machine = SessionMachine(self.engine, SessionLimits())
        self.flying: Step | None = None
        self.heard: list[OutputEvent | HandState] = []

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case RunStep(step):
                    self.flying = step
                case Emit(event):
                    self.heard.append(event)
                case HandState():
                    self.heard.append(action)
        self.machine.check()

    def step(self) -> Step:
        step, self.flying = self.flying, None
        assert step is not None
        self.take(self.machine.step_done(execute(self.engine, step), S))
        return step

    def run(self) -> list[type]:
        kinds = []
        while self.flying is not None:
            kinds.append(type(self.step()))
        return kinds

    def handed(self) -> list[StateCopy | InfStreamError]:
        return [one.copy for one in self.heard if isinstance(one, HandState)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def memory_of(copy: StateCopy | InfStreamError) -> list[str]:
    assert isinstance(copy, StateCopy)
    found: list[str] = copy.state.fact("memory", list)
    return found


def test_an_idle_engine_is_copied_at_once(bench: Bench) -> None:
    bench.take(bench.machine.copy_state())
    assert bench.run() == [CopyState]
    assert memory_of(bench.handed()[0]) == []
    bench.take(bench.machine.copy_state())
    bench.run()
    assert len(bench.handed()) == 2


def test_a_copy_waits_for_the_open_answer_and_goes_before_all_else(bench: Bench) -> None:
    for event in (ask("q"), *frames(3), ask("later")):
        bench.take(bench.machine.receive(event, 0))
    bench.take(bench.machine.copy_state())
    while not isinstance(bench.step(), EndAnswer):
        pass
    assert bench.flying == CopyState()
    bench.step()
    (copy,) = bench.handed()
    assert memory_of(copy)[0] == "question q"
    assert len(memory_of(copy)) == 2, "with its answer, and without what waits"
    place = bench.heard.index(HandState(copy))
    assert isinstance(bench.heard[place - 1], AnswerFinished), "what came before has been told"
    assert bench.run()[-1] is IngestFrames
    assert not any(isinstance(e, FramesIngested) for e in bench.heard[:place])


def test_a_large_state_is_copied_in_steps_between_which_nothing_else_of_the_session_happens(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "StateCopy", partial(StateCopy, part_bytes=4))
    bench.take(bench.machine.receive(frames(1)[0], 0))
    bench.run()
    bench.take(bench.machine.copy_state())
    bench.step()
    for event in (*frames(2, first=1), ask("q")):
        bench.take(bench.machine.receive(event, 0))
    kinds = bench.run()
    assert kinds[:2] == [CopyState, CopyState], "8 letters, 4 at a time, and a look whether that was all"
    assert CopyState not in kinds[2:]
    assert memory_of(bench.handed()[0]) == ["frames 0"]
    assert bench.engine.calls.count("state") == 1


@pytest.mark.parametrize("how", ["end", "stop", "abort"])
def test_who_waits_for_a_copy_hears_of_the_end(bench: Bench, how: str) -> None:
    bench.take(bench.machine.receive(ask("q"), 0))
    bench.take(bench.machine.copy_state())
    match how:
        case "end":
            bench.take(bench.machine.receive(StreamEnded(), 0))
        case "stop":
            bench.take(bench.machine.stop())
        case "abort":
            bench.flying = None
            bench.take(bench.machine.abort())
    kinds = bench.run()
    assert CopyState not in kinds
    assert bench.machine.intake is Intake.CLOSED
    (error,) = bench.handed()
    assert isinstance(error, SessionError)
    bench.take(bench.machine.copy_state())
    assert isinstance(bench.handed()[1], SessionError)


@pytest.mark.parametrize("how", ["stop", "abort"])
def test_a_copy_that_is_half_done_when_the_session_ends_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(saved, "StateCopy", partial(StateCopy, part_bytes=1))
    bench.take(bench.machine.receive(frames(1)[0], 0))
    bench.run()
    bench.take(bench.machine.copy_state())
    bench.step()
    if how == "abort":
        bench.flying = None
    bench.take(bench.machine.stop() if how == "stop" else bench.machine.abort())
    assert bench.run() == ([CopyState] if how == "stop" else []), "what is in flight comes to its end"
    assert isinstance(bench.handed()[0], SessionError)


def test_a_copy_that_fails_is_handed_as_its_error_and_the_session_goes_on(bench: Bench) -> None:
    bench.engine.failures[0] = StateError("no memory")
    bench.take(bench.machine.copy_state())
    bench.run()
    assert str(bench.handed()[0]) == "no memory"
    bench.take(bench.machine.receive(frames(1)[0], 0))
    assert bench.run() == [IngestFrames]


def test_a_result_nobody_asked_for_is_refused(bench: Bench) -> None:
    with pytest.raises(SessionError, match="PartCopied was reported with no step in flight"):
        bench.machine.step_done(PartCopied(StateCopy(bench.engine.state())), 0)
