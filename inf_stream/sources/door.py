"""One door to all video: tells from an address which kind of source it names."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from inf_stream.base.config import SourceSettings, nearest
from inf_stream.base.errors import SourceError
from inf_stream.sources.address import SCHEMES, open_address
from inf_stream.sources.base import FrameSize, Source
from inf_stream.sources.camera import camera_index, capture, open_camera
from inf_stream.sources.container import open_container
from inf_stream.sources.images import ANIMATED_SUFFIXES, IMAGE_SUFFIXES, ImagesSource, images_in
from inf_stream.sources.player import Player
from inf_stream.sources.pump import PumpedSource, within

_KINDS = "a video file, an image, a folder of images, camera:0, rtsp://... or http(s)://..."


def open_source(
    address: str,
    settings: SourceSettings,
    frame_size: FrameSize | None = None,
    *,
    now_ns: Callable[[], int] = time.monotonic_ns,
) -> Source:
    """Open a video file, an image, a folder of images, a camera, or an address.

    Args:
        address: a path, ``file://...``, ``camera:0``, ``/dev/video0``, or ``rtsp://``, ``http(s)://``, ``rtmp://``,
            ``udp://`` and their kin.
        settings: frames per second, waiting times, reconnects.
        frame_size: (width, height) of the source -> size of the frames to deliver; may also be set later.
        now_ns: the clock that stamps frames of live sources.

    Raises:
        SourceError: within `settings.connect_timeout_s`, naming what is wrong and what is understood.
    """
    if not address.strip():
        raise SourceError(f"the address is empty; give {_KINDS}")
    if (index := camera_index(address)) is not None:
        return open_camera(index, settings, frame_size, now_ns, capture)
    scheme, mark, rest = address.partition("://")
    if not mark:
        return _open_path(Path(address), settings, frame_size)
    if scheme.lower() == "file":
        return _open_path(Path(unquote(rest.removeprefix("localhost"))), settings, frame_size)
    if scheme.lower() not in SCHEMES:
        raise SourceError(f"'{scheme}://' is not an address that can be played{nearest(scheme, [*SCHEMES, 'file'])}")
    return open_address(address, settings, frame_size, now_ns)


def _open_path(path: Path, settings: SourceSettings, frame_size: FrameSize | None) -> Source:
    name, facts = str(path), _facts(path)
    if stat.S_ISDIR(facts.st_mode):
        return ImagesSource(images_in(path), name, settings.fps, frame_size)
    if stat.S_ISREG(facts.st_mode) and facts.st_size == 0:
        raise SourceError(f"'{name}' is empty (0 bytes); give {_KINDS}")
    if path.suffix.lower() in IMAGE_SUFFIXES - ANIMATED_SUFFIXES:
        return ImagesSource([path], name, settings.fps, frame_size)

    def player() -> Player:
        return Player(open_container(f"file:{path}", name), name, settings.fps, frame_size)

    if stat.S_ISREG(facts.st_mode):
        return player()
    # A pipe or device: opening and reading may wait for whoever writes into it.
    source = PumpedSource(within(settings.connect_timeout_s, player, name, Player.close), name)
    source.frame_size = frame_size
    return source


def _facts(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise SourceError(f"'{path}' cannot be opened: {error.strerror or error}; give {_KINDS}") from error
    except ValueError as error:
        raise SourceError(f"{str(path)!r} is not a file name: {error}") from error
