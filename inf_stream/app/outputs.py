"""Files a run will write, checked before anything slow starts."""

import os
from importlib.util import find_spec
from pathlib import Path

from inf_stream.base.errors import ConfigError


def require_matplotlib() -> None:
    """Refuse a memory map where it cannot be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(
            "the memory map needs matplotlib, which is not installed; pip install 'inf-stream[demo]' (or matplotlib)"
        )


def require_memory_map(path: Path) -> None:
    """Refuse a picture that could not be drawn or written at the end.

    Raises:
        ConfigError: matplotlib is missing, or `path` does not end in .png or cannot be written.
    """
    require_matplotlib()
    if path.suffix.lower() != ".png":
        raise ConfigError(f"memory map '{path}' is a PNG picture; give a name that ends in .png")
    require_writable(path, "memory map")


def require_writable(path: Path, what: str) -> None:
    """Refuse a file that could not be written; its folder must exist.

    Raises:
        ConfigError: naming `what` and the path.
    """
    if path.is_dir():
        raise ConfigError(f"{what} '{path}' is a folder; give the name of a file in it")
    folder = path.parent
    if not folder.is_dir():
        raise ConfigError(f"{what} '{path}' cannot be written: folder '{folder}' does not exist; make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{what} '{path}' cannot be written: no permission; choose a folder that is yours")
