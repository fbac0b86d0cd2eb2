"""A folder of images (or one image) as a stream: one image per sampled frame, in name order."""

import re
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from inf_stream.base.clock import format_clock
from inf_stream.base.errors import SourceError
from inf_stream.base.events import Frame, FrameArrived, Pixels, SourceNotice
from inf_stream.sources.base import MAX_PIXELS, FrameSize, Source, SourceEvent
from inf_stream.sources.container import reason
from inf_stream.sources.image_header import ImageHeader, lacks_end, read_header
from inf_stream.sources.orientation import of_exif, of_frame
from inf_stream.sources.sampling import frame_rate, grid_ns
from inf_stream.sources.shaping import Shaper

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pnm", ".jp2", ".avif"}
)
ANIMATED_SUFFIXES = frozenset({".gif"})
"""Images that are videos when they are named by themselves."""
_HEAD_BYTES = 1 << 18
_SQUARE = Fraction(1)


class ImagesSource(Source):
    """Images at ``index / fps``. One that cannot be read leaves a gap and a notice.

    Raises:
        SourceError: none of the images can be read.
    """

    def __init__(self, paths: Sequence[Path], name: str, fps: float, frame_size: FrameSize | None = None):
        self.frame_size = frame_size
        self._paths, self._name, self._rate = paths, name, frame_rate(fps)
        self._shaper, self._closed = Shaper(), threading.Event()
        self._require_one_readable()
        self._events = self._play()

    @property
    def duration_ns(self) -> int:
        """The time all images take at the sampling rate."""
        return grid_ns(len(self._paths), self._rate)

    def describe(self) -> str:
        """Name, number of images and length."""
        count = len(self._paths)
        return f"{self._name} ({count} image{'s' if count > 1 else ''}, {format_clock(self.duration_ns)})"

    def __next__(self) -> SourceEvent:
        return next(self._events)

    def close(self) -> None:
        """Stop after the image being read."""
        self._closed.set()

    def _play(self) -> Iterator[SourceEvent]:
        for index, path in enumerate(self._paths):
            if self._closed.is_set():
                return
            at_ns = grid_ns(index, self._rate)
            try:
                pixels = read_image(path, self.frame_size, self._shaper)
            except SourceError as error:
                yield SourceNotice(f"left out: {error}", at_ns)
            else:
                if is_cut_short(path):
                    yield SourceNotice(f"image '{path}' is cut short; a part of its picture is missing", at_ns)
                yield FrameArrived(Frame(pixels, at_ns, index))

    def _require_one_readable(self) -> None:
        for path in self._paths:
            try:
                read_image(path, None, self._shaper)
            except SourceError as error:  # noqa: PERF203
                found = error
            else:
                return
        if len(self._paths) == 1:
            raise found
        raise SourceError(f"none of the {len(self._paths)} images in '{self._name}' can be read; the last one: {found}")


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, in name order, numbers by their value; hidden files left out.

    So is what has an image's name but is a folder, a pipe or a device.

    Raises:
        SourceError: the folder cannot be listed or holds no image.
    """
    try:
        entries = [e for e in folder.iterdir() if e.suffix.lower() in IMAGE_SUFFIXES and not e.name.startswith(".")]
        entries = [e for e in entries if e.is_file() or not e.exists()]  # a link to nowhere leaves its gap
    except OSError as error:
        raise SourceError(f"folder '{folder}' cannot be listed: {error.strerror or error}") from error
    if not entries:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise SourceError(f"folder '{folder}' holds no images; image files end in one of: {kinds}")
    return sorted(entries, key=_name_order)


def read_image(path: Path, frame_size: FrameSize | None, shaper: Shaper) -> Pixels:
    """One image file, upright, in RGB, in the size `frame_size` asks for.

    Raises:
        SourceError: the file is missing, empty, too large, or no image.
    """
    try:
        with path.open("rb") as file:
            header = read_header(file.read(_HEAD_BYTES))
            _check_size(path, header)
            file.seek(0)
            frame = _first_frame(file)
            turn = of_frame(frame) if header.orientation is None else of_exif(header.orientation)
            return shaper.shape(frame, frame_size, turn, _SQUARE)
    except av.FFmpegError as error:
        raise SourceError(f"image '{path}' cannot be read: {reason(error)}") from error
    except OSError as error:
        raise SourceError(f"image '{path}' cannot be read: {error.strerror or error}") from error


def is_cut_short(path: Path) -> bool:
    """Whether an image that could be read lacks its end, so that a part of its picture is made up."""
    try:
        return lacks_end(path.read_bytes())
    except OSError:  # gone meanwhile
        return False


def _first_frame(file: BinaryIO) -> av.VideoFrame:
    limit = {"max_pixels": str(MAX_PIXELS)}
    with av.open(file, "r", options=limit, metadata_errors="replace") as container:
        if not container.streams.video:
            raise av.InvalidDataError(0, "no picture")
        stream = container.streams.video[0]
        stream.codec_context.options = limit
        frame: av.VideoFrame | None = next(container.decode(stream), None)
    if frame is None:
        raise av.InvalidDataError(0, "no picture")
    return frame


def _check_size(path: Path, header: ImageHeader) -> None:
    width, height = header.size or (0, 0)
    if width * height > MAX_PIXELS:
        raise SourceError(
            f"image '{path}' has {width} x {height} pixels; at most {MAX_PIXELS} pixels are taken: scale it down"
        )


def _name_order(path: Path) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]
