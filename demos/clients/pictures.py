"""A source as a client wants it: played at its own pace, and nothing waiting but its newest picture."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import cv2
from link import note

from inf_stream.base.clock import seconds
from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import FrameArrived, Pixels, SourceNotice
from inf_stream.sources import open_source

FOR_EVER = 1_000_000
"""Attempts to reach a lost camera again, with growing pauses: the most that a source takes."""


@dataclass(frozen=True)
class Picture:
    """A sampled picture.

    Attributes:
        pixels: RGB.
        at_s: stream time.
        captured_s: when it came, by `time.monotonic`.
    """

    pixels: Pixels
    at_s: float
    captured_s: float

    def jpeg(self, begin: float = 0.0, end: float = 1.0) -> bytes:
        """As a JPEG file; of all its width, or from one share of it to another."""
        width = self.pixels.shape[1]
        part = self.pixels[:, int(begin * width) : max(int(end * width), int(begin * width) + 1)]
        done, data = cv2.imencode(".jpg", cv2.cvtColor(part, cv2.COLOR_RGB2BGR))
        assert done, "pixels can be encoded"
        return data.tobytes()


class Player:
    """Plays a source in a thread: a file at the pace of its own times, as a camera would show it.

    Whoever is slow misses pictures and never sees old ones. The source begins to play when the first picture is asked
    for. A lost camera or address is tried again for ever.

    Args:
        address: as `inf_stream.sources.open_source` takes it.
        fps: pictures a second.
        longest_edge: pixels; larger pictures are scaled down.
        say: told what happens to the source.

    Raises:
        SourceError: it cannot be opened.
    """

    def __init__(
        self, address: str, fps: float = 1.0, longest_edge: int = 768, say: Callable[[str], None] = note
    ) -> None:
        def size(width: int, height: int) -> tuple[int, int]:
            scale = min(1.0, longest_edge / max(width, height))
            return max(1, round(scale * width)), max(1, round(scale * height))

        self._source = open_source(address, SourceSettings(fps=fps, reconnects=FOR_EVER), size)
        self._say = say
        self._newest: deque[Picture] = deque(maxlen=1)
        self._error: InfStreamError | None = None
        self._thread = threading.Thread(target=self._play, name="player", daemon=True)
        self._closing, self._done = threading.Event(), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._change = asyncio.Event()

    @property
    def live(self) -> bool:
        """Whether the source has no end of its own."""
        return self._source.live

    def describe(self) -> str:
        """The source in a few words."""
        return self._source.describe()

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._source.close()

    def take(self) -> Picture | None:
        """The newest picture, unless it was taken before; does not wait.

        Raises:
            SourceError: nothing could be read.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        if self._newest:
            return self._newest.popleft()
        if self._error is not None:
            raise self._error
        return None

    @property
    def has_ended(self) -> bool:
        """Whether all was taken, and no more will come."""
        return self._done.is_set() and not self._newest

    async def next(self) -> Picture | None:
        """Wait for a picture that was not taken before; None at the end of the source.

        Raises:
            SourceError: nothing could be read.
        """
        while (picture := self.take()) is None and not self.has_ended:
            self._change.clear()
            await self._change.wait()
        return picture

    def _play(self) -> None:
        began_s: float | None = None
        try:
            for event in self._source:
                if isinstance(event, SourceNotice):
                    self._say(event.message)
                elif isinstance(event, FrameArrived):
                    at_s = seconds(event.frame.at_ns)
                    began_s = time.monotonic() - at_s if began_s is None else began_s
                    if not self.live and self._closing.wait(max(0.0, began_s + at_s - time.monotonic())):
                        return
                    self._newest.append(Picture(event.frame.pixels, at_s, time.monotonic()))
                    self._tell()
        except InfStreamError as error:
            self._error = error
        finally:
            self._done.set()
            self._tell()

    def _tell(self) -> None:
        assert self._loop is not None, "set before the thread starts"
        with contextlib.suppress(RuntimeError):  # the loop was closed before the source was
            self._loop.call_soon_threadsafe(self._change.set)
