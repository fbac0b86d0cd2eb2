"""One door to all video: tells from an address which kind of source it names."""

import time
from collections.abc import Callable

from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.sources.base import FrameSize, Source


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
    raise SourceError(f"'{address}' cannot be opened")
