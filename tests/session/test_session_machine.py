from collections.abc import Callable

import pytest
from support.session_engine import ListEngine, S, ask, frame, frames

from inf_stream.base.errors import BudgetError, SessionError
from inf_stream.base.events import (
    AnswerCancelled,
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    Evidence,
    FinishReason,
    FrameArrived,
    FrameDropped,
    FramesIngested,
    InputEvent,
    OutputEvent,
    SessionClosed,
    SourceNotice,
    StreamEnded,
    TextArrived,
    TextIngested,
    Warned,
)
from inf_stream.engine.protocol import AnswerStep
from inf_stream.session.limits import SessionLimits
from inf_stream.session.machine import Intake, SessionMachine
from inf_stream.session.queue import QueueRule
from inf_stream.session.steps import (
    Action,
    AnswerEnded,
    BeginAnswer,
    Close,
    Emit,
    EndAnswer,
    IngestFrames,
    IngestText,
    PauseSource,
    ResumeSource,
    RunStep,
    Step,
    StepAnswer,
    StepDone,
    StepFailed,
    StepResult,
    execute,
)


class Bench:
    """A machine, an engine of lists, and hands that run one step at a time."""

    def __init__(self, limits: SessionLimits | None = None, **engine: object):
        self.engine = ListEngine(**engine)  # type: ignore[arg-type]
        self.machine = SessionMachine(self.engine, limits or SessionLimits())
        self.now_ns = 0
        self.flying: Step | None = None
        self.events: list[OutputEvent] = []
        self.steps: list[Step] = []
        self.others: list[Action] = []

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Emit(event):
                    self.events.append(event)
                case RunStep(step):
                    assert self.flying is None
                    self.flying = step
                    self.steps.append(step)
                case _:
                    self.others.append(action)
        self.machine.check()

    def send(self, *events: InputEvent) -> None:
        for event in events:
            self.take(self.machine.receive(event, self.now_ns))

    def report(self, result: StepResult) -> None:
        self.flying = None
        self.take(self.machine.step_done(result, self.now_ns))

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.flying is not None
            self.now_ns += S
            self.report(execute(self.engine, self.flying))

    def run(self) -> None:
        while self.flying is not None:
            self.step()

    def of(self, kind: type) -> list:  # type: ignore[type-arg]
        return [e for e in self.events if isinstance(e, kind)]

    def finished(self) -> dict[str, AnswerFinished]:
        return {e.question.id: e for e in self.of(AnswerFinished)}

    def numbers(self) -> list[list[int]]:
        return [[f.number for f in s.frames] for s in self.steps if isinstance(s, IngestFrames)]


def test_frames_go_in_portions_and_the_session_closes_last() -> None:
    bench = Bench()
    bench.send(*frames(5))
    bench.run()
    assert bench.numbers() == [[0], [1, 2], [3, 4]]
    assert bench.of(FramesIngested) == [FramesIngested(1, 0), FramesIngested(2, 2 * S), FramesIngested(2, 4 * S)]
    bench.send(StreamEnded())
    assert bench.others == [Close()]
    assert bench.events[-1] == SessionClosed(4 * S)
    assert bench.machine.intake is Intake.CLOSED


def test_a_question_goes_before_queued_frames() -> None:
    bench = Bench()
    bench.send(*frames(4), ask("q"))
    bench.step()
    assert bench.flying == BeginAnswer(ask("q").question)
    bench.run()
    assert [type(s).__name__ for s in bench.steps] == [
        "IngestFrames",
        "BeginAnswer",
        "StepAnswer",
        "StepAnswer",
        "StepAnswer",
        "EndAnswer",
        "IngestFrames",
        "IngestFrames",
    ]


def test_an_answer_tells_its_text_its_tokens_and_the_time_to_its_first_token() -> None:
    bench = Bench()
    bench.send(*frames(1))
    bench.now_ns = S // 2
    bench.send(ask("q"))
    bench.run()
    (started,), (answer,), deltas = bench.of(AnswerStarted), bench.of(AnswerFinished), bench.of(AnswerDelta)
    assert started.question.id == "q"
    assert answer.text == "".join(d.text for d in deltas) != ""
    assert len(deltas) == answer.tokens == 3
    assert answer.reason is FinishReason.STOP
    assert answer.ttft_s == 3.0
    assert answer.tokens_per_s == 1.0
    assert answer.stats == {"memories": 3}


def test_what_the_engine_warns_of_is_told_before_the_answer_and_with_it() -> None:
    bench = Bench(warning="beware")
    bench.send(ask("q"))
    bench.run()
    (started,), (answer,) = bench.of(AnswerStarted), bench.of(AnswerFinished)
    assert (started.warning, answer.warning) == ("beware", "beware")


def test_the_wait_of_a_question_in_order_for_its_turn_does_not_count() -> None:
    bench = Bench()
    bench.send(*frames(4), ask("q", in_order=True), ask("r", in_order=True))
    bench.run()
    assert bench.finished()["q"].ttft_s == bench.finished()["r"].ttft_s == 2.0


def test_an_empty_piece_of_answer_is_not_told() -> None:
    bench = Bench()
    bench.engine.step_answer = lambda: AnswerStep("", FinishReason.STOP)  # type: ignore[method-assign]
    bench.send(ask("q"))
    bench.run()
    assert bench.of(AnswerDelta) == []
    assert bench.finished()["q"].ttft_s == 2.0
    assert bench.finished()["q"].tokens_per_s is None, "there was no second step"


def test_in_order_questions_wait_for_what_came_before_and_hold_what_comes_after() -> None:
    bench = Bench()
    bench.send(*frames(4), ask("q", in_order=True), *frames(2, first=4), TextArrived("later", 0))
    bench.run()
    kinds = [s for s in bench.steps if not isinstance(s, StepAnswer)]
    assert bench.numbers() == [[0], [1, 2], [3], [4, 5]]
    assert [type(s).__name__ for s in kinds] == [
        "IngestFrames",
        "IngestFrames",
        "IngestFrames",
        "BeginAnswer",
        "EndAnswer",
        "IngestFrames",
        "IngestText",
    ]


def test_an_urgent_question_overtakes_one_that_waits_in_order() -> None:
    bench = Bench()
    bench.send(*frames(3), ask("slow", in_order=True), ask("fast"))
    bench.run()
    assert [e.question.id for e in bench.of(AnswerFinished)] == ["fast", "slow"]


def test_frames_and_text_keep_their_order() -> None:
    bench = Bench()
    bench.send(*frames(2), TextArrived("a", 5), TextArrived("b", 6), *frames(1, first=2))
    bench.run()
    assert bench.engine.memory == ["frames 0", "frames 1", "text a 5", "text b 6", "frames 2"]
    assert bench.of(TextIngested) == [TextIngested(1, 5), TextIngested(1, 6)]


def test_text_is_cut_into_steps_and_empty_text_is_none() -> None:
    bench = Bench()
    bench.send(TextArrived("", 0), TextArrived("to be or not to be", 9))
    bench.run()
    assert [s.text for s in bench.steps if isinstance(s, IngestText)] == ["to be or", " not to be"]


def test_full_steps_depend_on_order_alone() -> None:
    bench = Bench(SessionLimits(full_steps=True), frames_per_step=3)
    bench.send(*frames(2))
    assert bench.flying is None
    bench.send(*frames(3, first=2), ask("q", in_order=True), *frames(1, first=5))
    bench.run()
    assert bench.numbers() == [[0, 1, 2], [3, 4]]
    bench.send(TextArrived("x", 0))
    bench.run()
    assert bench.numbers()[-1] == [5]
    bench.send(*frames(1, first=6), StreamEnded())
    bench.run()
    assert bench.numbers()[-1] == [6]
    assert bench.others[-1] == Close()


def test_full_steps_never_wait_for_more_than_the_queue_holds() -> None:
    bench = Bench(SessionLimits(queue_frames=2, full_steps=True), frames_per_step=8)
    bench.send(*frames(2))
    assert bench.numbers() == [[0, 1]]


@pytest.mark.parametrize(
    ("limits", "fill"),
    [
        (SessionLimits(queue_frames=2), lambda: frames(3)),
        (SessionLimits(queue_characters=25), lambda: [TextArrived("0123456789", 0)] * 3),
        (SessionLimits(queue_questions=2), lambda: [ask("a"), ask("b"), ask("c")]),
    ],
)
def test_the_source_is_paused_when_full_and_resumed_after(
    limits: SessionLimits, fill: Callable[[], list[InputEvent]]
) -> None:
    bench = Bench(limits)
    events = fill()
    bench.send(*events)
    assert bench.others == [PauseSource()]
    assert not bench.machine.has_room(events[0])
    assert bench.machine.has_room(SourceNotice("", 0))
    bench.run()
    assert bench.others == [PauseSource(), ResumeSource()]
    assert bench.machine.has_room(events[0])


def test_frames_and_text_beyond_a_full_queue_are_an_error_under_wait() -> None:
    bench = Bench(SessionLimits(queue_frames=2, queue_characters=20))
    bench.send(*frames(3), TextArrived("0123456789" * 2, 0))
    for event in (*frames(1, first=9), TextArrived("x", 0)):
        with pytest.raises(SessionError, match="hold it back"):
            bench.machine.receive(event, 0)
        bench.machine.check()
    bench.run()
    assert bench.numbers() == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("rule", "kept", "left_out"),
    [(QueueRule.DROP_OLDEST, [[0], [3, 4]], [1, 2]), (QueueRule.DROP_LATEST, [[0], [1, 2]], [3, 4])],
)
def test_dropping_rules_tell_every_frame_left_out(rule: QueueRule, kept: list[list[int]], left_out: list[int]) -> None:
    bench = Bench(SessionLimits(queue_frames=2, rule=rule))
    bench.send(*frames(5))
    bench.run()
    assert bench.numbers() == kept
    assert bench.of(FrameDropped) == [
        FrameDropped(number, number * S, rule.value, count) for count, number in enumerate(left_out, start=1)
    ]
    assert bench.machine.dropped_frames == {rule.value: 2}
    assert bench.others == []
    assert bench.machine.has_room(FrameArrived(frame(9)))


def test_questions_beyond_the_limit_are_refused_aloud() -> None:
    bench = Bench(SessionLimits(queue_questions=1))
    bench.send(ask("running"), ask("waits"), ask("refused"))
    assert "question 'refused' is refused: 1 wait" in bench.of(Warned)[0].message
    assert bench.finished()["refused"].reason is FinishReason.REFUSED
    bench.run()
    assert [(i, a.reason) for i, a in bench.finished().items()] == [
        ("refused", FinishReason.REFUSED),
        ("running", FinishReason.STOP),
        ("waits", FinishReason.STOP),
    ]


def test_question_ids_in_use_are_an_error() -> None:
    bench = Bench()
    bench.send(ask("running"), ask("waits"))
    for question_id in ("running", "waits"):
        with pytest.raises(SessionError, match=f"question id '{question_id}' is in use"):
            bench.machine.receive(ask(question_id), 0)
    bench.run()
    bench.send(ask("running"))
    bench.run()
    assert len(bench.of(AnswerFinished)) == 3


def test_a_waiting_question_can_be_cancelled() -> None:
    bench = Bench()
    bench.send(ask("a"), ask("b"), AnswerCancelled("b"))
    answer = bench.finished()["b"]
    assert (answer.reason, answer.tokens, answer.ttft_s, answer.text) == (FinishReason.CANCELLED, 0, None, "")
    bench.run()
    assert bench.engine.memory[0] == "question a"
    assert "question b" not in bench.engine.memory


@pytest.mark.parametrize(("steps", "tokens"), [(0, 0), (1, 1), (2, 2)])
def test_a_running_answer_can_be_cancelled_at_any_step(steps: int, tokens: int) -> None:
    bench = Bench()
    bench.send(ask("q"))
    bench.step(steps)
    bench.send(AnswerCancelled("q"), AnswerCancelled("q"))
    bench.run()
    answer = bench.finished()["q"]
    assert (answer.reason, answer.tokens) == (FinishReason.CANCELLED, tokens)
    assert bench.engine.calls == ["begin", *["step"] * tokens, "end"]
    assert len(bench.of(AnswerStarted)) == (1 if steps else 0)
    assert bench.of(Warned) == []


@pytest.mark.parametrize("steps", [3, 4])
def test_an_answer_that_ended_by_itself_is_not_cancelled_any_more(steps: int) -> None:
    bench = Bench()
    bench.send(ask("q"))
    bench.step(steps)
    bench.send(AnswerCancelled("q"))
    bench.run()
    assert bench.finished()["q"].reason is FinishReason.STOP


def test_cancelling_an_unknown_answer_warns_and_does_nothing_else() -> None:
    bench = Bench()
    bench.send(AnswerCancelled("ghost"))
    assert bench.events == [Warned("no answer to cancel: question 'ghost' is unknown or already answered", 0)]
    assert bench.steps == []


def test_an_ended_stream_is_worked_off_and_takes_only_cancels_and_notices() -> None:
    bench = Bench()
    bench.send(*frames(3), ask("q", 7, in_order=True), StreamEnded())
    for event in (*frames(1), TextArrived("x", 0), ask("late"), StreamEnded()):
        assert not bench.machine.takes(event)
        with pytest.raises(SessionError, match="working off the rest"):
            bench.machine.receive(event, 0)
    bench.send(AnswerCancelled("ghost"), SourceNotice("rain", 8 * S))
    bench.run()
    assert bench.finished()["q"].reason is FinishReason.STOP
    assert bench.events[-1] == SessionClosed(8 * S)
    with pytest.raises(SessionError, match="closed"):
        bench.machine.receive(SourceNotice("", 0), 0)


@pytest.mark.parametrize("result", [StepDone(), AnswerEnded(1), StepFailed(SessionError("x"))])
def test_results_without_a_step_are_an_error(result: StepResult) -> None:
    bench = Bench()
    with pytest.raises(SessionError, match="with no step in flight"):
        bench.machine.step_done(result, 0)


def test_results_of_another_step_are_an_error() -> None:
    bench = Bench()
    bench.send(*frames(1))
    with pytest.raises(SessionError, match="AnswerEnded was reported with IngestFrames in flight"):
        bench.machine.step_done(AnswerEnded(1), 0)
    bench.machine.check()


def test_refused_frames_and_text_are_told_and_the_session_goes_on() -> None:
    failures: dict[int, BaseException] = {0: BudgetError("too big"), 2: BudgetError("too long")}
    bench = Bench(failures=failures)
    bench.send(*frames(3), TextArrived("abc", 3 * S), ask("q", in_order=True))
    bench.run()
    assert [w.message for w in bench.of(Warned)] == [
        "1 frames left out: too big",
        "3 characters of text left out: too long",
    ]
    assert bench.of(FrameDropped) == [FrameDropped(0, 0, "failed", 1)]
    assert bench.finished()["q"].reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("call", "calls", "reason", "tokens"),
    [
        (0, ["begin"], FinishReason.FAILED, 0),
        (1, ["begin", "step", "end"], FinishReason.FAILED, 0),
        (2, ["begin", "step", "step", "end"], FinishReason.FAILED, 1),
        (4, ["begin", "step", "step", "step", "end"], FinishReason.STOP, 3),
    ],
)
def test_a_failed_answer_is_ended_and_the_session_goes_on(
    call: int, calls: list[str], reason: FinishReason, tokens: int
) -> None:
    bench = Bench(failures={call: BudgetError("no room")})
    bench.send(ask("q"), ask("next"))
    while "q" not in bench.finished():
        bench.step()
    answer = bench.finished()["q"]
    assert bench.engine.calls == calls
    assert (answer.reason, answer.tokens) == (reason, tokens)
    assert bench.of(Warned) == [Warned("answer to question 'q' failed: no room", 0)]
    bench.run()
    assert bench.finished()["next"].reason is FinishReason.STOP


@pytest.mark.parametrize("steps", range(7))
def test_stop_ends_the_open_answer_and_accounts_for_all_that_waited(steps: int) -> None:
    bench = Bench(SessionLimits(queue_frames=2))
    bench.send(*frames(3), ask("q"), TextArrived("abc", 0), ask("waits", in_order=True))
    bench.step(steps)
    bench.take(bench.machine.stop())
    bench.take(bench.machine.stop())
    assert set(bench.finished()) >= {"waits"}
    bench.run()
    assert bench.others[-1] == Close()
    assert isinstance(bench.events[-1], SessionClosed)
    assert bench.engine.said is None
    taken = [number for portion in bench.numbers() for number in portion]
    assert sorted(taken + [d.number for d in bench.of(FrameDropped)]) == [0, 1, 2]
    expected = FinishReason.STOP if steps >= 4 else FinishReason.CANCELLED
    assert bench.finished()["q"].reason is expected
    assert any("3 characters of text were not read" in w.message for w in bench.of(Warned))
    bench.take(bench.machine.stop())
    bench.take(bench.machine.abort())
    assert bench.others.count(Close()) == 1


def test_stop_of_an_idle_session_closes_it_at_once() -> None:
    bench = Bench()
    bench.take(bench.machine.stop())
    assert bench.events == [SessionClosed(0)]


def test_a_stopping_session_still_hears_cancels() -> None:
    bench = Bench()
    bench.send(*frames(1))
    bench.take(bench.machine.stop())
    bench.send(AnswerCancelled("q"), SourceNotice("bye", 0))
    assert len(bench.of(Warned)) == 2


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (FrameArrived(frame(0)), None),
        (TextArrived("abc", 0), "3 characters of text were lost: the engine broke"),
        (ask("q"), None),
    ],
)
def test_abort_closes_at_once_and_accounts_for_the_step_in_flight(event: InputEvent, message: str | None) -> None:
    bench = Bench()
    bench.send(event, ask("waits"))
    bench.take(bench.machine.abort())
    assert bench.finished()["waits"].reason is FinishReason.FAILED
    assert [w.message for w in bench.of(Warned)] == ([] if message is None else [message])
    assert [d.rule for d in bench.of(FrameDropped)] == (["failed"] if isinstance(event, FrameArrived) else [])
    assert set(bench.finished()) == ({"q", "waits"} if event == ask("q") else {"waits"})
    assert isinstance(bench.events[-1], SessionClosed)
    assert bench.others == [Close()]


def test_steps_name_one_engine_call_each() -> None:
    engine = ListEngine()
    for step in (IngestFrames((frame(0),)), IngestText("a", 1), BeginAnswer(ask("q").question), StepAnswer()):
        execute(engine, step)
    assert execute(engine, EndAnswer()) == AnswerEnded(1, {"memories": 4}, (Evidence(7, 0.5),))
    assert engine.calls == ["frames", "text", "begin", "step", "end"]
    engine.failures = {5: ZeroDivisionError("a bug")}
    with pytest.raises(ZeroDivisionError):
        execute(engine, IngestText("b", 2))
