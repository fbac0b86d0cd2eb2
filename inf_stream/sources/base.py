"""The contract of every source: an iterator over events, pulled by one thread, closable from any."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeAlias

from inf_stream.base.events import FrameArrived, SourceNotice, TextArrived

FrameSize: TypeAlias = Callable[[int, int], tuple[int, int]]
"""(source_width, source_height) -> (width, height) in pixels, both as the picture is shown."""

SourceEvent: TypeAlias = FrameArrived | TextArrived | SourceNotice

MAX_PIXELS = 1 << 27
"""Pictures larger than this (134 million pixels, 400 MB as RGB) are refused before they are decoded."""


class Source(ABC):
    """A stream of frames or text, with stream times that never fall.

    Iterating blocks until the next event and ends with the stream. One thread iterates; `close` may be called from
    any thread, any number of times, and ends a blocked read soon.

    Attributes:
        live: the stream runs whether it is read or not (cameras, addresses without a known length).
        frame_size: asked for every size of picture that occurs; None keeps pictures as they are. May be set until
            the first event is read.
    """

    live: bool = False
    frame_size: FrameSize | None = None

    @property
    def duration_ns(self) -> int | None:
        """Length of the stream where it is known beforehand."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """The source in a few words, for people."""

    @abstractmethod
    def __next__(self) -> SourceEvent:
        """The next event.

        Raises:
            StopIteration: the stream has ended or was closed.
            SourceError: nothing more can be read, and nothing could be read before.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file, device or connection."""

    def __iter__(self) -> Iterator[SourceEvent]:
        return self

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
