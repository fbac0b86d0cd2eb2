"""The watcher: alerts with their times and pictures, from cameras and servers that come and go."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import link
import numpy as np
import pytest
from rtsp_watcher import program
from support.demo_clients import Ran, quick_pauses, run_client
from support.media import number_of, numbered_clip, picture
from support.servers import free_port, rtsp, serving
from support.threaded import SayingEngine, SayingMaker, threaded_server

from inf_stream.base.errors import SourceError
from inf_stream.sources.player import Player as VideoPlayer

GST_SERVER = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    "( videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=96,framerate=10/1 "
    "! jpegenc ! rtpjpegpay name=pay0 )"
)
server.get_mount_points().add_factory("/door", factory)
assert server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin") or ""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("inf_stream.sources.live.FIRST_PAUSE_S", 0.0)
    with quick_pauses(monkeypatch) as patch:
        yield patch


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two seconds, ten pictures a second."""
    return numbered_clip(tmp_path / "clip.mp4", 20, fps=10)


def from_frame(number: int) -> SayingMaker:
    """No until so many frames were taken in, then yes."""
    return SayingMaker(say=lambda engine, _question: "Yes, indeed." if engine.frames >= number else "No.")


def watch(capsys: pytest.CaptureFixture[str], source: object, address: str, *words: object) -> Ran:
    return run_client(
        capsys, program, "--source", source, "--url", address, "--fps", 10, "--every", 0.1, *words
    )  # fmt: skip


def test_an_alert_has_its_times_its_evidence_and_its_picture(
    capsys: pytest.CaptureFixture[str], clip: Path, tmp_path: Path
) -> None:
    began = datetime.now(timezone.utc)

    def say(engine: SayingEngine, _question: str) -> str:
        if engine.frames < 8:
            return "No."
        time.sleep(0.3)  # more pictures come meanwhile
        return "Yes, indeed."

    with threaded_server(SayingMaker(say=say), watch_interval_s=0.1) as server:
        ran = watch(capsys, clip, server.address, "--watch", "Dog?", "--save", tmp_path / "alerts", "--json")
    assert ran.status == 0, ran.err
    (line,) = ran.out
    alert = json.loads(line)
    assert (alert["watch"], alert["answer"]) == ("Dog?", "Yes, indeed.")
    assert alert["evidence"] == [{"at_s": 0.0, "share": 0.5}]
    assert began.timestamp() - 1 <= datetime.fromisoformat(alert["at"]).timestamp() <= time.time()
    assert alert["stream_s"] >= 0.7, "not before the eighth picture"
    kept = cv2.imread(alert["picture"])
    assert number_of(kept[:, :, ::-1]) == round(alert["stream_s"] * 10), "the one it is about"


def test_an_alert_for_people(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    with threaded_server(from_frame(1), watch_interval_s=0.1) as server:
        ran = watch(capsys, clip, server.address, "--watch", "Dog?", "--watch", "Cat?")
    assert len(ran.out) == 2, "once each, as long as it goes on"
    pattern = r"\d{4}-\d\d-\d\dT[\d:+-]+  stream 00:0\d  (Dog|Cat)\?  Yes, indeed\.  because of 00:00 \(50%\)"
    assert {re.fullmatch(pattern, line)[1] for line in ran.out} == {"Dog", "Cat"}  # type: ignore[index]


def test_what_is_asked_and_expected(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    maker = SayingMaker(say=lambda _engine, _question: "None at all")
    with threaded_server(maker, watch_interval_s=0.1) as server:
        ran = watch(capsys, clip, server.address, "--watch", "How many?", "--expect", "none")
    assert len(ran.out) == 1
    assert {question.text for question in maker.asked} == {"How many?"}
    assert all(question.aside for question in maker.asked)


def test_only_the_latest_pictures_are_kept(capsys: pytest.CaptureFixture[str], clip: Path, tmp_path: Path) -> None:
    def say(engine: SayingEngine, _question: str) -> str:
        return "Yes." if len(engine.asked) % 2 else "No."

    (tmp_path / "alerts").mkdir()
    (tmp_path / "alerts" / "holiday.jpg").touch()
    with threaded_server(SayingMaker(say=say), watch_interval_s=0.1) as server:
        words = ["--watch", "Dog?", "--cooldown", 0.01, "--save", tmp_path / "alerts", "--keep", 2, "--json"]
        ran = watch(capsys, clip, server.address, *words)
    names = [Path(json.loads(line)["picture"]).name for line in ran.out]
    assert len(names) > 3
    assert {path.name for path in (tmp_path / "alerts").iterdir()} == {*names[-2:], "holiday.jpg"}


def test_a_picture_that_cannot_be_kept_is_said_and_the_alert_is_not_lost(
    capsys: pytest.CaptureFixture[str], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with threaded_server(from_frame(1), watch_interval_s=0.1) as server:
        ran = watch(capsys, clip, server.address, "--watch", "Dog?", "--save", tmp_path, "--json")
    assert json.loads(ran.out[0])["picture"] is None
    assert "the picture of an alert cannot be kept: [Errno 28]" in ran.err


def test_alerts_that_were_missed_come_after_the_connection_is_back(
    capsys: pytest.CaptureFixture[str], clip: Path, no_pauses: pytest.MonkeyPatch
) -> None:
    """The connection breaks while the first question is being answered, which is the alert."""
    no_pauses.setattr(link, "LONGEST_PAUSE_S", 0.5)
    no_pauses.setattr(link, "FIRST_PAUSE_S", 0.5)

    def say(engine: SayingEngine, _question: str) -> str:
        if len(engine.asked) == 1:
            server.break_connections()
            while any(channel.is_connected for channel in server.server.channels):
                time.sleep(0.01)
        return "Yes."

    maker = SayingMaker(say=say)
    with threaded_server(maker, watch_interval_s=0.1) as server:
        ran = watch(capsys, clip, server.address, "--watch", "Dog?")
    assert ran.status == 0
    assert len(ran.out) == 1
    assert "the connection to the server is lost; trying again in" in ran.err
    assert "connected again, in the same session" in ran.err
    assert len(maker.engines) == 1


def test_a_server_that_comes_back_is_told_its_watches_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clip, port = numbered_clip(tmp_path / "long.mp4", 40, fps=10), free_port()
    makers = [SayingMaker(), SayingMaker()]
    both = threading.Event()

    def serve() -> None:
        for maker in makers:
            with threaded_server(maker, port=port, watch_interval_s=0.1):
                while not maker.asked:
                    time.sleep(0.01)
                if maker is makers[1]:
                    both.wait(30)

    serving_both = threading.Thread(target=serve)
    serving_both.start()
    try:
        while not port_is_open(port):
            time.sleep(0.01)
        ran = watch(capsys, clip, f"http://127.0.0.1:{port}", "--watch", "Dog?")
    finally:
        both.set()
        serving_both.join()
    assert ran.status == 0, ran.err
    assert len(ran.out) == 2, "it has forgotten the first"
    assert "in a new session: what was seen before is forgotten" in ran.err


def port_is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---- cameras ---------------------------------------------------------------------------------------


class CameraTest:
    """A server that counts pictures from a moment on, and presses Ctrl-C when there were enough of them."""

    def __init__(self) -> None:
        self.lose, self.is_back = threading.Event(), threading.Event()
        self._before, self._has_interrupted = 0, False
        self.maker = SayingMaker(say=self._say)

    def _say(self, engine: SayingEngine, _question: str) -> str:
        if engine.frames > 2:
            self.lose.set()
        if not self.is_back.is_set():
            self._before = engine.frames
        elif engine.frames > self._before + 5 and not self._has_interrupted:
            self._has_interrupted = True
            os.kill(os.getpid(), signal.SIGINT)
        return "Yes."


def test_a_camera_that_is_lost_is_taken_up_again(capsys: pytest.CaptureFixture[str]) -> None:
    test, over = CameraTest(), threading.Event()
    pictures = [picture(number) for number in range(30)]

    def second(connection: socket.socket, leaving: threading.Event) -> None:
        test.is_back.set()
        rtsp(pictures, over)(connection, leaving)

    with serving(rtsp(pictures, test.lose), second) as port:
        with threaded_server(test.maker, watch_interval_s=0.1) as server:
            ran = watch(capsys, f"rtsp://admin:secret@127.0.0.1:{port}/cam", server.address, "--watch", "Dog?")
        over.set()
    assert ran.status == 130, ran.err
    assert "attempt 1 of 1000000" in ran.err
    assert "is back after" in ran.err
    assert "secret" not in ran.err
    assert len(test.maker.engines) == 1


@contextmanager
def gst_camera(port: int) -> Iterator[None]:
    """A camera of GStreamer's RTSP server, which many network cameras have inside."""
    with subprocess.Popen([SYSTEM_PYTHON, "-c", GST_SERVER, str(port)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


def has_gst() -> bool:
    look = GST_SERVER.partition("server =")[0] + (
        "assert all(Gst.ElementFactory.find(name) for name in ('videotestsrc', 'jpegenc', 'rtpjpegpay'))"
    )
    return bool(SYSTEM_PYTHON) and not subprocess.run([SYSTEM_PYTHON, "-c", look], capture_output=True).returncode


@pytest.mark.skipif(not has_gst(), reason="GStreamer's RTSP server is not installed here")
def test_a_real_rtsp_server_that_goes_and_comes_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    test, port, started, over = CameraTest(), free_port(), threading.Event(), threading.Event()

    def cameras() -> None:
        with gst_camera(port):
            started.set()
            test.lose.wait(60)
        with gst_camera(port):
            test.is_back.set()
            over.wait(60)

    camera = threading.Thread(target=cameras)
    camera.start()
    try:
        assert started.wait(60)
        with threaded_server(test.maker, watch_interval_s=0.1) as server:
            words = ["--watch", "Dog?", "--save", tmp_path / "alerts", "--json"]
            ran = watch(capsys, f"rtsp://127.0.0.1:{port}/door", server.address, *words)
    finally:
        test.lose.set()
        over.set()
        camera.join()
    assert ran.status == 130, ran.err
    assert "(live, 160 x 96, mjpeg)" in ran.err
    assert "is back after" in ran.err
    kept = cv2.imread(json.loads(ran.out[0])["picture"])
    assert kept.shape == (96, 160, 3)
    assert np.ptp(kept) > 100, "a test picture"


def test_a_source_that_breaks_before_its_first_picture(
    capsys: pytest.CaptureFixture[str], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: VideoPlayer) -> None:
        raise SourceError("the disk is gone")

    monkeypatch.setattr(VideoPlayer, "__next__", broken)
    with threaded_server(SayingMaker()) as server:
        ran = watch(capsys, clip, server.address, "--watch", "Dog?")
    assert (ran.status, ran.err.splitlines()[-1]) == (2, "error: the disk is gone")


# ---- what cannot be --------------------------------------------------------------------------------


def test_failures_are_one_line(capsys: pytest.CaptureFixture[str], clip: Path, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"

    def refusal(*words: object) -> str:
        ran = run_client(capsys, program, "--watch", "Dog?", *words)
        assert (ran.status, ran.out) == (2, [])
        return ran.err.splitlines()[-1]

    assert "cannot be opened" in refusal("--source", tmp_path / "none.mp4", "--url", nobody)
    assert "connection refused" in refusal("--source", f"rtsp://127.0.0.1:{free_port()}/x", "--url", nobody)
    assert "error: no server at" in refusal("--source", clip, "--url", nobody)
    (tmp_path / "file").touch()
    assert "--save" in refusal("--source", clip, "--url", nobody, "--save", tmp_path / "file")
    with threaded_server(SayingMaker(), keys=("a-key-of-many-characters",)) as server:
        assert "refuses the key" in refusal("--source", clip, "--url", server.address, "--key", "wrong")
    with threaded_server(SayingMaker(), watches=1) as server:
        said = refusal("--source", clip, "--url", server.address, "--watch", "Cat?")
        assert said == "error: 2 watches; at most 1 may be set"
        said = refusal("--source", clip, "--url", server.address, "--every", 0.1)
        assert "'watch.every_s' is 0.1" in said
    with pytest.raises(SystemExit):
        program(["--watch", "Dog?", "--keep", "0"])
    assert "--keep is 0; the least is 1" in capsys.readouterr().err
