"""Cameras through OpenCV."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import cv2

from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.base.events import Pixels
from inf_stream.sources.base import FrameSize, Source
from inf_stream.sources.live import Connection, LiveSource, Shot
from inf_stream.sources.pump import within

DEVICES = Path("/dev")


@runtime_checkable
class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool:  # noqa: N802
        """Whether there is a camera."""
        ...

    def grab(self) -> bool:
        """Wait for the next picture and keep it."""
        ...

    def retrieve(self) -> tuple[bool, Any]:
        """Decode the picture kept: BGR, 8 bits a channel."""
        ...

    def release(self) -> None:
        """Let go of the camera."""
        ...


OpenCapture: TypeAlias = Callable[[int], Capture]


def open_camera(
    index: int,
    settings: SourceSettings,
    frame_size: FrameSize | None,
    now_ns: Callable[[], int],
    open_capture: OpenCapture,
) -> Source:
    """Open a camera by its number.

    Raises:
        SourceError: within `settings.connect_timeout_s`: there is no such camera, it is in use, or gives no picture.
    """
    name = f"camera:{index}"

    def open_connection() -> CameraConnection:
        return CameraConnection(open_capture(index), name)

    def connect() -> CameraConnection:
        return within(settings.connect_timeout_s, open_connection, name, CameraConnection.close)

    return LiveSource(connect(), connect, name, settings, now_ns, frame_size)


def camera_index(address: str) -> int | None:
    """The number in `camera:0` or of a device such as `/dev/video0`; None if the address names no camera.

    Raises:
        SourceError: `camera:` without a number from 0 to 999 behind it.
    """
    if address.startswith("/dev/") and (found := re.fullmatch(r"/dev/video(\d{1,3})", str(Path(address).resolve()))):
        return int(found[1])
    kind, colon, number = address.partition(":")
    if kind.lower() != "camera" or not colon:
        return None
    if not re.fullmatch(r"[0-9]{1,3}", number):
        raise SourceError(f"camera '{number}' is not a number from 0 to 999; write camera:0 for the first camera")
    return int(number)


def capture(index: int) -> Capture:
    """Open a camera with OpenCV, without its chatter on standard error.

    Raises:
        SourceError: there is no such device.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if sys.platform != "linux":
        return cv2.VideoCapture(index)
    device = DEVICES / f"video{index}"
    if not device.exists():
        here = ", ".join(cameras_here()) or "none"
        raise SourceError(f"camera:{index} does not exist (no {device}); cameras here: {here}")
    return cv2.VideoCapture(index, cv2.CAP_V4L2)


def cameras_here() -> list[str]:
    """Addresses of the camera devices that exist (Linux only)."""
    numbers = (re.fullmatch(r"video(\d+)", path.name) for path in DEVICES.glob("video*"))
    return [f"camera:{n}" for n in sorted(int(found[1]) for found in numbers if found)]


class CameraConnection(Connection):
    """An open camera. Waits for its first picture.

    Raises:
        SourceError: it is not there, in use by another program, or gives no picture.
    """

    def __init__(self, opened: Capture, name: str):
        self._capture, self._name = opened, name
        if not opened.isOpened():
            raise SourceError(f"{name} cannot be opened: not there, in use by another program, or not permitted")
        if not opened.grab():
            opened.release()
            raise SourceError(f"{name} gives no picture; unplug it and plug it in again, or try another number")

    def describe(self) -> str:
        """The camera's address."""
        return f"{self._name} (live)"

    def shots(self) -> Iterator[Shot]:
        """Pictures at the rate of the camera; only those that are asked for are decoded.

        Raises:
            SourceError: the camera is gone.
        """
        while self._capture.grab():
            yield self._retrieve
        raise SourceError("the camera gives no more pictures")

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()

    def _retrieve(self, frame_size: FrameSize | None) -> Pixels:
        good, picture = self._capture.retrieve()
        if not good:
            raise SourceError("a picture of the camera cannot be decoded")
        height, width = picture.shape[:2]
        wanted = (width, height) if frame_size is None else frame_size(width, height)
        if wanted != (width, height):
            shrinks = wanted[0] * wanted[1] < width * height
            picture = cv2.resize(picture, wanted, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        return cast(Pixels, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
