"""Live sources on virtual time: sampling by arrival, reconnects, gaps that stay visible."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from support.media import picture
from support.playing import Seen

import inf_stream.sources.live as live_room
from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.base.events import FrameArrived, SourceNotice
from inf_stream.sources.live import Connection, LiveFeed, LiveSource, Shot, pause_s

SECOND_NS = 1_000_000_000


class Clock:
    """Time that passes only when someone waits or a picture arrives."""

    def __init__(self) -> None:
        self.ns = 77 * SECOND_NS
        self.pauses: list[float] = []
        self.closing = False

    def now_ns(self) -> int:
        return self.ns

    def wait(self, s: float) -> bool:
        if s:
            self.pauses.append(s)
            self.ns += round(s * SECOND_NS)
        return self.closing


@dataclass
class FakeConnection(Connection):
    """Gives pictures of the numbers, one each `interval_s`, and then is lost or ends."""

    clock: Clock
    numbers: range
    interval_s: float = 0.25
    error: str | None = "cable pulled"
    on_shot: Callable[[int], None] = lambda number: None
    closed: int = 0
    converted: list[int] = field(default_factory=list)

    def describe(self) -> str:
        return "fake"

    def shots(self) -> Iterator[Shot]:
        for number in self.numbers:
            self.clock.ns += round(self.interval_s * SECOND_NS)
            self.on_shot(number)
            yield lambda size, number=number: (self.converted.append(number), picture(number))[1]
        if self.error is not None:
            raise SourceError(self.error)

    def close(self) -> None:
        self.closed += 1


def feed(
    clock: Clock, first: Connection, later: list[Connection | str], *, fps: float = 1.0, reconnects: int = 3
) -> LiveFeed:
    """A feed whose next connections are `later`, a text standing for a failure to connect."""

    def connect() -> Connection:
        found = later.pop(0) if later else "nobody there"
        if isinstance(found, str):
            raise SourceError(found)
        return found

    settings = SourceSettings(fps=fps, reconnects=reconnects)
    made = LiveFeed(first, connect, "cam", settings, clock.now_ns, clock.wait)
    made.start()
    return made


def test_frames_are_sampled_and_stamped_by_arrival():
    clock = Clock()
    first = FakeConnection(clock, range(1, 13))
    seen = Seen(feed(clock, first, [], reconnects=0).events())
    assert seen.numbers == [1, 4, 8, 12]
    assert seen.times_ms == [250, 1000, 2000, 3000]
    assert [f.number for f in seen.frames] == [0, 1, 2, 3]
    assert first.converted == [1, 4, 8, 12]
    assert first.closed == 1


def test_lost_source_comes_back_and_the_gap_stays():
    clock = Clock()
    connections = [FakeConnection(clock, range(0, 4)), FakeConnection(clock, range(100, 104))]
    seen = Seen(feed(clock, connections[0], ["no route", "no route", connections[1]]).events())
    assert seen.times_ms == [250, 1000, 4750, 5000]
    assert seen.numbers == [0, 3, 100, 101]
    assert clock.pauses[:3] == [0.5, 1.0, 2.0]
    assert seen.notices[:4] == [
        "'cam' is lost (cable pulled); attempt 1 of 3 in 0.5 s",
        "'cam' is lost (no route); attempt 2 of 3 in 1 s",
        "'cam' is lost (no route); attempt 3 of 3 in 2 s",
        "'cam' is back after 3.5 s",
    ]
    assert [c.closed for c in connections] == [1, 1]


def test_lost_for_good_is_a_notice_and_the_end():
    clock = Clock()
    seen = Seen(feed(clock, FakeConnection(clock, range(4)), [], reconnects=2).events())
    assert len(seen.frames) == 2
    assert seen.notices[-1] == "'cam' is lost for good (nobody there); the stream ends here (source.reconnects)"
    assert len(seen.notices) == 3


def test_no_reconnects():
    clock = Clock()
    seen = Seen(feed(clock, FakeConnection(clock, range(4)), [], reconnects=0).events())
    assert len(seen.notices) == 1
    assert clock.pauses == []


def test_stream_that_ends_without_an_error_is_tried_again():
    clock = Clock()
    again = FakeConnection(clock, range(5, 9))
    seen = Seen(feed(clock, FakeConnection(clock, range(4), error=None), [again], reconnects=1).events())
    assert "no more pictures come" in seen.notices[0]
    assert seen.numbers[-1] in range(5, 9)


def test_connections_that_break_at_once_use_up_the_attempts():
    clock = Clock()
    later: list[Connection | str] = [FakeConnection(clock, range(2)) for _ in range(50)]
    Seen(feed(clock, FakeConnection(clock, range(2)), later, reconnects=5).events())
    assert len(later) == 45
    assert clock.pauses == [0.5, 1, 2, 4, 8]


def test_connection_that_held_for_a_while_renews_the_attempts():
    clock = Clock()
    later: list[Connection | str] = [FakeConnection(clock, range(60)) for _ in range(5)]
    Seen(feed(clock, FakeConnection(clock, range(60)), later, reconnects=1).events())
    assert later == []
    assert clock.pauses == [0.5] * 6


def test_pauses_grow_to_half_a_minute():
    assert [pause_s(n) for n in (1, 2, 3, 7, 8, 100_000)] == [0.5, 1, 2, 30, 30, 30]


def test_pictures_before_the_start_are_forgotten():
    clock = Clock()
    settings = SourceSettings(reconnects=0)
    started = []

    def start_at_third(number: int) -> None:
        if number == 3 and not started:
            started.append(clock.ns)
            made.start()
            made.start()

    first = FakeConnection(clock, range(1, 8), on_shot=start_at_third)
    made = LiveFeed(first, lambda: first, "cam", settings, clock.now_ns, clock.wait)
    seen = Seen(made.events())
    assert seen.numbers == [3, 7]
    assert seen.times_ms == [0, 1000]


def test_closing_between_samples_lets_go_of_the_connection():
    clock = Clock()

    def close_at_third(number: int) -> None:
        clock.closing = number >= 3

    first = FakeConnection(clock, range(1, 100), on_shot=close_at_third)
    seen = Seen(feed(clock, first, []).events())
    assert seen.numbers == [1]
    assert seen.notices == []
    assert first.closed == 1


def test_closing_while_waiting_to_reconnect():
    clock = Clock()
    events = feed(clock, FakeConnection(clock, range(2)), [FakeConnection(clock, range(9))]).events()
    assert isinstance(next(events), FrameArrived)
    assert isinstance(next(events), SourceNotice)
    clock.closing = True
    assert list(events) == []


def test_picture_that_cannot_be_converted_counts_as_lost():
    clock = Clock()

    class Broken(FakeConnection):
        def shots(self) -> Iterator[Shot]:
            def fail(size: object) -> None:
                raise SourceError("broken picture")

            yield fail

    seen = Seen(feed(clock, Broken(clock, range(1)), [FakeConnection(clock, range(2))], reconnects=1).events())
    assert "broken picture" in seen.notices[0]
    assert seen.numbers == [1]


# ---- the source, with its thread -------------------------------------------------------------------


class Camera(Connection):
    """Pictures without end, until it hangs."""

    def __init__(self) -> None:
        self.hang, self.hung = threading.Event(), threading.Event()
        self.release, self.closed = threading.Event(), threading.Event()

    def describe(self) -> str:
        return "camera"

    def shots(self) -> Iterator[Shot]:
        while not self.hang.wait(0.001):
            yield lambda size: picture(5) if size is None else picture(5, *size(160, 96))
        self.hung.set()
        self.release.wait(30)
        raise SourceError("released")

    def close(self) -> None:
        self.closed.set()


def live(camera: Camera) -> LiveSource:
    return LiveSource(camera, pytest.fail, "cam", SourceSettings(fps=240.0, reconnects=0), time.monotonic_ns)


def test_facts():
    with live(Camera()) as source:
        assert source.live
        assert source.duration_ns is None
        assert source.describe() == "camera"


def test_frame_size_set_after_opening_reaches_the_reading_thread():
    with live(Camera()) as source:
        source.frame_size = lambda width, height: (80, 48)
        event = next(source)
        assert isinstance(event, FrameArrived)
        assert event.frame.pixels.shape == (48, 80, 3)


def test_close_ends_a_read_that_hangs_at_once():
    camera = Camera()
    source = live(camera)
    seen: list[Seen] = []
    reader = threading.Thread(target=lambda: seen.append(Seen(source)))
    reader.start()
    camera.hang.set()
    assert camera.hung.wait(10)
    source.close()
    source.close()
    reader.join(10)
    assert seen
    assert seen[0].notices == []
    assert not camera.closed.is_set()
    camera.release.set()
    assert camera.closed.wait(10)


def test_lost_for_good_ends_the_source():
    camera = Camera()
    with live(camera) as source:
        assert isinstance(next(source), FrameArrived)
        camera.hang.set()
        camera.release.set()
        assert "lost for good (released)" in Seen(source).notices[-1]
        assert list(source) == []


def test_close_ends_a_pause_before_reconnecting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_room, "FIRST_PAUSE_S", 60.0)
    monkeypatch.setattr(live_room, "LONGEST_PAUSE_S", 60.0)
    camera = Camera()
    source = LiveSource(camera, pytest.fail, "cam", SourceSettings(reconnects=1), time.monotonic_ns)
    camera.hang.set()
    camera.release.set()
    assert "attempt 1 of 1 in 60 s" in next(e for e in source if isinstance(e, SourceNotice)).message
    source.close()
    assert source._pump.join(10)
