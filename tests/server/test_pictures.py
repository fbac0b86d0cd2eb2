"""Images from strangers: what is taken, and what is refused before or while it is decoded."""

import base64
import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.serving import picture

from inf_stream.server.protocols.pictures import (
    PictureDecoder,
    PictureError,
    count_pixels,
    from_base64,
)

MOST = 100_000


@pytest.fixture(scope="module")
def decoder() -> PictureDecoder:
    return PictureDecoder(None, MOST)


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_the_known_kinds_are_decoded_to_rgb(decoder: PictureDecoder, kind: str) -> None:
    colours = np.zeros((40, 60, 3), dtype=np.uint8)
    colours[:, :30, 2] = 200  # red on the left, as OpenCV writes it
    colours[:, 30:, 0] = 200
    data = bytes(cv2.imencode(kind, colours)[1])
    assert count_pixels(data, MOST) == 2400
    pixels = decoder.decode(data)
    assert pixels.shape == (40, 60, 3)
    assert pixels[20, 10, 0] > 150 > 60 > pixels[20, 10, 2]
    assert pixels[20, 50, 2] > 150 > 60 > pixels[20, 50, 0]


def test_a_lossless_and_a_lossy_webp_tell_their_size() -> None:
    flat = np.full((33, 21, 3), 90, dtype=np.uint8)
    for quality in (50, 101):
        data = bytes(cv2.imencode(".webp", flat, [cv2.IMWRITE_WEBP_QUALITY, quality])[1])
        assert count_pixels(data, MOST) == 33 * 21


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize(("width", "height"), [(16, 12), (1, 1), (333, 300), (2, 4000)])
def test_a_picture_of_just_as_many_pixels_as_are_allowed_is_taken(kind: str, width: int, height: int) -> None:
    data = picture(kind, width, height)
    exact = PictureDecoder(None, width * height)
    assert exact.decode(data).shape == (height, width, 3)
    exact.close()
    if width * height > 1:
        with pytest.raises(PictureError, match=f"at most {width * height - 1} are taken"):
            count_pixels(data, width * height - 1)


def test_pictures_come_in_the_size_the_model_asks_for() -> None:
    decoder = PictureDecoder(lambda width, height: (8, 6), MOST)
    assert decoder.decode(picture(".png", 64, 48)).shape == (6, 8, 3)
    decoder.close()
    with pytest.raises(RuntimeError):
        decoder.pool.submit(int)


def test_a_turned_photo_is_turned_back(decoder: PictureDecoder) -> None:
    flat = picture(".jpg", 30, 20)
    exif = (
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
    )
    turned = flat[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + flat[2:]
    assert decoder.decode(turned).shape == (30, 20, 3)


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """A PNG whose header says one thing and whose rows may say another."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


JPEG = picture(".jpg", 64, 48)


def lying_jpeg(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size than its data has."""
    at = JPEG.index(b"\xff\xc0")
    return JPEG[: at + 5] + struct.pack(">HH", height, width) + JPEG[at + 9 :]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "invalid_image"),
        (b"hello", "invalid_image"),
        (b"GIF89a" + bytes(100), "invalid_image"),
        (b"#EXTM3U\nfile:///etc/passwd", "invalid_image"),
        (b"\xff\xd8", "invalid_image"),
        (b"\xff\xd8\xff\xd9", "invalid_image"),
        (b"\x89PNG\r\n\x1a\n", "invalid_image"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "invalid_image"),
        (b"RIFF\x20\x00\x00\x00WEBPVP8L" + bytes(32), "invalid_image"),
        (JPEG[:200], "invalid_image"),
        (JPEG[: len(JPEG) - 40], "invalid_image"),
        (picture(".png")[:60], "invalid_image"),
        (picture(".webp")[:-4], "invalid_image"),
        (lying_jpeg(65_000, 65_000), "image_too_large"),
        (lying_jpeg(0, 10), "invalid_image"),
        (png_of(100_000, 100_000, b"\x00" * 10), "image_too_large"),
        (png_of(50, 50, b""), "invalid_image"),
        (png_of(0, 5, b""), "invalid_image"),
        (picture(".png", 400, 400), "image_too_large"),
    ],
)
def test_what_is_no_whole_small_image_is_refused(decoder: PictureDecoder, data: bytes, code: str) -> None:
    with pytest.raises(PictureError) as refused:
        decoder.decode(data)
    assert (refused.value.code, refused.value.param) == (code, "image_url")


def test_a_header_may_lie_but_nothing_large_is_made(decoder: PictureDecoder) -> None:
    for data in (lying_jpeg(100, 100), lying_jpeg(8, 8), png_of(10, 10, b"\x00" * 1_000_000)):
        try:
            pixels = decoder.decode(data)
        except PictureError:
            continue
        assert pixels.size <= 3 * MOST


@given(st.binary(max_size=300), st.integers(0, len(JPEG)), st.sampled_from([".jpg", ".png", ".webp"]))
def test_no_damage_breaks_the_decoder(decoder: PictureDecoder, junk: bytes, at: int, kind: str) -> None:
    whole = picture(kind, 64, 48)
    data = whole[:at] + junk + whole[at + len(junk) :]
    with contextlib.suppress(PictureError):
        assert decoder.decode(data).size <= 3 * MOST


def test_base64_is_read_in_both_alphabets_padded_or_not() -> None:
    data = bytes(range(256))[:-1] + b"\xfb\xff"
    for coded in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()):
        assert from_base64(coded, most_bytes=300) == data
        assert from_base64(coded.rstrip("="), most_bytes=300) == data
    for wrong in ("A", "AB=C", "AA A", "ééé"):
        with pytest.raises(PictureError):
            from_base64(wrong, most_bytes=300)


def test_a_picture_behind_millions_of_empty_segments_is_refused_before_they_are_walked_through() -> None:
    data = picture()
    few, many = (data[:2] + b"\xff\xe0\x00\x02" * count + data[2:] for count in (1000, 5000))
    assert count_pixels(few, MOST) == 16 * 12
    with pytest.raises(PictureError, match="header is damaged"):
        count_pixels(many, MOST)
