"""Rotation metadata of clips and EXIF tags of photos, all eight of each."""

import math
from pathlib import Path

import numpy as np
import pytest
from support.media import corner_colours, corners, write_clip, write_image
from support.playing import play

from inf_stream.sources.image_header import ImageHeader, read_header
from inf_stream.sources.orientation import UPRIGHT, Orientation, of_exif, of_matrix

R, G, B, Y = "red", "green", "blue", "yellow"
EXIF = {
    1: [R, G, B, Y],
    2: [G, R, Y, B],
    3: [Y, B, G, R],
    4: [B, Y, R, G],
    5: [R, B, G, Y],
    6: [B, R, Y, G],
    7: [Y, G, B, R],
    8: [G, Y, R, B],
}
CLOCKWISE = {0: EXIF[1], 90: EXIF[6], 180: EXIF[3], 270: EXIF[8]}


@pytest.mark.parametrize(("tag", "colours"), EXIF.items())
def test_exif_orientation_of_photos(tmp_path: Path, tag: int, colours: list[str]):
    frame = play(write_image(tmp_path / "photo.jpg", corners(), tag)).frames[0]
    assert corner_colours(frame.pixels) == colours
    assert frame.pixels.shape == ((160, 96, 3) if tag >= 5 else (96, 160, 3))


@pytest.mark.parametrize(("degrees", "colours"), CLOCKWISE.items())
def test_rotation_metadata_of_clips(tmp_path: Path, degrees: int, colours: list[str]):
    asked: list[tuple[int, int]] = []

    def frame_size(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return width // 2, height // 4

    clip = write_clip(tmp_path / "turned.mp4", [corners()] * 3, degrees=-degrees)
    frame = play(clip, frame_size=frame_size).frames[0]
    assert corner_colours(frame.pixels) == colours
    assert asked == [(96, 160) if degrees in (90, 270) else (160, 96)]
    assert frame.pixels.shape == (asked[0][1] // 4, asked[0][0] // 2, 3)
    assert frame.pixels.flags.c_contiguous


def test_mirrored_clip(tmp_path: Path):
    clip = write_clip(tmp_path / "mirrored.mp4", [corners()] * 3, hflip=True)
    assert corner_colours(play(clip).frames[0].pixels) == EXIF[2]


@pytest.mark.parametrize("degrees", range(0, 360, 10))
def test_matrix_of_any_angle_is_the_nearest_quarter_turn(degrees: int):
    cos, sin = (round(65536 * f(math.radians(degrees))) for f in (math.cos, math.sin))
    turned = of_matrix(cos, sin, 0, -sin, cos)
    nearest = round(degrees / 90) % 4 * 90
    assert corner_colours(turned.apply(corners())) == CLOCKWISE[nearest]


@pytest.mark.parametrize("tag", EXIF)
def test_size_agrees_with_the_turned_picture(tag: int):
    turn = of_exif(tag)
    pixels = turn.apply(corners(40, 20))
    assert turn.size(40, 20) == (pixels.shape[1], pixels.shape[0])
    assert turn.size(*turn.size(40, 20)) == (40, 20)


def test_unknown_tag_is_upright():
    assert of_exif(0) == of_exif(9) == UPRIGHT == Orientation()
    assert np.array_equal(UPRIGHT.apply(corners()), corners())


# ---- headers ---------------------------------------------------------------------------------------


def jpeg(tmp_path: Path, tag: int = 6) -> bytes:
    return write_image(tmp_path / "photo.jpg", corners(40, 20), tag).read_bytes()


def test_header_of_a_photo(tmp_path: Path):
    assert read_header(jpeg(tmp_path)) == ImageHeader((40, 20), 6)


def test_header_of_a_png(tmp_path: Path):
    assert read_header(write_image(tmp_path / "p.png", corners(40, 20)).read_bytes()) == ImageHeader((40, 20), None)


def test_header_of_anything_else_is_unknown(tmp_path: Path):
    bmp = write_image(tmp_path / "p.bmp", corners(40, 20)).read_bytes()
    assert read_header(bmp) == read_header(b"") == ImageHeader()


def test_little_endian_exif(tmp_path: Path):
    big = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    little = b"II\x2a\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    data = jpeg(tmp_path)
    assert big in data
    assert read_header(data.replace(big, little)).orientation == 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"MM\x00\x2a", b"XX\x00\x2a"),
        (b"\x00\x00\x00\x08\x00\x01", b"\x00\xff\x00\x08\x00\x01"),
        (b"\x00\x08\x00\x01\x01\x12", b"\x00\x08\x00\x01\x01\x13"),
        (b"\x00\x08\x00\x01\x01\x12", b"\x00\x08\xff\xff\x01\x13"),
    ],
    ids=["byte order", "offset", "other tag", "count"],
)
def test_damaged_exif_is_no_orientation(tmp_path: Path, old: bytes, new: bytes):
    data = jpeg(tmp_path)
    assert data.count(old) == 1
    assert read_header(data.replace(old, new)) == ImageHeader((40, 20), None)


def test_headers_cut_anywhere_do_not_fail(tmp_path: Path):
    data = jpeg(tmp_path)
    found = {read_header(data[:length]) for length in range(len(data))}
    assert found == {ImageHeader(), ImageHeader(None, 6), ImageHeader((40, 20), 6)}
