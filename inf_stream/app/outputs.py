"""Files a run will write, checked before anything slow starts."""

import errno
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
    folder = path.parent
    try:
        if path.is_dir():
            raise ConfigError(f"{what} '{path}' is a folder; give the name of a file in it")
        if not folder.is_dir():
            raise ConfigError(f"{what} '{path}' cannot be written: folder '{folder}' does not exist; make it first")
        _try_to_write(path)
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"{what} '{path}' cannot be written: {why}; choose a folder that is yours") from error


def _try_to_write(path: Path) -> None:
    """Open it for writing, which alone tells: a folder may say it is writable and still take no file (`/proc`)."""
    is_new = not path.exists()
    if is_new or path.is_file():
        path.open("ab").close()
    elif not os.access(path, os.W_OK):  # opening a device or a pipe may wait, or do something
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if is_new:
        path.unlink()
