import asyncio
import os
import signal
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from inf_stream.app.guard import FirstFrameGuard, StreamRefused
from inf_stream.app.interrupts import on_interrupt
from inf_stream.app.terminal import Lines
from inf_stream.base.errors import BudgetError
from inf_stream.base.events import Evidence, Frame, Question
from inf_stream.engine.protocol import AnswerStep

FRAMES = (Frame(np.zeros((2, 2, 3), np.uint8), 0, 0),)


class FakeEngine:
    """Refuses frames as told, and notes its calls."""

    frames_per_step = 3
    characters_per_step = 7

    def __init__(self, *refusals: bool):
        self.refusals = list(refusals)
        self.calls: list[str] = []

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        if self.refusals.pop(0):
            raise BudgetError("a frame has 99 tokens")

    def ingest_text(self, text: str, at_ns: int) -> None:
        self.calls.append(f"text {text} {at_ns}")

    def begin_answer(self, question: Question) -> None:
        self.calls.append(f"begin {question.id}")

    def step_answer(self) -> AnswerStep:
        return AnswerStep("x")

    def end_answer(self) -> int:
        return 5

    def evidence(self) -> tuple[Evidence, ...]:
        return ()

    def stats(self) -> dict[str, float | int | str]:
        return {"tokens_seen": 1}


def test_a_first_frame_that_is_refused_ends_the_stream() -> None:
    guard = FirstFrameGuard(FakeEngine(True))
    with pytest.raises(StreamRefused, match="99 tokens") as caught:
        guard.ingest_frames(FRAMES)
    assert isinstance(caught.value.reason, BudgetError)


def test_after_a_success_a_refusal_is_only_that_frame() -> None:
    guard = FirstFrameGuard(FakeEngine(False, True, False))
    guard.ingest_frames(FRAMES)
    with pytest.raises(BudgetError):
        guard.ingest_frames(FRAMES)
    guard.ingest_frames(FRAMES)


def test_everything_else_passes_through() -> None:
    engine = FakeEngine()
    guard = FirstFrameGuard(engine)
    assert (guard.frames_per_step, guard.characters_per_step) == (3, 7)
    guard.ingest_text("a", 1)
    guard.begin_answer(Question("q", "?", 0))
    assert engine.calls == ["text a 1", "begin q"]
    assert guard.step_answer().text == "x"
    assert guard.end_answer() == 5
    assert guard.stats() == {"tokens_seen": 1}


def test_lines_come_in_order_and_no_faster_than_they_are_taken() -> None:
    class Pipe:
        def __init__(self, text: str):
            self.lines = text.splitlines(keepends=True)
            self.read = 0

        def readline(self, limit: int) -> str:
            self.read += 1
            return self.lines.pop(0) if self.lines else ""

    async def main() -> tuple[list[str | None], int]:
        pipe = Pipe("a\nb\r\n\nlast")
        lines = Lines(pipe)
        first = await lines.next()
        await asyncio.sleep(0)
        return [first, *[await lines.next() for _ in range(4)]], pipe.read

    assert asyncio.run(main()) == (["a", "b", "", "last", None], 5)


def test_an_untaken_line_holds_the_reader_back() -> None:
    read = []

    class Endless:
        def readline(self, limit: int) -> str:
            read.append(1)
            return "again\n"

    async def main() -> None:
        lines = Lines(Endless(), ahead=2)
        for _ in range(3):
            assert await lines.next() == "again"

    asyncio.run(main())
    assert len(read) <= 5


def test_a_terminal_that_is_closed_is_the_end() -> None:
    class Closed:
        def readline(self, limit: int) -> str:
            raise OSError(5, "Input/output error")

    async def main() -> str | None:
        return await Lines(Closed()).next()

    assert asyncio.run(main()) is None


@pytest.mark.parametrize("error", [RuntimeError("of all things"), ZeroDivisionError("of all things")])
def test_what_breaks_the_reader_reaches_whoever_waits_for_a_line(error: Exception) -> None:
    class Broken:
        def readline(self, limit: int) -> str:
            raise error

    async def main() -> None:
        with pytest.raises(type(error), match="of all things"):
            await asyncio.wait_for(Lines(Broken()).next(), 10)

    asyncio.run(main())


def test_lines_after_the_loop_has_gone_are_nobodys() -> None:
    loop_gone, was_read = threading.Event(), threading.Event()

    class Late:
        def readline(self, limit: int) -> str:
            assert loop_gone.wait(10)
            was_read.set()
            return "too late\n"

    async def main() -> None:
        Lines(Late())

    before = set(threading.enumerate())
    asyncio.run(main())
    (reader,) = set(threading.enumerate()) - before
    loop_gone.set()
    assert was_read.wait(10)
    reader.join(10)
    assert not reader.is_alive()


def test_an_interrupt_is_an_event_of_the_loop_while_the_block_runs() -> None:
    async def main() -> int:
        seen = 0
        arrived = asyncio.Event()

        def handle() -> None:
            nonlocal seen
            seen += 1
            arrived.set()

        with on_interrupt(handle, signal.SIGINT):
            for _ in range(2):
                arrived.clear()
                os.kill(os.getpid(), signal.SIGINT)
                await arrived.wait()
        return seen

    assert asyncio.run(main()) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_the_loop_knows_no_signals_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> str:
        def refuse(*_: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(asyncio.get_running_loop(), "add_signal_handler", refuse)
        with on_interrupt(lambda: None, signal.SIGINT):
            return "ran"

    assert asyncio.run(main()) == "ran"
