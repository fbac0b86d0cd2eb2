"""Addresses on loopback: HTTP, RTSP and UDP, alive, silent, dying, and dead."""

import itertools
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import av
import pytest
from support.media import numbered_clip, picture
from support.playing import Seen
from support.servers import free_port, http, http_file, http_loop, http_rest, rtsp, serving, silent

import inf_stream.sources.live as live
from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.base.events import FrameArrived, SourceNotice
from inf_stream.sources import Source, SourceEvent, open_source
from inf_stream.sources.address import SCHEMES, without_password

TENTH_NS = 100_000_000
QUICK_S = 0.3
PICTURES = [picture(i) for i in range(60)]


def ticking(step_ns: int = TENTH_NS // 2) -> Callable[[], int]:
    """A clock that moves on by `step_ns` whenever it is looked at."""
    ticks = itertools.count(0, step_ns)
    return lambda: next(ticks)


def settings(*, timeout_s: float = 10.0, reconnects: int = 0, fps: float = 1.0) -> SourceSettings:
    return SourceSettings(fps=fps, connect_timeout_s=timeout_s, reconnects=reconnects)


def refusal(url: str, timeout_s: float = QUICK_S) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(url, settings(timeout_s=timeout_s))
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 30, options={"movflags": "faststart"})


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A piece of a stream that one can join at any time."""
    return numbered_clip(tmp_path_factory.mktemp("clip") / "clip.ts", 60).read_bytes()


# ---- dead and silent -------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp", "tcp"])
def test_nobody_listens(scheme: str):
    assert "connection refused" in refusal(f"{scheme}://127.0.0.1:{free_port()}/x", timeout_s=5.0)


@pytest.mark.parametrize("scheme", ["http", "https", "rtsp", "rtmp", "tcp"])
def test_server_that_accepts_and_never_answers(scheme: str):
    with serving(silent) as port:
        message = refusal(f"{scheme}://127.0.0.1:{port}/x")
    assert "does not answer within 0.3 s" in message


def test_nothing_arrives_by_udp():
    message = refusal(f"udp://127.0.0.1:{free_port()}")
    assert "does not answer within 0.3 s" in message


def test_server_that_falls_silent_while_it_answers(clip: Path):
    with serving(http(clip.read_bytes()[:500], headers="Content-Length: 90000\r\n", then=silent)) as port:
        message = refusal(f"http://127.0.0.1:{port}/clip.mp4")
    assert "does not answer within 0.3 s" in message


def test_page_that_does_not_exist():
    with serving(http(b"gone", status="404 Not Found")) as port:
        assert "404 not found" in refusal(f"http://127.0.0.1:{port}/x", timeout_s=5.0)


def test_web_page_is_no_video():
    with serving(http(b"<html><body>hello</body></html>" * 9, headers="Content-Type: text/html\r\n")) as port:
        assert "cannot be opened" in refusal(f"http://127.0.0.1:{port}/x", timeout_s=5.0)


def test_not_speaking_rtsp():
    with serving(http(b"what?")) as port:
        assert "cannot be opened" in refusal(f"rtsp://127.0.0.1:{port}/x", timeout_s=5.0)


def test_messages_hold_no_password():
    message = refusal(f"rtsp://admin:secret@127.0.0.1:{free_port()}/cam", timeout_s=5.0)
    assert "/cam" in message
    assert "secret" not in message
    assert "admin" not in message
    assert without_password("rtsp://u:p@h:1/x?y=1#z") == "rtsp://h:1/x?y=1#z"
    assert without_password("udp://@239.0.0.1:1234") == "udp://239.0.0.1:1234"


def test_all_schemes_pass_the_door():
    for scheme in SCHEMES:
        with pytest.raises(SourceError, match="names no host"):
            open_source(f"{scheme}://", settings())


# ---- files over HTTP -------------------------------------------------------------------------------


def test_video_of_known_length_plays_by_its_own_times(clip: Path):
    with serving(http_file(clip)) as port:
        url = f"http://127.0.0.1:{port}/clip.mp4"
        with open_source(url, settings(), lambda width, height: (80, 48)) as source:
            assert (source.live, source.duration_ns) == (False, 3_000_000_000)
            assert source.describe() == f"{url} (160 x 96, h264, 00:03)"
            seen = Seen(source)
    assert seen.numbers == [0, 10, 20]
    assert seen.times_ms == [0, 1000, 2000]
    assert {f.pixels.shape for f in seen.frames} == {(48, 80, 3)}


def test_video_whose_size_is_known_is_not_live(tmp_path: Path):
    bare = numbered_clip(tmp_path / "clip.h264", 30, container="h264")
    with serving(http_file(bare)) as port, open_source(f"http://127.0.0.1:{port}/x.h264", settings()) as source:
        assert not source.live
        assert Seen(source).numbers == [0, 10, 20]


def test_connection_that_breaks_in_the_middle_keeps_what_came(clip: Path):
    data = clip.read_bytes()
    visit = http(data[: len(data) * 2 // 3], headers=f"Content-Length: {len(data)}\r\n")
    with serving(visit) as port, open_source(f"http://127.0.0.1:{port}/x", settings(timeout_s=1.0)) as source:
        seen = Seen(source)
    assert seen.numbers == [0, 10]
    assert "cut short" in seen.notices[-1]


def test_connection_that_breaks_in_the_middle_is_taken_up_again(clip: Path):
    data = clip.read_bytes()
    head = f"Content-Length: {len(data)}\r\nAccept-Ranges: bytes\r\n"
    with (
        serving(http(data[: len(data) * 2 // 3], headers=head), http_rest(clip)) as port,
        open_source(f"http://127.0.0.1:{port}/clip.mp4", settings()) as source,
    ):
        seen = Seen(source)
    assert seen.numbers == [0, 10, 20]
    assert seen.notices == []


# ---- live over HTTP, RTSP, UDP ---------------------------------------------------------------------


def read_on(source: Source, enough: threading.Event, frames: int = 3) -> Seen:
    """All events: some frames first, then the rest, after the server was told that they were enough."""
    events: list[SourceEvent] = []
    while len(Seen(events).frames) < frames:
        events.append(next(source))
    enough.set()
    return Seen([*events, *source])


def test_endless_http_stream_is_live(broadcast: bytes):
    enough = threading.Event()
    with (
        serving(http_loop(broadcast, enough)) as port,
        open_source(f"http://127.0.0.1:{port}/live", settings(), now_ns=ticking()) as source,
    ):
        assert source.live
        assert source.duration_ns is None
        seen = read_on(source, enough)
    times = [f.at_ns for f in seen.frames]
    assert times == sorted(set(times))
    assert len(seen.notices) == 1


def test_endless_http_stream_reconnects(broadcast: bytes):
    first, second = threading.Event(), threading.Event()
    with serving(http_loop(broadcast, first), http_loop(broadcast, second)) as port:
        url = f"http://127.0.0.1:{port}/live"
        with open_source(url, settings(reconnects=1), now_ns=ticking()) as source:
            event = next(source)
            first.set()
            while not (isinstance(event, SourceNotice) and "is back" in event.message):
                event = next(source)
            seen = read_on(source, second)
    assert len(seen.frames) >= 3
    assert seen.frames[0].at_ns > event.at_ns
    assert "lost for good" in seen.notices[-1]


def test_rtsp_camera():
    enough = threading.Event()
    with serving(rtsp(PICTURES, enough)) as port:
        url = f"rtsp://admin:secret@127.0.0.1:{port}/cam"
        with open_source(url, settings(), lambda width, height: (80, 48), now_ns=ticking()) as source:
            assert source.live
            assert source.describe() == f"rtsp://127.0.0.1:{port}/cam (live, 160 x 96, h264)"
            seen = read_on(source, enough)
    assert len(set(seen.numbers)) > 1
    assert {f.pixels.shape for f in seen.frames} == {(48, 80, 3)}
    assert "lost for good" in seen.notices[-1]
    assert "secret" not in seen.notices[-1]


def test_rtsp_camera_that_falls_silent_is_lost():
    enough = threading.Event()
    with serving(rtsp(PICTURES, enough, then=silent)) as port:
        url = f"rtsp://127.0.0.1:{port}/cam"
        with open_source(url, settings(timeout_s=1.0), now_ns=ticking()) as source:
            assert "lost for good (no answer in time)" in read_on(source, enough).notices[-1]


def test_reconnecting_to_a_server_that_no_longer_answers():
    enough = threading.Event()
    with serving(rtsp(PICTURES, enough), silent) as port:
        url = f"rtsp://127.0.0.1:{port}/cam"
        with open_source(url, settings(timeout_s=1.0, reconnects=1), now_ns=ticking()) as source:
            last = read_on(source, enough).notices[-1]
    assert "lost for good" in last
    assert "does not answer" in last


def test_close_ends_a_blocked_network_read():
    enough, ended = threading.Event(), threading.Event()
    with serving(rtsp(PICTURES, enough, then=silent)) as port:
        source = open_source(f"rtsp://127.0.0.1:{port}/cam", settings(timeout_s=30.0), now_ns=ticking())
        assert isinstance(next(source), FrameArrived)
        enough.set()
        reader = threading.Thread(target=lambda: (Seen(source), ended.set()))
        reader.start()
        source.close()
        assert ended.wait(10)
        reader.join()


def test_udp_broadcast(broadcast: bytes):
    port, stopped = free_port(), threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            pieces = [broadcast[i : i + 1316] for i in range(0, len(broadcast), 1316)]
            for piece in itertools.cycle(pieces):
                if stopped.wait(0.001):
                    return
                out.sendto(piece, ("127.0.0.1", port))

    sender = threading.Thread(target=send)
    with ExitStack() as stack:
        stack.callback(sender.join)
        stack.callback(stopped.set)
        sender.start()
        source = stack.enter_context(open_source(f"udp://127.0.0.1:{port}", settings(), now_ns=ticking()))
        assert source.live
        assert isinstance(next(source), FrameArrived)


def test_damaged_pictures_of_a_live_stream_are_skipped(broadcast: bytes):
    enough = threading.Event()
    third, half = len(broadcast) // 3, len(broadcast) // 2
    damaged = broadcast[:third] + bytes(half - third) + broadcast[half:]
    with (
        serving(http_loop(damaged, enough)) as port,
        open_source(f"http://127.0.0.1:{port}/live", settings(), now_ns=ticking()) as source,
    ):
        seen = read_on(source, enough, frames=20)
    assert len(seen.notices) == 1


def test_picture_that_cannot_be_converted_is_a_lost_connection(broadcast: bytes, monkeypatch: pytest.MonkeyPatch):
    from inf_stream.sources.shaping import Shaper

    def fail(*args: object) -> None:
        raise av.error.ConnectionResetError(104, "Connection reset")

    monkeypatch.setattr(Shaper, "shape", fail)
    with serving(http_loop(broadcast, threading.Event())) as port:
        url = f"http://127.0.0.1:{port}/live"
        with open_source(url, settings(), now_ns=ticking()) as source:
            assert Seen(source).notices == [
                f"'{url}' is lost for good (connection reset); the stream ends here (source.reconnects)"
            ]
