"""A clip played again and again, with stream times that keep rising."""

import dataclasses
import threading
from collections.abc import Callable, Generator

from inf_stream.base.clock import NS_PER_S, format_clock
from inf_stream.base.errors import SourceError
from inf_stream.base.events import FrameArrived
from inf_stream.sources.base import FrameSize, Source, SourceEvent


class LoopedSource(Source):
    """Repeats what `make_source` opens until the stream is `duration_ns` long; for ever without one.

    A repetition starts one frame interval after the last frame of the one before, the interval being that of its
    last two frames. Notices of the source are passed on in the first repetition only.

    Raises:
        SourceError: as `make_source`; or the source is live.
    """

    def __init__(self, make_source: Callable[[], Source], duration_ns: int | None = None):
        self._make_source, self._length_ns = make_source, duration_ns
        self._lock, self._closed = threading.Lock(), False
        self._playing = make_source()
        if self._playing.live:
            self._playing.close()
            raise SourceError(f"'{self._playing.describe()}' is live and cannot be repeated; give a file")
        self.frame_size: FrameSize | None = self._playing.frame_size
        self._name = self._playing.describe()
        self._events = self._play()

    @property
    def duration_ns(self) -> int | None:
        """The length asked for."""
        return self._length_ns

    def describe(self) -> str:
        """The clip, and how long it is repeated."""
        return f"{self._name}, repeated" + ("" if self._length_ns is None else f" for {format_clock(self._length_ns)}")

    def __next__(self) -> SourceEvent:
        self._playing.frame_size = self.frame_size
        return next(self._events)

    def close(self) -> None:
        """Close the clip being played."""
        with self._lock:
            self._closed = True
            self._playing.close()

    def _play(self) -> Generator[SourceEvent, None, None]:
        start_ns, number, notices = 0, 0, True
        while True:
            times: list[int] = []
            for event in self._playing:
                if isinstance(event, FrameArrived):
                    times = [*times[-1:], start_ns + event.frame.at_ns]
                    if self._length_ns is not None and times[-1] >= self._length_ns:
                        return
                    yield FrameArrived(dataclasses.replace(event.frame, at_ns=times[-1], number=number))
                    number += 1
                elif notices:
                    yield event
            if not times or not self._reopened():
                return
            start_ns, notices = self._next_start_ns(times), False

    def _reopened(self) -> bool:
        with self._lock:
            self._playing.close()
            if not self._closed:
                self._playing = self._make_source()
                self._playing.frame_size = self.frame_size
            return not self._closed

    def _next_start_ns(self, times: list[int]) -> int:
        interval_ns = times[-1] - times[0] if len(times) > 1 else self._playing.duration_ns or NS_PER_S
        return times[-1] + interval_ns
