"""Cameras, with a fake in the place of OpenCV's."""

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.media import number_of, picture
from support.playing import Seen

import inf_stream.sources.camera as camera
import inf_stream.sources.live as live
from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.base.events import FrameArrived
from inf_stream.sources import open_source
from inf_stream.sources.camera import camera_index, cameras_here, capture, open_camera

TENTH_NS = 100_000_000


class FakeCapture:
    """Picture 1, 2, ... up to `last`, one each tenth of a second."""

    def __init__(self, last: int = 25, *, opens: bool = True, decodes: bool = True):
        self.last, self.opens, self.decodes = last, opens, decodes
        self.grabbed = self.retrieved = self.released = 0

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def grab(self) -> bool:
        self.grabbed += self.grabbed < self.last
        return self.grabbed < self.last

    def retrieve(self) -> tuple[bool, Any]:
        self.retrieved += 1
        return self.decodes, cv2.cvtColor(picture(self.grabbed % 1024), cv2.COLOR_RGB2BGR)

    def release(self) -> None:
        self.released += 1


def settings(**values: float) -> SourceSettings:
    return SourceSettings(**{"reconnects": 0, "connect_timeout_s": 10.0, "fps": 240.0} | values)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST_PAUSE_S", 0.0)


def ticking():
    now = iter(range(0, 10**15, TENTH_NS))
    return lambda: next(now)


def test_pictures_come_upright_in_rgb_and_the_size_asked_for():
    fake = FakeCapture(100_000)
    with open_camera(3, settings(), lambda width, height: (80, 48), ticking(), lambda index: fake) as source:
        assert source.live
        assert source.describe() == "camera:3 (live)"
        event = next(source)
    assert isinstance(event, FrameArrived)
    assert event.frame.pixels.shape == (48, 80, 3)
    assert 1 <= number_of(event.frame.pixels) <= fake.grabbed


def test_pictures_are_exact_without_a_frame_size():
    fake = FakeCapture(100_000)
    with open_camera(0, settings(), None, ticking(), lambda index: fake) as source:
        event = next(source)
    assert isinstance(event, FrameArrived)
    number = number_of(event.frame.pixels)
    assert np.array_equal(event.frame.pixels, picture(number))


@pytest.mark.parametrize("size", [(40, 24), (320, 192)])
def test_smaller_and_larger(size: tuple[int, int]):
    fake = FakeCapture(100_000)
    with open_camera(0, settings(), lambda width, height: size, ticking(), lambda index: fake) as source:
        event = next(source)
    assert isinstance(event, FrameArrived)
    assert event.frame.pixels.shape == (size[1], size[0], 3)


def test_only_sampled_pictures_are_decoded():
    fake = FakeCapture(100_000)
    with open_camera(0, settings(fps=1.0), None, ticking(), lambda index: fake) as source:
        for _ in range(3):
            next(source)
        grabbed, retrieved = fake.grabbed, fake.retrieved
    assert retrieved <= 6
    assert grabbed > 2 * retrieved


def test_camera_that_goes_away_ends_the_stream():
    fake = FakeCapture(3)
    with open_camera(0, settings(), None, ticking(), lambda index: fake) as source:
        seen = Seen(source)
    assert "the camera gives no more pictures" in seen.notices[-1]
    assert fake.released == 1


def test_camera_that_comes_back(monkeypatch: pytest.MonkeyPatch):
    captures = [FakeCapture(3), FakeCapture(0, opens=False), FakeCapture(100_000)]
    opened = []

    def open_capture(index: int) -> FakeCapture:
        opened.append(index)
        return captures.pop(0)

    with open_camera(2, settings(reconnects=5), None, ticking(), open_capture) as source:
        messages = []
        while "is back" not in "".join(messages):
            event = next(source)
            messages += [] if isinstance(event, FrameArrived) else [event.message]
        assert isinstance(next(source), FrameArrived)
    assert opened == [2, 2, 2]


def test_picture_that_cannot_be_decoded():
    fake = FakeCapture(100_000, decodes=False)
    with open_camera(0, settings(), None, ticking(), lambda index: fake) as source:
        assert "cannot be decoded" in Seen(source).notices[0]


def test_camera_that_does_not_open():
    with pytest.raises(SourceError, match="camera:0 cannot be opened: not there, in use"):
        open_camera(0, settings(), None, ticking(), lambda index: FakeCapture(opens=False))


def test_camera_without_a_picture():
    fake = FakeCapture(0)
    with pytest.raises(SourceError, match="gives no picture"):
        open_camera(0, settings(), None, ticking(), lambda index: fake)
    assert fake.released == 1


def test_camera_that_hangs_while_it_is_opened():
    release, undone = threading.Event(), threading.Event()

    class Late(FakeCapture):
        def release(self) -> None:
            undone.set()

    def hang(index: int) -> FakeCapture:
        release.wait(30)
        return Late()

    with pytest.raises(SourceError, match=r"'camera:0' does not answer within 0\.1 s"):
        open_camera(0, settings(connect_timeout_s=0.1), None, ticking(), hang)
    release.set()
    assert undone.wait(10)


# ---- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "index"),
    [
        ("camera:0", 0),
        ("CAMERA:12", 12),
        ("/dev/video0", 0),
        ("/dev/video31", 31),
        ("/dev/../dev/video4", 4),
        ("/dev/null", None),
        ("camera", None),
        ("clip.mp4", None),
        ("http://camera:1", None),
    ],
)
def test_addresses_of_cameras(address: str, index: int | None):
    assert camera_index(address) == index


def test_cameras_here_are_listed_in_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera, "DEVICES", tmp_path)
    assert cameras_here() == []
    with pytest.raises(SourceError, match="cameras here: none"):
        capture(4)
    for name in ("video10", "video2", "video-enc"):
        (tmp_path / name).touch()
    assert cameras_here() == ["camera:2", "camera:10"]
    with pytest.raises(SourceError, match="cameras here: camera:2, camera:10"):
        capture(4)


def test_device_is_opened_by_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = []
    monkeypatch.setattr(camera, "DEVICES", tmp_path)
    (tmp_path / "video5").touch()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *args: (opened.append(args), FakeCapture(100_000))[1])
    with open_source("camera:5", settings()) as source:
        assert isinstance(next(source), FrameArrived)
    assert opened == [(5, cv2.CAP_V4L2)]


def test_other_systems_are_asked_by_number_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera.sys, "platform", "darwin")
    monkeypatch.setattr(cv2, "VideoCapture", lambda *args: (args, FakeCapture())[1])
    assert isinstance(capture(7), FakeCapture)


def test_opencv_keeps_quiet(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(camera, "DEVICES", tmp_path)
    (tmp_path / "video987").touch()
    with pytest.raises(SourceError, match="camera:987 cannot be opened"):
        open_source("camera:987", settings())
    assert capfd.readouterr().err == ""
