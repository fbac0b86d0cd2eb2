"""A recorded video played at its own speed, as if it were live."""

import threading
from collections.abc import Callable
from time import monotonic

from inf_stream.app.schedule import event_time_ns
from inf_stream.base.clock import seconds
from inf_stream.sources import FrameSize, Source, SourceEvent


class PacedSource(Source):
    """Holds each event of `source` back until its stream time has passed on the wall clock.

    `clock` gives seconds.
    """

    def __init__(self, source: Source, clock: Callable[[], float] = monotonic):
        self._source, self._clock = source, clock
        self._closed = threading.Event()
        self._began_s: float | None = None
        self.live = source.live

    @property
    def frame_size(self) -> FrameSize | None:
        """As the source's."""
        return self._source.frame_size

    @frame_size.setter
    def frame_size(self, frame_size: FrameSize | None) -> None:
        self._source.frame_size = frame_size

    @property
    def duration_ns(self) -> int | None:
        """As the source's."""
        return self._source.duration_ns

    def describe(self) -> str:
        """As the source's."""
        return self._source.describe()

    def __next__(self) -> SourceEvent:
        event = next(self._source)
        now_s = self._clock()
        if self._began_s is None:
            self._began_s = now_s - seconds(event_time_ns(event))
        due_s = self._began_s + seconds(event_time_ns(event))
        if self._closed.wait(max(0.0, due_s - now_s)):
            raise StopIteration
        return event

    def close(self) -> None:
        """Stop at once, also in the middle of a wait."""
        self._closed.set()
        self._source.close()
