import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest
from support.session_engine import ListEngine, S, ask, frame, frames
from support.virtual_time import VirtualLoop, VirtualWorker, run_virtual

from inf_stream.base.errors import BudgetError, SessionError, SourceError
from inf_stream.base.events import (
    AnswerCancelled,
    AnswerFinished,
    FinishReason,
    FrameArrived,
    FrameDropped,
    FramesIngested,
    InputEvent,
    OutputEvent,
    SessionClosed,
    StreamEnded,
    TextArrived,
    TextIngested,
    Warned,
)
from inf_stream.session.limits import SessionLimits
from inf_stream.session.loop import SessionLoop, engine_worker, run_session
from inf_stream.session.machine import Intake
from inf_stream.session.queue import QueueRule
from inf_stream.session.reader import SourceReader
from inf_stream.session.replay import ExecutedStep, StepRecorder, replay
from inf_stream.session.steps import BeginAnswer, IngestFrames, IngestText, Step, StepAnswer

FILE = SessionLimits(queue_frames=2)
LIVE = SessionLimits(queue_frames=2, rule=QueueRule.DROP_OLDEST)
SCRIPT: list[InputEvent] = [
    *frames(3),
    TextArrived("it was the best of times", 3),
    ask("now"),
    *frames(3, first=3),
    ask("later", in_order=True),
]


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before, "every thread was joined"


class Source:
    """A blocking source: gives its events, then (if `endless`) blocks until it is closed."""

    def __init__(self, events: list[InputEvent], *, endless: bool = False, error: BaseException | None = None):
        self.events, self.endless, self.error = events, endless, error
        self.closed = threading.Event()
        self.given = 0
        self.at: dict[int, Callable[[], object]] = {}

    def __iter__(self) -> Iterator[InputEvent]:
        for event in self.events:
            self.at.get(self.given, lambda: None)()
            self.given += 1
            yield event
        if self.error is not None:
            raise self.error
        if self.endless:
            self.closed.wait(30)

    def close(self) -> None:
        self.closed.set()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run on a real loop; a task left over fails."""

    async def checked() -> None:
        try:
            await main
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}, "no task is left over"

    asyncio.run(checked())


def answers(events: list[OutputEvent]) -> dict[str, AnswerFinished]:
    return {e.question.id: e for e in events if isinstance(e, AnswerFinished)}


def assert_clean(engine: ListEngine, events: list[OutputEvent]) -> None:
    assert engine.said is None, "the open answer was ended"
    assert [isinstance(e, SessionClosed) for e in events].count(True) == 1
    assert isinstance(events[-1], SessionClosed)


# ---- a whole session on real threads ---------------------------------------------------------------


def test_a_source_is_worked_off_and_the_engine_keeps_to_one_other_thread() -> None:
    engine, events, source = ListEngine(), [], Source(SCRIPT)
    run(run_session(engine, source, limits=FILE, emit=events.append))
    assert_clean(engine, events)
    assert {i: a.reason for i, a in answers(events).items()} == {"now": FinishReason.STOP, "later": FinishReason.STOP}
    assert sum(e.count for e in events if isinstance(e, FramesIngested)) == 6
    assert sum(e.characters for e in events if isinstance(e, TextIngested)) == 24
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads
    assert source.closed.is_set()


def test_full_steps_give_the_same_steps_at_every_run() -> None:
    def memory() -> list[str]:
        engine = ListEngine(frames_per_step=3)
        script = [*frames(7), ask("q", in_order=True), *frames(4, first=7), TextArrived("times", 9)]
        limits = SessionLimits(queue_frames=4, full_steps=True)
        run(run_session(engine, Source(script), limits=limits, emit=lambda _: None))
        return engine.memory

    first = memory()
    assert [m for m in first if m.startswith("frames")] == ["frames 0 1 2", "frames 3 4 5", "frames 6", *first[-3:-1]]
    assert all(memory() == first for _ in range(5))


def test_under_wait_the_reader_is_never_further_than_the_queue() -> None:
    engine, source = ListEngine(), Source(frames(40))
    ahead: list[int] = []

    def emit(event: OutputEvent) -> None:
        assert not isinstance(event, FrameDropped)
        if isinstance(event, FramesIngested):
            ahead.append(source.given - event.at_ns // S)

    run(run_session(engine, source, limits=FILE, emit=emit))
    # up to 2 queued + 2 in the next step + 1 in the reader's hand + 1 that it takes from the source
    assert max(ahead) <= 6
    assert engine.memory[-1].endswith("39")


def test_the_dropping_rules_never_hold_the_reader_up() -> None:
    gate, events = threading.Event(), []
    engine, source = ListEngine(), Source(frames(50))
    original = engine.ingest_frames
    engine.ingest_frames = lambda f: (gate.wait(30), original(f))[1]  # type: ignore[assignment, func-returns-value]
    source.at[49] = gate.set
    run(run_session(engine, source, limits=LIVE, emit=events.append))
    dropped = [e for e in events if isinstance(e, FrameDropped)]
    assert sum(e.count for e in events if isinstance(e, FramesIngested)) + len(dropped) == 50
    assert len(dropped) >= 46
    assert engine.memory[-1].endswith("49"), "the newest was kept"


def test_text_longer_than_the_queue_waits_in_pieces() -> None:
    engine, events = ListEngine(), []
    text = "word and " * 200
    limits = SessionLimits(queue_characters=20)
    run(run_session(engine, [TextArrived(text, 1)], limits=limits, emit=events.append))
    assert sum(e.characters for e in events if isinstance(e, TextIngested)) == len(text)
    assert "".join(m.removeprefix("text ").removesuffix(" 1") for m in engine.memory) == text


def test_a_generator_is_a_source_and_is_closed() -> None:
    closed = []

    def generate() -> Iterator[InputEvent]:
        try:
            yield from frames(3)
        finally:
            closed.append(True)

    engine = ListEngine()
    run(run_session(engine, generate(), limits=FILE, emit=lambda _: None))
    assert closed
    assert len(engine.calls) >= 2


def test_an_error_of_the_source_is_raised_after_all_before_it_was_worked_off() -> None:
    engine, events = ListEngine(), []
    source = Source(SCRIPT, error=SourceError("the cable was cut"))
    with pytest.raises(SourceError, match="cable"):
        run(run_session(engine, source, limits=FILE, emit=events.append))
    assert_clean(engine, events)
    assert answers(events)["later"].reason is FinishReason.STOP


def test_a_bug_in_the_source_stops_the_session() -> None:
    engine, events = ListEngine(), []
    with pytest.raises(ZeroDivisionError):
        run(run_session(engine, Source(SCRIPT, error=ZeroDivisionError()), limits=FILE, emit=events.append))
    assert_clean(engine, events)


def test_an_event_the_session_refuses_is_an_error_of_the_source() -> None:
    engine, events = ListEngine(), []
    source = Source([ask("q", in_order=True), ask("q", in_order=True)] * 20)
    engine.tokens_per_answer = 1000
    with pytest.raises(SessionError, match="in use"):
        run(run_session(engine, source, limits=FILE, emit=events.append))
    assert_clean(engine, events)


@pytest.mark.parametrize("error", [BudgetError("no room"), ZeroDivisionError("a bug")])
@pytest.mark.parametrize("call", range(18))
def test_the_engine_may_fail_at_any_call(call: int, error: Exception) -> None:
    engine, events = ListEngine(failures={call: error}), []
    source = Source(SCRIPT)
    raised: list[Exception] = []

    async def main() -> None:
        try:
            await run_session(engine, source, limits=FILE, emit=events.append)
        except ZeroDivisionError as bug:
            raised.append(bug)

    run(main())
    broke = isinstance(error, ZeroDivisionError) and call < len(engine.calls)
    assert raised == ([error] if broke else [])
    assert isinstance(events[-1], SessionClosed)
    assert source.closed.is_set()
    if not broke:
        assert_clean(engine, events)
        assert set(answers(events)) == {"now", "later"}


def test_an_observer_can_replay_the_session() -> None:
    engine, events, recorded = ListEngine(), [], list[ExecutedStep]()
    observer = StepRecorder(recorded.append)
    run(run_session(engine, Source(SCRIPT), limits=FILE, emit=events.append, observer=observer))
    again = ListEngine()
    replayed = list(replay(again, recorded))
    assert again.memory == engine.memory
    assert {i: a.text for i, a in answers(replayed).items()} == {i: a.text for i, a in answers(events).items()}


@pytest.mark.parametrize("which", ["emit", "observer"])
def test_a_listener_that_breaks_stops_the_session_and_hears_no_more(which: str) -> None:
    engine, heard = ListEngine(), []

    def listen(*args: object) -> None:
        heard.append(args)
        if len(heard) == 4:
            raise BrokenPipeError("nobody reads")

    source = Source(SCRIPT, endless=True)
    listeners: dict[str, Any] = {"emit": lambda _: None, which: listen}
    with pytest.raises(BrokenPipeError):
        run(run_session(engine, source, limits=FILE, **listeners))
    assert len(heard) == 4
    assert engine.said is None
    assert source.closed.is_set()


# ---- cancellation on real threads ------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("call", range(12))
def test_cancelled_while_the_engine_works(call: int, times: int) -> None:
    engine, events = ListEngine(), []
    source = Source(SCRIPT, endless=True)

    async def main() -> None:
        task = asyncio.ensure_future(run_session(engine, source, limits=FILE, emit=events.append))
        loop, called = asyncio.get_running_loop(), engine._called

        def cancel(name: str) -> None:
            if len(engine.calls) == call:
                for _ in range(times):
                    loop.call_soon_threadsafe(task.cancel)
            called(name)

        engine._called = cancel  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert_clean(engine, events)
    assert source.closed.is_set()
    gone = {e.number for e in events if isinstance(e, FrameDropped)}
    assert len(gone) + sum(e.count for e in events if isinstance(e, FramesIngested)) <= source.given


@pytest.mark.parametrize("event", range(len(SCRIPT)))
def test_cancelled_while_the_source_is_read(event: int) -> None:
    engine, events = ListEngine(), []
    source = Source(SCRIPT, endless=True)

    async def main() -> None:
        task = asyncio.ensure_future(run_session(engine, source, limits=FILE, emit=events.append))
        loop = asyncio.get_running_loop()
        source.at[event] = lambda: loop.call_soon_threadsafe(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert_clean(engine, events)
    assert source.closed.is_set()


def test_an_infinite_source_ends_with_the_session() -> None:
    engine, events = ListEngine(), []

    def endless() -> Iterator[InputEvent]:
        number = 0
        while True:
            yield FrameArrived(frame(number))
            number += 1

    async def main() -> None:
        with engine_worker() as worker:
            session = SessionLoop(engine, limits=FILE, emit=events.append, worker=worker)

            async def feed() -> None:
                reading = asyncio.ensure_future(session.read(endless()))
                while len(engine.calls) < 20:
                    await asyncio.sleep(0)
                session.end()
                session.end()
                await reading

            await session.run(feed)

    run(main())
    assert_clean(engine, events)


# ---- readers ---------------------------------------------------------------------------------------


def test_a_source_that_does_not_end_is_left_behind_with_an_error() -> None:
    release = threading.Event()

    class Stubborn(Source):
        def close(self) -> None:
            pass

    source = Stubborn([], endless=True)
    source.closed = release
    readers: list[SourceReader] = []

    async def main() -> None:
        async def take(_event: InputEvent) -> bool:
            return True

        readers.append(SourceReader(source, take, patience_s=0.01))
        task = asyncio.ensure_future(readers[0].run())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(SourceError, match=r"did not end within 0.01 s after it was closed"):
            await task

    run(main())
    release.set()
    readers[0]._thread.join()


def test_a_reader_can_be_cancelled_while_the_session_goes_on() -> None:
    engine, events = ListEngine(), []
    source = Source(frames(1), endless=True)

    async def main() -> None:
        with engine_worker() as worker:
            session = SessionLoop(engine, limits=FILE, emit=events.append, worker=worker)

            async def feed() -> None:
                reading = asyncio.ensure_future(session.read(source))
                while not source.given:
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait({reading})
                assert reading.cancelled()
                await session.put(ask("after"))

            await session.run(feed)

    run(main())
    assert_clean(engine, events)
    assert answers(events)["after"].reason is FinishReason.STOP


def cancelled_after_the_first(source: Any, then: Callable[[], None] = lambda: None) -> list[InputEvent]:
    """Cancel a reader that waits for its second event, call `then`; what it handed over until its end."""
    taken: list[InputEvent] = []

    async def main() -> None:
        async def take(event: InputEvent) -> bool:
            taken.append(event)
            return True

        task = asyncio.ensure_future(SourceReader(source, take).run())
        while not taken:
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        then()
        await asyncio.wait({task})
        assert task.cancelled()

    run(main())
    return taken


def test_what_a_source_still_gives_after_it_was_closed_is_left() -> None:
    class Talkative(Source):
        def __iter__(self) -> Iterator[InputEvent]:
            yield from super().__iter__()
            yield FrameArrived(frame(9))

    source = Talkative(frames(1), endless=True)
    assert len(cancelled_after_the_first(source)) == 1
    assert source.closed.is_set()


def test_a_generator_is_closed_by_its_own_thread_alone() -> None:
    went_on, closed_by = threading.Event(), []

    def generate() -> Iterator[InputEvent]:
        try:
            yield FrameArrived(frame(0))
            went_on.wait(30)
            yield FrameArrived(frame(1))
        finally:
            closed_by.append(threading.current_thread().name)

    assert len(cancelled_after_the_first(generate(), went_on.set)) == 1
    assert closed_by == ["inf-stream-source"]


def test_a_reader_held_up_by_a_full_queue_can_be_cancelled() -> None:
    taken = []

    async def main() -> None:
        async def take(event: InputEvent) -> bool:
            taken.append(event)
            await asyncio.Event().wait()
            return True

        source = Source(frames(5))
        task = asyncio.ensure_future(SourceReader(source, take).run())
        while not taken:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert source.closed.is_set()

    run(main())
    assert len(taken) == 1


def test_other_threads_may_post() -> None:
    engine, events = ListEngine(), []

    async def main() -> None:
        with engine_worker() as worker:
            session = SessionLoop(engine, limits=FILE, emit=events.append, worker=worker)

            def talk() -> None:
                for event in (*frames(9), ask("q", in_order=True)):
                    session.post_threadsafe(event).result(30)

            await session.run(partial(asyncio.to_thread, talk))

    run(main())
    assert_clean(engine, events)
    assert set(answers(events)) == {"q"}


def test_two_sessions_share_one_engine_thread() -> None:
    engines, events = [ListEngine(), ListEngine()], [[], []]

    async def main() -> None:
        with engine_worker() as worker:
            sessions = [
                SessionLoop(engine, limits=FILE, emit=heard.append, worker=worker)
                for engine, heard in zip(engines, events, strict=True)
            ]
            await asyncio.gather(*(s.run(partial(s.read, Source(SCRIPT))) for s in sessions))

    run(main())
    for engine, heard in zip(engines, events, strict=True):
        assert_clean(engine, heard)
    assert len(engines[0].threads | engines[1].threads) == 1


# ---- virtual time ----------------------------------------------------------------------------------


def cost_s(step: Step) -> float:
    match step:
        case IngestFrames() | IngestText():
            return 0.4
        case BeginAnswer():
            return 0.2
        case StepAnswer():
            return 0.05
        case _:
            return 0.01


def virtual(
    loop: VirtualLoop, engine: ListEngine, limits: SessionLimits, emit: Callable[[OutputEvent], None]
) -> SessionLoop:
    return SessionLoop(engine, limits=limits, emit=emit, worker=VirtualWorker(loop, cost_s), clock_ns=loop.time_ns)


def test_half_a_minute_of_conversation() -> None:
    loop, engine, events = VirtualLoop(), ListEngine(frames_per_step=1, tokens_per_answer=20), []

    async def main() -> None:
        session = virtual(loop, engine, LIVE, events.append)

        async def camera() -> None:
            for number in range(150):
                await session.put(FrameArrived(frame(number, number / 5)))
                await asyncio.sleep(0.2)

        async def terminal() -> None:
            for second in range(2, 30, 4):
                await asyncio.sleep(second - loop.time())
                session.post(ask(f"at {second}", second))
            await asyncio.sleep(29.1 - loop.time())
            session.post(AnswerCancelled("at 26"))

        async def feed() -> None:
            await asyncio.gather(camera(), terminal())

        await session.run(feed)

    run_virtual(loop, main())
    assert_clean(engine, events)
    told = answers(events)
    assert len(told) == 7
    assert all(a.reason is FinishReason.STOP and a.tokens == 20 for a in told.values())
    # the step in flight, the prompt, the first token
    assert all(a.ttft_s is not None and a.ttft_s <= 0.4 + 0.2 + 0.05 + 1e-6 for a in told.values())
    dropped = [e for e in events if isinstance(e, FrameDropped)]
    ingested = sum(e.count for e in events if isinstance(e, FramesIngested))
    assert len(dropped) + ingested == 150
    assert 40 <= ingested <= 60
    assert 30 <= loop.time() < 32
    assert [e.message for e in events if isinstance(e, Warned)] == [
        "no answer to cancel: question 'at 26' is unknown or already answered"
    ]


async def conversation(loop: VirtualLoop, engine: ListEngine, emit: Callable[[OutputEvent], None]) -> None:
    session = virtual(loop, engine, FILE, emit)

    async def feed() -> None:
        for event in SCRIPT:
            await session.put(event)
        await asyncio.sleep(1)
        session.post(ask("last"))
        await asyncio.sleep(0.3)
        session.post(AnswerCancelled("last"))

    await session.run(feed)


def test_cancelled_at_every_turn_of_the_loop() -> None:
    loop = VirtualLoop()
    run_virtual(loop, conversation(loop, ListEngine(), lambda _: None))
    turns = loop.turns
    assert turns > 60
    cancelled = 0
    for turn in range(2, turns + 1):
        loop, engine, events = VirtualLoop(), ListEngine(), []
        task = loop.create_task(conversation(loop, engine, events.append))
        for extra in range(0, 9, 3):
            loop.at_turn[turn + extra] = task.cancel

        async def main(task: "asyncio.Task[None]" = task) -> None:
            await asyncio.wait({task})

        run_virtual(loop, main())
        cancelled += task.cancelled()
        assert_clean(engine, events)
        first_answers = [e.question.id for e in events if isinstance(e, AnswerFinished)]
        assert len(set(first_answers)) == len(first_answers)
    assert cancelled > turns // 2


def test_put_and_post_after_the_end_are_errors() -> None:
    loop, engine, events = VirtualLoop(), ListEngine(), []

    async def main() -> None:
        session = virtual(loop, engine, FILE, events.append)

        async def feed() -> None:
            await session.put(StreamEnded())
            with pytest.raises(SessionError):
                session.post(ask("late"))
            with pytest.raises(SessionError, match="QuestionAsked came to a session that is"):
                await session.put(ask("late"))

        await session.run(feed)
        assert session.machine.intake is Intake.CLOSED

    run_virtual(loop, main())
    assert_clean(engine, events)


def test_putting_waits_no_longer_than_the_session_lives() -> None:
    loop, engine = VirtualLoop(), ListEngine()

    async def main() -> None:
        session = virtual(loop, engine, FILE, lambda _: None)
        refused = []

        async def feed() -> None:
            for event in frames(3):
                session.post(event)
            waiting = asyncio.ensure_future(session.put(frames(1, first=9)[0]))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            session.stop()
            session.stop()
            try:
                await waiting
            finally:
                refused.append(True)

        await session.run(feed)
        assert refused

    run_virtual(loop, main())


def test_a_session_may_be_stopped_before_it_runs() -> None:
    loop, engine, events, fed = VirtualLoop(), ListEngine(), [], []

    async def main() -> None:
        session = virtual(loop, engine, FILE, events.append)
        session.stop()

        async def feed() -> None:
            fed.append(True)
            await asyncio.sleep(99)

        await session.run(feed)

    run_virtual(loop, main())
    assert fed, "a feed always starts, so that it can clean up"
    assert events == [SessionClosed(0)]
