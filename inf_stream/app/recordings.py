"""Recordings on the command line: `--record FOLDER`, and a recording in place of a video."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inf_stream.base.config import Settings
from inf_stream.session.loop import Observer


@contextmanager
def recording(folder: Path | None, settings: Settings) -> Iterator[Observer | None]:
    """What records a session into `folder`, or None if there is no folder."""
    yield None
