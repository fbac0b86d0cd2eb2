"""Where downloaded and converted weights are kept on this machine."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from inf_stream.base.errors import ModelError

CACHE_VARIABLE = "INF_STREAM_CACHE"
"""Environment variable that moves the cache folder."""


def cache_folder(
    environment: Mapping[str, str] = os.environ, platform: str = sys.platform, home: Path | None = None
) -> Path:
    """The user's cache folder of inf-stream, which need not exist yet.

    `INF_STREAM_CACHE` if set; else `~/Library/Caches/inf-stream` on macOS,
    `%LOCALAPPDATA%\\inf-stream\\Cache` on Windows, and `$XDG_CACHE_HOME/inf-stream` or
    `~/.cache/inf-stream` elsewhere.

    Raises:
        ModelError: no folder is named and the user's home folder is unknown.
    """
    if chosen := environment.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    if platform == "win32" and (local := environment.get("LOCALAPPDATA")):
        return Path(local) / "inf-stream" / "Cache"
    if platform not in ("win32", "darwin") and (xdg := environment.get("XDG_CACHE_HOME")):
        return Path(xdg).absolute() / "inf-stream"
    home = home or _home()
    match platform:
        case "win32":
            return home / "AppData" / "Local" / "inf-stream" / "Cache"
        case "darwin":
            return home / "Library" / "Caches" / "inf-stream"
        case _:
            return home / ".cache" / "inf-stream"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise ModelError(
            f"the user's home folder is unknown, so there is no cache folder; set {CACHE_VARIABLE} to a folder"
        ) from error
