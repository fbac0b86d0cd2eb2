"""A recorded video played at its own speed, as if it were live."""

import threading
from collections.abc import Callable
from time import monotonic

from inf_stream.app.schedule import event_time_ns
from inf_stream.base.clock import seconds
from inf_stream.sources import Source, SourceEvent
from inf_stream.sources.forwarding import ForwardingSource


class PacedSource(ForwardingSource):
    """Holds each event of `source` back until its stream time has passed on the wall clock.

    `clock` gives seconds.
    """

    def __init__(self, source: Source, clock: Callable[[], float] = monotonic):
        super().__init__(source)
        self._clock = clock
        self._closed = threading.Event()
        self._began_s: float | None = None

    def __next__(self) -> SourceEvent:
        event = super().__next__()
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
        super().close()
