"""Streamed text, read lazily and cut into pieces at whitespace."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from inf_stream.sources.base import Source


def open_text(
    stream: str | Path | IO[Any], characters: int = 1024, *, now_ns: Callable[[], int] = time.monotonic_ns
) -> Source:
    """Open a text file, or take an open text or binary file such as `sys.stdin.buffer`.

    Args:
        stream: a path, or anything with `read`.
        characters: most characters of a piece.
        now_ns: the clock that stamps pieces, from 0 at the first one.

    Raises:
        SourceError: the path cannot be read.
    """
    raise NotImplementedError
