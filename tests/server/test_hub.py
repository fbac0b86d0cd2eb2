"""Many sessions on one hub: fair turns, exact counts, refusals, ends."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from support.serving import ListMaker, run_clean, server_settings
from support.session_engine import ListEngine

from inf_stream.base.errors import BudgetError, SessionError
from inf_stream.base.events import AnswerFinished, AnswerStarted, FinishReason, SessionClosed
from inf_stream.base.state import StateCopy
from inf_stream.engine import saved
from inf_stream.server.sessions import hub as module
from inf_stream.server.sessions.admission import AdmissionError
from inf_stream.server.sessions.engines import SessionOptions
from inf_stream.server.sessions.hub import Hub
from inf_stream.server.sessions.live_session import FrameSettled, LiveSession, SessionEvent

PIXELS = np.zeros((2, 2, 3), dtype=np.uint8)


class Heard(list[SessionEvent]):
    """All that came out of a session; `until` waits for something."""

    def __init__(self) -> None:
        super().__init__()
        self.more = asyncio.Event()

    def __call__(self, event: SessionEvent) -> None:
        self.append(event)
        self.more.set()

    async def until(self, found: Callable[["Heard"], bool]) -> None:
        while not found(self):
            self.more.clear()
            await self.more.wait()

    @property
    def settled(self) -> dict[int, tuple[str, str | None]]:
        all_of = [e for e in self if isinstance(e, FrameSettled)]
        assert len({e.number for e in all_of}) == len(all_of), "one outcome for each frame"
        return {e.number: (e.outcome, e.reason) for e in all_of}

    @property
    def answers(self) -> dict[str, AnswerFinished]:
        return {e.question.id: e for e in self if isinstance(e, AnswerFinished)}


def opened(hub: Hub, **options: object) -> tuple[LiveSession, Heard]:
    heard = Heard()
    return hub.open(heard, **options), heard  # type: ignore[arg-type]


async def send_frame(session: LiveSession) -> int:
    number = session.number_frame()
    await session.frame(number, PIXELS, session.stamp(None))
    return number


def test_frames_and_questions_of_two_sessions_stay_apart() -> None:
    async def main() -> None:
        maker = ListMaker()
        hub = Hub(maker, server_settings())
        (one, heard_one), (two, heard_two) = opened(hub), opened(hub)
        for _ in range(3):
            await send_frame(one)
        first, second = one.new_question("what?"), two.new_question("who?", aside=True)
        one.ask(first, in_order=True)
        two.ask(second, in_order=True)
        await heard_one.until(lambda h: first.id in h.answers)
        await heard_two.until(lambda h: second.id in h.answers)
        assert heard_one.answers[first.id].reason is FinishReason.STOP
        assert heard_one.settled == dict.fromkeys(range(3), ("accepted", None))
        assert heard_two.settled == {}
        assert len(maker.made) == 2
        assert len({thread for engine in maker.made for thread in engine.threads}) == 1
        counts = one.stats()["frames"]
        assert (counts["received"], counts["accepted"], counts["waiting"]) == (3, 3, 0)
        assert one.is_idle
        await hub.close(1.0)
        assert isinstance(heard_one[-1], SessionClosed)
        assert hub.admission.sessions == 0
        assert hub.sessions == []

    run_clean(main())


def test_a_question_goes_before_the_frames_of_others() -> None:
    """Two sessions' frames wait behind a step in flight; the question of a third is answered before them."""

    async def main() -> None:
        maker = ListMaker()
        hub = Hub(maker, server_settings())
        sessions = [opened(hub) for _ in range(3)]
        maker.gate.clear()
        order: list[str] = []
        maker.prepare = lambda engine: _note(engine, order, f"e{len(maker.made)}")
        for session, _ in sessions[:2]:
            for _ in range(6):
                await send_frame(session)
        asker, heard = sessions[2]
        question = asker.new_question("now?")
        asker.ask(question, in_order=False)
        maker.gate.set()
        await heard.until(lambda h: question.id in h.answers)
        for _, other in sessions[:2]:
            await other.until(lambda h: len(h.settled) == 6)
        answer = [at for at, what in enumerate(order) if what.endswith(("begin", "step", "end"))]
        frames_before = [what for what in order[: answer[-1]] if what.endswith("frames")]
        assert len(frames_before) <= 2, order
        await hub.close()

    run_clean(main())


def _note(engine: ListEngine, order: list[str], name: str) -> None:
    called = engine._called

    def noting(what: str) -> None:
        called(what)
        order.append(f"{name} {what}")

    engine._called = noting  # type: ignore[method-assign]


def test_frames_beyond_the_queue_are_dropped_and_counted_and_each_has_one_outcome() -> None:
    async def main() -> None:
        maker = ListMaker()
        maker.gate.clear()
        hub = Hub(maker, server_settings(queue_frames=2))
        session, heard = opened(hub)
        numbers = [await send_frame(session) for _ in range(6)]
        await heard.until(lambda h: len(h.settled) == 3)
        maker.gate.set()
        await heard.until(lambda h: len(h.settled) == 6)
        assert [n for n in numbers if heard.settled[n] == ("dropped", "drop-oldest")] == [1, 2, 3]
        assert session.stats()["frames"]["reasons"] == {"drop-oldest": 3}
        await hub.close()

    run_clean(main())


def test_a_frame_the_engine_refuses_is_an_error_and_the_session_goes_on() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: engine.failures.update({0: BudgetError("too long")}))
        hub = Hub(maker, server_settings())
        session, heard = opened(hub)
        await send_frame(session)
        await heard.until(lambda h: len(h.settled) == 1)
        await send_frame(session)
        await heard.until(lambda h: len(h.settled) == 2)
        assert heard.settled == {0: ("error", "failed"), 1: ("accepted", None)}
        await hub.close()

    run_clean(main())


def test_a_broken_engine_ends_its_session_alone() -> None:
    async def main() -> None:
        maker = ListMaker()
        hub = Hub(maker, server_settings())
        (broken, heard), (whole, heard_whole) = opened(hub), opened(hub)
        maker.prepare = lambda engine: engine.failures.update({0: ZeroDivisionError("a bug")})
        question = broken.new_question("?")
        broken.ask(question, in_order=False)
        await heard.until(lambda h: bool(h) and isinstance(h[-1], SessionClosed))
        await broken.closed()
        assert heard.answers[question.id].reason is FinishReason.FAILED
        assert isinstance(broken.failure, ZeroDivisionError)
        assert not broken.takes_frames
        maker.prepare = lambda engine: None
        await send_frame(whole)
        await heard_whole.until(lambda h: h.settled == {0: ("accepted", None)})
        late = await send_frame(broken)
        assert heard.settled[late] == ("dropped", "ending")
        with pytest.raises(SessionError, match="closed"):
            broken.ask(broken.new_question("?"), in_order=False)
        assert not broken._impatient
        await hub.close()

    run_clean(main())


def test_cancelling_ends_waiting_and_running_answers() -> None:
    async def main() -> None:
        maker = ListMaker()
        hub = Hub(maker, server_settings())
        session, heard = opened(hub)
        maker.prepare = lambda engine: setattr(engine, "tokens_per_answer", 1_000_000)
        running, waiting = session.new_question("1"), session.new_question("2")
        session.ask(running, in_order=False)
        session.ask(waiting, in_order=False)
        await heard.until(lambda h: any(isinstance(e, AnswerStarted) for e in h))
        session.cancel(waiting.id)
        session.cancel(running.id)
        session.cancel("unknown")
        await heard.until(lambda h: len(h.answers) == 2)
        assert {a.reason for a in heard.answers.values()} == {FinishReason.CANCELLED}
        assert not session._lane.urgent
        await hub.close()

    run_clean(main())


def test_a_patient_question_does_not_hurry_its_session_and_an_impatient_one_does() -> None:
    async def main() -> None:
        maker = ListMaker()
        hub = Hub(maker, server_settings())
        session, heard = opened(hub)
        maker.gate.clear()
        watch, person = session.new_question("watch?", aside=True), session.new_question("person?")
        session.ask(watch, in_order=False, patient=True)
        assert not session._lane.urgent
        session.ask(person, in_order=False)
        assert session._lane.urgent
        maker.gate.set()
        await heard.until(lambda h: len(h.answers) == 2)
        assert not session._lane.urgent
        await hub.close()

    run_clean(main())


def test_sessions_are_refused_by_number_and_by_memory_and_let_in_again() -> None:
    async def main() -> None:
        maker = ListMaker(session_bytes=100, free=350)
        hub = Hub(maker, server_settings(sessions=2), retry_after_s=lambda: 7)
        first, heard = opened(hub)
        second, _ = opened(hub)
        with pytest.raises(AdmissionError, match=r"2 sessions are open, the most allowed; try again in 7 s") as refused:
            opened(hub)
        assert refused.value.retry_after_s == 7
        second.end()
        await second.closed()
        await asyncio.sleep(0)
        maker.free = 50
        with pytest.raises(AdmissionError, match="are left beside 1 others"):
            opened(hub)
        maker.free = 350
        third, _ = opened(hub)
        assert third.id != second.id
        hub.is_draining = True
        with pytest.raises(AdmissionError, match="about to stop"):
            opened(hub)
        assert isinstance(first.options, SessionOptions)
        assert not heard
        await hub.close()

    run_clean(main())


def test_promised_memory_is_not_promised_again() -> None:
    async def main() -> None:
        hub = Hub(ListMaker(session_bytes=100, free=350), server_settings(sessions=10))
        assert hub.admission.most_sessions == 3
        for _ in range(3):
            opened(hub)
        with pytest.raises(AdmissionError, match="beside 3 others"):
            opened(hub)
        await hub.close()

    run_clean(main())


def test_options_can_be_changed_until_the_stream_begins() -> None:
    async def main() -> None:
        maker = ListMaker()
        hub = Hub(maker, server_settings())
        session, heard = opened(hub, options=SessionOptions(budget_tokens=20))
        session.configure(SessionOptions("be kind", 30))
        await send_frame(session)
        await heard.until(lambda h: len(h.settled) == 1)
        assert maker.options == [SessionOptions("be kind", 30)]
        with pytest.raises(SessionError, match="has begun"):
            session.configure(SessionOptions())
        with pytest.raises(BudgetError):
            opened(hub, options=SessionOptions(budget_tokens=10**6))
        assert hub.admission.sessions == 1, "a refused session takes no place"
        await hub.close()

    run_clean(main())


def test_closing_lets_answers_end_but_not_for_ever() -> None:
    async def main(tokens: int, patience_s: float) -> FinishReason:
        maker = ListMaker(prepare=lambda engine: setattr(engine, "tokens_per_answer", tokens))
        hub = Hub(maker, server_settings())
        session, heard = opened(hub)
        question = session.new_question("?")
        session.ask(question, in_order=False)
        await hub.close(patience_s)
        await hub.close(patience_s)
        assert isinstance(heard[-1], SessionClosed)
        return heard.answers[question.id].reason

    assert asyncio.run(main(50, 30.0)) is FinishReason.STOP
    assert asyncio.run(main(10**9, 0.01)) is FinishReason.CANCELLED


def test_waiting_sessions_lose_no_frame_and_read_the_same_each_time() -> None:
    async def main() -> list[str]:
        maker = ListMaker()
        hub = Hub(maker, server_settings(queue_frames=3))
        session, heard = opened(hub, waits=True)
        for _ in range(9):
            await session.frame(session.number_frame(), PIXELS, session.now_ns())
        await session.text_in_turn("a text that is longer than one step", 5)
        await heard.until(lambda h: len(h.settled) == 9)
        assert set(heard.settled.values()) == {("accepted", None)}
        await hub.close(5)
        return maker.made[0].memory

    memories = [asyncio.run(main()) for _ in range(3)]
    assert memories[0][:3] == ["frames 0", "frames 1 2", "frames 3 4"]
    assert memories[0] == memories[1] == memories[2]


def test_free_memory_is_returned_when_the_last_session_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    open_sessions: list[int] = []

    async def main() -> None:
        hub = Hub(ListMaker(), server_settings())
        monkeypatch.setattr(module, "return_free_memory", lambda: open_sessions.append(len(hub.sessions)))
        sessions = [opened(hub)[0] for _ in range(3)]
        for session in sessions:
            session.end()
            await session.closed()
        await hub.close()

    run_clean(main())
    assert open_sessions == [0]


def test_while_one_session_is_copied_others_have_their_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is copied in parts, so that another session waits for one of them at most."""
    monkeypatch.setattr(saved, "StateCopy", partial(StateCopy, part_bytes=1))
    order: list[str] = []
    go_on = StateCopy.go_on

    def slow(self: StateCopy) -> None:
        order.append("part")
        go_on(self)

    monkeypatch.setattr(StateCopy, "go_on", slow)

    async def main() -> None:
        maker = ListMaker()
        hub = Hub(maker, server_settings())
        (one, heard_one), (two, heard_two) = opened(hub), opened(hub)
        await send_frame(one)
        await heard_one.until(lambda h: len(h.settled) == 1)
        await send_frame(two)
        await heard_two.until(lambda h: len(h.settled) == 1)
        heard_two.clear()
        maker.gate.clear()
        two.ask(two.new_question("?"), in_order=False)
        copied = asyncio.get_running_loop().create_future()
        one.copy_engine(copied.set_result)
        maker.gate.set()
        await heard_two.until(lambda h: len(h.answers) == 1)
        order.append("answer")
        copy = await copied
        assert isinstance(copy, StateCopy)
        assert copy.state.facts["memory"] == ["frames 0"]
        await hub.close()

    run_clean(main())
    assert order.count("part") == len("frames 0") + 1
    assert order.index("answer") < len(order) - 1, "the answer did not wait for the whole copy"


def test_who_asks_for_a_copy_of_a_session_that_breaks_or_has_ended_is_told() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: engine.failures.update({0: ZeroDivisionError("a bug")}))
        hub = Hub(maker, server_settings())
        session, _ = opened(hub)
        maker.gate.clear()
        await send_frame(session)
        told: list[object] = []
        session.copy_engine(told.append)
        maker.gate.set()
        await session.closed()
        session.copy_engine(told.append)
        assert [type(one) for one in told] == [SessionError, SessionError]
        await hub.close()

    run_clean(main())


def test_a_closed_session_leaves_nothing_behind() -> None:
    async def main() -> None:
        engines: list[weakref.ref[ListEngine]] = []

        class Forgetful(ListMaker):
            def make(self, options: SessionOptions) -> ListEngine:
                engine = ListEngine()
                engines.append(weakref.ref(engine))
                return engine

        hub = Hub(Forgetful(), server_settings())
        for _ in range(5):
            session, heard = opened(hub)
            await send_frame(session)
            session.ask(session.new_question("?"), in_order=True)
            session.end()
            await session.closed()
            del session, heard
            await asyncio.sleep(0)
        while hub.admission.sessions:
            await asyncio.sleep(0.001)
        gc.collect()
        assert len(engines) == 5
        assert [one() for one in engines] == [None] * 5
        await hub.close()

    run_clean(main())
