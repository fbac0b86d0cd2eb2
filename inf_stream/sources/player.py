"""A container with a beginning and an end, played at the sampling rate."""

import threading
from collections.abc import Generator, Iterator
from itertools import chain

import av
from av.container import InputContainer

from inf_stream.base.clock import NS_PER_S, format_clock
from inf_stream.base.errors import SourceError
from inf_stream.base.events import Frame, FrameArrived, SourceNotice
from inf_stream.sources.base import FrameSize, Source, SourceEvent
from inf_stream.sources.container import Damage, Decoded, decode, duration_ns, nominal_interval_ns, reason, video_stream
from inf_stream.sources.orientation import of_frame
from inf_stream.sources.sampling import GridSampler
from inf_stream.sources.shaping import Shaper, pixel_aspect
from inf_stream.sources.timeline import HoleWatch, Timeline

_SHORT_NS = NS_PER_S // 2
_SHORT_SHARE = 0.05
_INDEXED_FORMAT = "mov"
"""Its index gives every frame an exact time, so that a long interval is meant there and no sign of loss."""


class Player(Source):
    """Frames of an opened container at their own times. Decodes as far as the first frame at once.

    Raises:
        SourceError: no picture at all can be decoded.
    """

    def __init__(self, container: InputContainer, name: str, fps: float, frame_size: FrameSize | None = None):
        stream = video_stream(container)
        assert stream is not None, "open_container checks that there is video"
        assert stream.time_base is not None, "streams of an opened container have a time base"
        self.frame_size = frame_size
        self._container, self._stream, self._name = container, stream, name
        self._duration_ns = duration_ns(container)
        self._timeline = Timeline(stream.time_base, stream.start_time, nominal_interval_ns(stream), self._duration_ns)
        self._sampler = GridSampler(fps, self._timeline.slack_ns)
        self._holes = None if container.format.name.startswith(_INDEXED_FORMAT) else HoleWatch()
        self._shaper, self._aspect = Shaper(), pixel_aspect(stream)
        self._taken, self._damages = 0, 0
        self._closed, self._reading = False, threading.Lock()
        self._events = self._play(self._from_first_frame())

    @property
    def duration_ns(self) -> int | None:
        """Length of the video as its header states it."""
        return self._duration_ns

    def describe(self) -> str:
        """Name, size, codec and length."""
        context = self._stream.codec_context
        length = "" if self._duration_ns is None else f", {format_clock(self._duration_ns)}"
        return f"{self._name} ({context.width} x {context.height}, {context.codec.name}{length})"

    def __next__(self) -> SourceEvent:
        with self._reading:
            return next(self._events)

    def close(self) -> None:
        """Stop at the next frame and let go of the file."""
        self._closed = True
        with self._reading:
            self._events.close()
            self._container.close()

    def _from_first_frame(self) -> Iterator[Decoded]:
        decoded = decode(self._container, self._stream)
        head: list[Decoded] = []
        for item in decoded:
            head.append(item)
            if isinstance(item, av.VideoFrame):
                return chain(head, decoded)
        self._container.close()
        raise SourceError(f"no picture of '{self._name}' can be decoded: it is damaged; repair it or export it again")

    def _play(self, decoded: Iterator[Decoded]) -> Generator[SourceEvent, None, None]:
        for item in decoded:
            if self._closed:
                return
            if isinstance(item, Damage):
                yield from self._damaged(item.reason)
            else:
                yield from self._frame(item)
        yield from self._farewell()

    def _frame(self, frame: av.VideoFrame) -> Iterator[SourceEvent]:
        expected_ns, last_ns = self._timeline.next_ns, self._timeline.last_ns
        at_ns = self._timeline.stamp(frame.dts if frame.pts is None else frame.pts)
        if self._holes is not None and last_ns is not None and self._holes.is_hole(at_ns - last_ns):
            yield from self._damaged(f"no pictures from {format_clock(expected_ns)} to {format_clock(at_ns)}")
        if not self._sampler.takes(at_ns):
            return
        try:
            pixels = self._shaper.shape(frame, self.frame_size, of_frame(frame), self._aspect)
        except av.FFmpegError as error:
            yield from self._damaged(reason(error))
            return
        yield FrameArrived(Frame(pixels, at_ns, self._taken))
        self._taken += 1

    def _damaged(self, what: str) -> Iterator[SourceNotice]:
        self._damages += 1
        if self._damages == 1:
            at = format_clock(self._timeline.next_ns)
            yield self._notice(f"is damaged at {at} ({what}); going on with what can be decoded")

    def _farewell(self) -> Iterator[SourceNotice]:
        if self._damages > 1:
            yield self._notice(f"had {self._damages} damaged pieces")
        if self._duration_ns is None:
            return
        end_ns = self._timeline.next_ns
        if end_ns + self._timeline.base_ns < self._duration_ns * (1 - _SHORT_SHARE) - _SHORT_NS:
            ends, stated = format_clock(end_ns), format_clock(self._duration_ns)
            yield self._notice(f"ends at {ends}, although it should last {stated}: it was cut short")

    def _notice(self, message: str) -> SourceNotice:
        return SourceNotice(f"'{self._name}' {message}", self._timeline.next_ns)
