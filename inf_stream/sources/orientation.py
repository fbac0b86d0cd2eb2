"""How stored pixels become shown ones, as rotation metadata of videos and EXIF tags of photos say."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideData, Type
from jaxtyping import UInt8

from inf_stream.base.events import Pixels


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to lay a picture down: swap rows with columns, then mirror.

    Attributes:
        swapped: rows become columns.
        mirror_columns: afterwards, left becomes right.
        mirror_rows: afterwards, top becomes bottom.
    """

    swapped: bool = False
    mirror_columns: bool = False
    mirror_rows: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after turning a picture of this size, and the other way round."""
        return (height, width) if self.swapped else (width, height)

    def apply(self, pixels: Pixels) -> UInt8[np.ndarray, "shown_height shown_width 3"]:
        """The picture as it is to be shown."""
        if self.swapped:
            pixels = pixels.transpose(1, 0, 2)
        if self.mirror_columns:
            pixels = pixels[:, ::-1]
        if self.mirror_rows:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


UPRIGHT = Orientation()

_EXIF = {
    1: UPRIGHT,
    2: Orientation(mirror_columns=True),
    3: Orientation(mirror_columns=True, mirror_rows=True),
    4: Orientation(mirror_rows=True),
    5: Orientation(swapped=True),
    6: Orientation(swapped=True, mirror_columns=True),
    7: Orientation(swapped=True, mirror_columns=True, mirror_rows=True),
    8: Orientation(swapped=True, mirror_rows=True),
}
_QUARTER_TURNS = (_EXIF[1], _EXIF[8], _EXIF[3], _EXIF[6])


def of_exif(tag: int) -> Orientation:
    """Orientation of EXIF's tag 0x0112, 1 to 8; anything else counts as upright."""
    return _EXIF.get(tag, UPRIGHT)


def of_frame(frame: av.VideoFrame) -> Orientation:
    """Orientation of a decoded frame, to the nearest quarter turn."""
    try:
        matrices = [data for data in cast("Iterable[SideData]", frame.side_data) if data.type is Type.DISPLAYMATRIX]
    except ValueError:  # PyAV cannot list kinds of side data newer than itself; it can still read the angle.
        return _QUARTER_TURNS[round(frame.rotation / 90) % 4]
    return of_matrix(*struct.unpack("=iiiii", bytes(matrices[0])[:20])) if matrices else UPRIGHT


def of_matrix(a: int, b: int, _u: int, c: int, d: int) -> Orientation:
    """Orientation of a display matrix: stored (x, y) is shown at (a x + c y, b x + d y)."""
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(swapped=True, mirror_columns=c < 0, mirror_rows=b < 0)
    return Orientation(mirror_columns=a < 0, mirror_rows=d < 0)
