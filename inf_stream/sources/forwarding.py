"""A source that hands on what another delivers: what wrappers of a source derive from."""

from inf_stream.sources.base import FrameSize, Source, SourceEvent


class ForwardingSource(Source):
    """A source by another one."""

    def __init__(self, source: Source):
        self._source = source
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
        return next(self._source)

    def close(self) -> None:
        """Close the source."""
        self._source.close()
