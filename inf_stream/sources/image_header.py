"""What an image file's decoder does not tell: its size beforehand, its EXIF orientation, and whether it is whole."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_RIFF = b"RIFF"
_PNG_END, _JPEG_END = b"IEND", b"\xff\xd9"
_EXIF = b"Exif\x00\x00"
_ORIENTATION = 0x0112
_APP1 = 0xE1
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_IFD_ENTRY_BYTES = 12
_MOST_SEGMENTS = 1 << 12
"""Before a JPEG's picture. Colour profiles have up to 255; to walk through millions of empty ones takes seconds."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Width and height in pixels, and EXIF's orientation 1 to 8; None where the header does not tell."""

    size: tuple[int, int] | None = None
    orientation: int | None = None


def read_header(head: bytes) -> ImageHeader:
    """Facts from the first bytes of a PNG or JPEG file; nothing is known of other kinds or of damaged headers."""
    if head.startswith(_PNG) and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        return ImageHeader((width, height))
    if not head.startswith(_JPEG):
        return ImageHeader()
    size, orientation = None, None
    for marker, body in _segments(head):
        if marker in _START_OF_FRAME and len(body) >= 5:
            height, width = struct.unpack(">HH", body[1:5])
            size = (width, height)
        elif marker == _APP1 and body.startswith(_EXIF) and orientation is None:
            orientation = _exif_orientation(body[len(_EXIF) :])
    return ImageHeader(size, orientation)


def lacks_end(data: bytes) -> bool:
    """Whether a PNG, JPEG or WebP file stops before its end; nothing is known of other kinds."""
    if data.startswith(_PNG):
        return _PNG_END not in data
    if data.startswith(_RIFF):
        return len(data) < len(_RIFF) + 4 + int.from_bytes(data[4:8], "little")
    # A thumbnail has an end of its own, but lies in the segments before the picture.
    return data.startswith(_JPEG) and _JPEG_END not in data[_end_of_segments(data) :]


def _end_of_segments(data: bytes) -> int:
    """Where the segments before a JPEG's picture end."""
    return len(_JPEG) + sum(4 + len(body) for _, body in _segments(data))


def _segments(head: bytes) -> Iterator[tuple[int, bytes]]:
    at = len(_JPEG)
    for _ in range(_MOST_SEGMENTS):
        if at + 4 > len(head) or head[at] != 0xFF:
            return
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN or length < 2:
            return
        yield marker, head[at + 4 : at + 2 + length]
        at += 2 + length


def _exif_orientation(tiff: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return None
    (at,) = struct.unpack(f"{order}I", tiff[4:8])
    count = int.from_bytes(tiff[at : at + 2], "little" if order == "<" else "big")
    for entry in range(at + 2, at + 2 + count * _IFD_ENTRY_BYTES, _IFD_ENTRY_BYTES):
        if len(tiff) < entry + _IFD_ENTRY_BYTES:
            return None
        tag, _, _, value = struct.unpack(f"{order}HHIH", tiff[entry : entry + 10])
        if tag == _ORIENTATION:
            return int(value)
    return None
