"""Video addresses on the command line."""

from inf_stream.base.config import Settings
from inf_stream.sources import LoopedSource, Source, open_source


def open_video(address: str, settings: Settings, *, loop: bool, until_ns: int | None) -> Source:
    """The source an address names, repeated if `loop`.

    Raises:
        SourceError: see `inf_stream.sources.open_source`.
    """
    if not loop:
        return open_source(address, settings.source)
    return LoopedSource(lambda: open_source(address, settings.source), until_ns)
