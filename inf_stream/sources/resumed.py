"""Where a stream goes on after a session was restored."""

import dataclasses

from inf_stream.base.events import FrameArrived, SourceNotice, TextArrived
from inf_stream.sources.base import Source, SourceEvent
from inf_stream.sources.forwarding import ForwardingSource


class ResumedSource(ForwardingSource):
    """A source behind one that was seen before: its first `skip_ns` are left out, and the rest comes `later_ns` later.

    Args:
        source: from its beginning.
        skip_ns: events up to this time of the source are left out: they were taken in before.
        later_ns: added to the times of the others.
        first_number: frame numbers go on from here.
    """

    def __init__(self, source: Source, *, skip_ns: int, later_ns: int, first_number: int):
        super().__init__(source)
        self._skip_ns, self._later_ns, self._number = skip_ns, later_ns, first_number

    @property
    def duration_ns(self) -> int | None:
        """The time the stream will have reached at its end."""
        length_ns = self._source.duration_ns
        return None if length_ns is None else length_ns + self._later_ns

    def __next__(self) -> SourceEvent:
        while True:
            match super().__next__():
                case FrameArrived(frame):
                    if frame.at_ns > self._skip_ns:
                        number, self._number = self._number, self._number + 1
                        return FrameArrived(
                            dataclasses.replace(frame, at_ns=frame.at_ns + self._later_ns, number=number)
                        )
                case TextArrived(text, at_ns):
                    return TextArrived(text, at_ns + self._later_ns)
                case SourceNotice(message, at_ns):
                    return SourceNotice(message, at_ns + self._later_ns)


class NoSource(Source):
    """Nothing: for questions about what was seen before."""

    def describe(self) -> str:
        """So much."""
        return "no further stream"

    def __next__(self) -> SourceEvent:
        raise StopIteration

    def close(self) -> None:
        """There is nothing to let go of."""
