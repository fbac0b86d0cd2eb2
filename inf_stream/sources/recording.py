"""A recorded session on disk: what the engine was given, in order, bit for bit."""

from pathlib import Path


class Recorder:
    """Writes a recording into `folder`, at most `limit_bytes` of it."""

    def __init__(self, folder: Path, limit_bytes: int):
        raise NotImplementedError
