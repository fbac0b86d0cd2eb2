"""Images from strangers: judged by their header, then decoded in memory by one known decoder."""

import asyncio
import base64
import binascii
import io
import struct
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import TypeAlias

import av
from yarl import URL

from inf_stream.base.events import Pixels
from inf_stream.server.protocols.messages import MessageError
from inf_stream.sources.base import FrameSize
from inf_stream.sources.image_header import lacks_end, read_header
from inf_stream.sources.orientation import of_exif, of_frame
from inf_stream.sources.shaping import Shaper

Image: TypeAlias = bytes | URL
"""An image file, or the address of one that may be fetched."""
Fetch: TypeAlias = Callable[[Sequence[URL]], Awaitable[list[bytes]]]
"""Fetches the images of one message; raises `PictureError`."""

_DEMUXERS = {"jpeg": "jpeg_pipe", "png": "png_pipe", "webp": "webp_pipe"}
_SQUARE = Fraction(1)
_LARGEST_WEBP = 1 << 14
_ROUNDING = 256
"""FFmpeg rounds width and height up before it compares them with its limit."""


class PictureError(MessageError):
    """An image cannot be taken."""

    def __init__(self, message: str, *, code: str = "invalid_image"):
        super().__init__(message, code=code, param="image_url")


def from_base64(coded: str, *, most_bytes: int) -> bytes:
    """An image file in base64, of the common alphabet or of that for URLs, padded or not.

    Raises:
        PictureError: it is no base64, or too long.
    """
    if len(coded) * 3 // 4 > most_bytes:
        raise PictureError(f"the image has more than {most_bytes} bytes; scale it down", code="image_too_large")
    padded = coded.replace("-", "+").replace("_", "/") + "=" * (-len(coded) % 4)
    try:
        return base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        raise PictureError("the image is not valid base64") from None


def count_pixels(data: bytes, most_pixels: int) -> int:
    """Pixels of a JPEG, PNG or WebP file, by its header alone.

    Raises:
        PictureError: it is of another kind, has a damaged header, is cut short, or has too many.
    """
    width, height = _measure(data, most_pixels)
    return width * height


class PictureDecoder:
    """Decodes images in a few threads of its own, upright and in the size the model asks for.

    Args:
        frame_size: of the model; None keeps each picture's own.
        most_pixels: of one message's images together.
        fetch: those that are addresses; without it there must be none.
        threads: images at once.
    """

    def __init__(self, frame_size: FrameSize | None, most_pixels: int, fetch: Fetch | None = None, threads: int = 2):
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="inf-stream-picture")
        self._frame_size, self._most_pixels, self._fetch = frame_size, most_pixels, fetch
        self._of_thread = threading.local()

    async def files(self, images: Sequence[Image]) -> list[bytes]:
        """The files of one message's images, small enough by their headers to be decoded.

        Raises:
            PictureError: one cannot be fetched, see `count_pixels`, or they have too many pixels together.
        """
        addresses = [image for image in images if isinstance(image, URL)]
        assert self._fetch is not None or not addresses, "nothing is allowed without a fetcher"
        fetched = iter(await self._fetch(addresses) if self._fetch is not None and addresses else [])
        found = [next(fetched) if isinstance(image, URL) else image for image in images]
        most = self._most_pixels
        if sum(count_pixels(data, most) for data in found) > most:
            raise PictureError(
                f"the images of one message have more than {most} pixels together; scale them down, or send them one "
                "by one",
                code="image_too_large",
            )
        return found

    async def decoded(self, data: bytes) -> Pixels:
        """What `decode` makes of it, in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, self.decode, data)

    def decode(self, data: bytes) -> Pixels:
        """One image file in RGB; blocks.

        Raises:
            PictureError: see `count_pixels`; or it turns out to be damaged, or larger than its header says.
        """
        width, height = _measure(data, self._most_pixels)
        kind = _kind(data)
        assert kind is not None, "measured"
        if not hasattr(self._of_thread, "shaper"):
            self._of_thread.shaper = Shaper()
        shaper: Shaper = self._of_thread.shaper
        try:
            frame = _first_frame(data, _DEMUXERS[kind], (width + _ROUNDING) * (height + _ROUNDING))
            if frame.width * frame.height > self._most_pixels:
                raise PictureError("the image is larger than its header says", code="image_too_large")
            orientation = read_header(data).orientation
            turn = of_frame(frame) if orientation is None else of_exif(orientation)
            return shaper.shape(frame, self._frame_size, turn, _SQUARE)
        except (av.FFmpegError, ValueError, OverflowError, MemoryError):
            raise PictureError("the image is damaged") from None

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown()


def _first_frame(data: bytes, demuxer: str, most_pixels: int) -> av.VideoFrame:
    limit = {"max_pixels": str(most_pixels)}
    with av.open(io.BytesIO(data), "r", format=demuxer, options=limit, metadata_errors="replace") as container:
        if not container.streams.video:
            raise PictureError("the image is damaged")
        stream = container.streams.video[0]
        stream.codec_context.options = limit
        frame: av.VideoFrame | None = next(container.decode(stream), None)
    if frame is None:
        raise PictureError("the image is damaged")
    return frame


def _measure(data: bytes, most_pixels: int) -> tuple[int, int]:
    kind = _kind(data)
    size = _webp_size(data) if kind == "webp" else read_header(data).size
    if kind is None:
        raise PictureError("the image is neither JPEG, PNG nor WebP; send one of these")
    if size is None or 0 in size:
        raise PictureError("the image's header is damaged")
    width, height = size
    if width * height > most_pixels:
        raise PictureError(
            f"the image has {width} x {height} pixels; at most {most_pixels} are taken: scale it down",
            code="image_too_large",
        )
    if lacks_end(data):
        raise PictureError("the image is cut short")
    return width, height


def _kind(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the first chunk has them: lossy, lossless, or extended."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if chunk == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & (_LARGEST_WEBP - 1)) + 1, ((bits >> 14) & (_LARGEST_WEBP - 1)) + 1
    if chunk == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", body[6:10])
        return width & (_LARGEST_WEBP - 1), height & (_LARGEST_WEBP - 1)
    return None
