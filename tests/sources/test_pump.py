"""Work in other threads: handed over in order, bounded, called off at any moment."""

import contextlib
import threading
from collections.abc import Generator

import pytest
from support.media import picture
from support.playing import Seen

from inf_stream.base.errors import SourceError
from inf_stream.base.events import Frame, FrameArrived
from inf_stream.sources import Source, SourceEvent
from inf_stream.sources.pump import Pump, PumpedSource, within


def drain(pump: Pump[int]) -> list[int]:
    taken = []
    with contextlib.suppress(StopIteration):
        while True:
            taken.append(pump.take())
    return taken


def test_items_in_order_then_the_end_for_ever():
    pump = Pump((i for i in range(50)), "numbers")
    assert drain(pump) == list(range(50))
    assert drain(pump) == []
    assert pump.join(10)


def test_error_of_the_iterator_comes_after_its_items():
    def items() -> Generator[int, None, None]:
        yield 1
        yield 2
        raise SourceError("lost")

    pump = Pump(items(), "numbers")
    assert [pump.take(), pump.take()] == [1, 2]
    for _ in range(2):
        with pytest.raises(SourceError, match="lost"):
            pump.take()


def test_runs_only_so_far_ahead():
    made: list[int] = []
    third = threading.Event()

    def items() -> Generator[int, None, None]:
        for i in range(10):
            made.append(i)
            if i == 3:
                third.set()
            yield i

    pump = Pump(items(), "numbers", room=2)
    assert pump.take() == 0
    assert third.wait(10)
    assert len(made) <= 4
    pump.stop()


def test_stop_closes_the_iterator_and_ends_the_thread():
    closed = threading.Event()

    def items() -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    pump = Pump(items(), "numbers")
    assert pump.take() == 1
    pump.stop()
    assert closed.wait(10)
    assert pump.join(10)
    with pytest.raises(StopIteration):
        pump.take()


def test_stop_wakes_whoever_waits():
    release = threading.Event()
    ends: list[list[int]] = []

    def items() -> Generator[int, None, None]:
        release.wait(30)
        yield 1

    pump = Pump(items(), "numbers")
    waiter = threading.Thread(target=lambda: ends.append(drain(pump)))
    waiter.start()
    pump.stop()
    waiter.join(10)
    assert ends == [[]]
    assert not pump.join(0)
    release.set()
    assert pump.join(10)


# ---- PumpedSource ----------------------------------------------------------------------------------


class Slow(Source):
    """Three frames, then a read that hangs."""

    def __init__(self) -> None:
        self.release, self.closed = threading.Event(), threading.Event()
        self.left = 3

    @property
    def duration_ns(self) -> int:
        return 3

    def describe(self) -> str:
        return "slow"

    def __next__(self) -> SourceEvent:
        if not self.left:
            self.release.wait(30)
            raise StopIteration
        self.left -= 1
        pixels = picture(1, *self.frame_size(160, 96)) if self.frame_size else picture(1)
        return FrameArrived(Frame(pixels, 0, 0))

    def close(self) -> None:
        self.closed.set()


def test_pumped_source_passes_everything_on():
    slow = Slow()
    with PumpedSource(slow, "slow") as source:
        assert (source.live, source.duration_ns, source.describe()) == (False, 3, "slow")
        source.frame_size = lambda width, height: (80, 48)
        slow.release.set()
        assert [f.pixels.shape for f in Seen(source).frames] == [(48, 80, 3)] * 3
    assert slow.closed.wait(10)


def test_pumped_source_closes_while_its_read_hangs():
    slow = Slow()
    source = PumpedSource(slow, "slow")
    assert [type(next(source)) for _ in range(3)] == [FrameArrived] * 3
    ends: list[Seen] = []
    waiter = threading.Thread(target=lambda: ends.append(Seen(source)))
    waiter.start()
    source.close()
    waiter.join(10)
    assert len(ends) == 1
    assert not slow.closed.is_set()
    slow.release.set()
    assert slow.closed.wait(10)


def test_pumped_source_closed_before_it_was_read():
    slow = Slow()
    source = PumpedSource(slow, "slow")
    source.close()
    assert slow.closed.is_set()
    assert list(source) == []


# ---- within ----------------------------------------------------------------------------------------


def test_result_in_time():
    assert within(10, lambda: 5, "work", pytest.fail) == 5


def test_error_in_time():
    def work() -> int:
        raise SourceError("no")

    with pytest.raises(SourceError, match=r"^no$"):
        within(10, work, "work", pytest.fail)


def test_result_that_comes_too_late_is_undone():
    release, undone = threading.Event(), threading.Event()

    def work() -> int:
        release.wait(30)
        return 5

    with pytest.raises(SourceError, match=r"'work' does not answer within 0\.01 s \(source\.connect_timeout_s\)"):
        within(0.01, work, "work", lambda result: undone.set() if result == 5 else None)
    release.set()
    assert undone.wait(10)


def test_error_that_comes_too_late_is_forgotten():
    release, failed = threading.Event(), threading.Event()

    def work() -> int:
        release.wait(30)
        failed.set()
        raise SourceError("too late")

    with pytest.raises(SourceError, match="does not answer"):
        within(0.01, work, "work", pytest.fail)
    release.set()
    assert failed.wait(10)
