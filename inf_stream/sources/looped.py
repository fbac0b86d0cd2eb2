"""A clip played again and again, with stream times that keep rising."""

from collections.abc import Callable

from inf_stream.sources.base import Source, SourceEvent


class LoopedSource(Source):
    """Repeats what `make_source` opens until the stream is `duration_ns` long.

    Raises:
        SourceError: as `make_source`, or the source is live.
    """

    def __init__(self, make_source: Callable[[], Source], duration_ns: int):
        raise NotImplementedError

    def describe(self) -> str:
        """The clip and how long it is repeated."""
        raise NotImplementedError

    def __next__(self) -> SourceEvent:
        raise NotImplementedError

    def close(self) -> None:
        """Close the clip being played."""
