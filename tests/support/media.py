"""Makes small media files: pictures that carry their own number, clips of them, and many kinds of damage."""

import struct
import wave
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from inf_stream.base.events import Pixels

BITS = 10
WIDTH, HEIGHT = 160, 96
RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 200, 30), (30, 30, 220), (220, 220, 30)


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """Top half: `number` as white and black bars, highest bit first. Bottom half: noise that moves with `number`."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        if number >> (BITS - 1 - bit) & 1:
            pixels[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 235
    noise = np.random.default_rng(7).integers(40, 200, (height - height // 2, width, 3), np.uint8)
    pixels[height // 2 :] = np.roll(cv2.blur(noise, (5, 5)), 3 * number, axis=1)
    return pixels


def number_of(pixels: Pixels) -> int:
    """The number in a picture, whatever its size."""
    height, width = pixels.shape[:2]
    row = pixels[height // 8 : height * 3 // 8].mean(axis=(0, 2))
    bars = [row[int((bit + 0.3) * width / BITS) : int((bit + 0.7) * width / BITS) + 1].mean() for bit in range(BITS)]
    return sum(1 << (BITS - 1 - bit) for bit, level in enumerate(bars) if level > 117)


def corners(width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """Red at the top left, green at the top right, blue at the bottom left, yellow at the bottom right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = YELLOW
    return pixels


def corner_colours(pixels: Pixels) -> list[str]:
    """Names of the colours at the top left, top right, bottom left and bottom right."""
    height, width = pixels.shape[:2]
    rows, columns = (height // 4, height * 3 // 4), (width // 4, width * 3 // 4)
    names = {"red": RED, "green": GREEN, "blue": BLUE, "yellow": YELLOW}
    return [
        min(names, key=lambda name: np.abs(pixels[row, column].astype(int) - names[name]).sum())
        for row in rows
        for column in columns
    ]


def write_clip(
    path: Path,
    pictures: Sequence[Pixels],
    *,
    fps: int = 10,
    at_ms: Sequence[int] | None = None,
    degrees: float = 0,
    hflip: bool = False,
    audio: bool = False,
    gop: int = 10,
    codec: str = "libx264",
    container: str | None = None,
    options: dict[str, str] | None = None,
    sar: Fraction | None = None,
) -> Path:
    """Encode pictures at `fps`, or at the times `at_ms` (variable rate; any first time).

    Args:
        degrees: rotation metadata, counter-clockwise.
        hflip: mirrored after the rotation.
        audio: adds a silent track.
        gop: frames from key frame to key frame.
        container: FFmpeg's name of the format, when the file's suffix does not tell it.
        options: of the muxer.
        sar: shape of a pixel, width / height.
    """
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        quality = {"g": str(gop), "bf": "0", "crf": "18"} if "264" in codec else {}
        stream = out.add_stream(codec, rate=fps, options=quality)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if at_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if sar is not None:
            stream.codec_context.sample_aspect_ratio = sar
        if degrees or hflip:
            stream.set_display_rotation(degrees, hflip=hflip)
        sound = out.add_stream("aac", rate=16000) if audio else None
        for index, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = index if at_ms is None else at_ms[index]
            frame.time_base = Fraction(1, fps) if at_ms is None else Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            _silence(out, sound, round(16000 * len(pictures) / fps))
    return path


def numbered_clip(path: Path, count: int, **settings: object) -> Path:
    """A clip of `picture(0)`, `picture(1)`, ..."""
    return write_clip(path, [picture(i) for i in range(count)], **settings)  # type: ignore[arg-type]


def write_audio(path: Path, container: str | None = None) -> Path:
    """A second of sound without any picture."""
    with av.open(str(path), "w", format=container) as out:
        _silence(out, out.add_stream("aac", rate=16000), 16000)
    return path


def write_wave(path: Path) -> Path:
    """Uncompressed sound."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(16000))
    return path


def cut_short(path: Path, share: float) -> Path:
    """Keep only the first `share` of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def garble(path: Path, start: float, stop: float) -> Path:
    """Overwrite the bytes between two shares of a file with noise."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(3).bytes(last - first)
    path.write_bytes(bytes(data))
    return path


def write_image(path: Path, pixels: Pixels, orientation: int | None = None) -> Path:
    """An image of the kind its suffix says; `orientation` is EXIF's, 1 to 8, for JPEG."""
    encoded = cv2.imencode(path.suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
    if orientation is not None:
        tiff = b"MM\x00\x2a" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
        body = b"Exif\x00\x00" + tiff
        encoded = encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + encoded[2:]
    path.write_bytes(encoded)
    return path


def write_images(folder: Path, count: int, suffix: str = ".png", start: int = 0) -> Path:
    """`picture(start)` ... as numbered image files."""
    folder.mkdir(exist_ok=True)
    for index in range(start, start + count):
        write_image(folder / f"image_{index:04d}{suffix}", picture(index))
    return folder


def png_header_bomb(width: int, height: int) -> bytes:
    """A few kilobytes of PNG that decode to `width` x `height` black pixels."""
    row = bytes(1 + (width + 7) // 8)
    squeeze = zlib.compressobj(9)
    body = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _silence(out: av.container.OutputContainer, stream: av.AudioStream, samples: int) -> None:
    for start in range(0, samples, 1024):
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def write_song(path: Path) -> Path:
    """A second of sound with a cover picture."""
    with av.open(str(path), "w", format="mp4") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        sound = out.add_stream("aac", rate=16000)
        frame = av.VideoFrame.from_ndarray(picture(1), format="rgb24")
        for packet in [*cover.encode(frame), *cover.encode(None)]:
            out.mux(packet)
        _silence(out, sound, 16000)
    return path
