"""Video from the network: rtsp, http, rtmp, udp and their kin."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit, urlunsplit

import av
from av.container import InputContainer

from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.base.events import Pixels
from inf_stream.sources.base import FrameSize, Source
from inf_stream.sources.container import Damage, decode, is_endless, open_container, reason, video_stream
from inf_stream.sources.live import Connection, LiveSource, Shot
from inf_stream.sources.orientation import of_frame
from inf_stream.sources.player import Player
from inf_stream.sources.pump import PumpedSource, within
from inf_stream.sources.shaping import Shaper, pixel_aspect

SCHEMES = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")


def open_address(url: str, settings: SourceSettings, frame_size: FrameSize | None, now_ns: Callable[[], int]) -> Source:
    """Connect to an address. A video of known length plays by its own times; anything else is live.

    Raises:
        SourceError: within `settings.connect_timeout_s`: the address is wrong, does not answer, or has no video.
    """
    name = _checked_name(url)
    timeout_s = settings.connect_timeout_s
    connect = partial(open_container, url, name, read_timeout_s=timeout_s, options=_options(timeout_s))

    def open_source() -> Source:
        container = connect()
        if is_endless(container):
            return LiveSource(AddressConnection(container, name), reconnect, name, settings, now_ns)
        return PumpedSource(Player(container, name, settings.fps), name)

    def reconnect() -> Connection:
        return within(timeout_s, lambda: AddressConnection(connect(), name), name, AddressConnection.close)

    source = within(timeout_s, open_source, name, Source.close)
    source.frame_size = frame_size
    return source


class AddressConnection(Connection):
    """An open live address."""

    def __init__(self, container: InputContainer, name: str):
        stream = video_stream(container)
        assert stream is not None, "open_container checks that there is video"
        self._container, self._stream, self._name = container, stream, name
        self._shaper, self._aspect = Shaper(), pixel_aspect(stream)

    def describe(self) -> str:
        """Address, size and codec."""
        context = self._stream.codec_context
        return f"{self._name} (live, {context.width} x {context.height}, {context.codec.name})"

    def shots(self) -> Iterator[Shot]:
        """Pictures as they arrive; damaged data is skipped.

        Raises:
            SourceError: the connection is lost, or nothing comes within the timeout it was opened with.
        """
        for item in decode(self._container, self._stream):
            if not isinstance(item, Damage):
                yield partial(self._shape, item)
            elif item.is_final:
                raise SourceError(item.reason)

    def close(self) -> None:
        """Close the socket."""
        self._container.close()

    def _shape(self, frame: av.VideoFrame, frame_size: FrameSize | None) -> Pixels:
        try:
            return self._shaper.shape(frame, frame_size, of_frame(frame), self._aspect)
        except av.FFmpegError as error:
            raise SourceError(reason(error)) from error


def without_password(url: str) -> str:
    """The address without user name and password, fit for messages."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _checked_name(url: str) -> str:
    try:
        name, parts = without_password(url), urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise SourceError(f"address is not valid: {error}") from error
    if not host:
        raise SourceError(f"address '{name}' names no host; write it as scheme://host:port/path")
    return name


def _options(timeout_s: float) -> dict[str, str]:
    """Options of all protocols; each takes its own and ignores the others'."""
    return {
        "rtsp_flags": "prefer_tcp",
        "reconnect": "1",
        "reconnect_delay_max": str(math.ceil(timeout_s)),
    }
