"""Folders of images, and single ones."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.media import cut_short, numbered_clip, picture, write_image, write_images
from support.playing import Seen, play

from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.sources import open_source


def test_one_image_per_frame_at_the_sampling_rate(tmp_path: Path):
    seen = play(write_images(tmp_path / "folder", 4), fps=2.0)
    assert seen.numbers == [0, 1, 2, 3]
    assert seen.times_ms == [0, 500, 1000, 1500]
    assert [f.number for f in seen.frames] == [0, 1, 2, 3]


def test_images_are_exact(tmp_path: Path):
    frames = play(write_images(tmp_path / "folder", 2)).frames
    assert all(np.array_equal(frame.pixels, picture(i)) for i, frame in enumerate(frames))


def test_name_order_takes_numbers_by_value(tmp_path: Path):
    for number, name in enumerate(["a.png", "b2.png", "b10.png", "b10c.png", "c.png"]):
        write_image(tmp_path / name, picture(number))
    assert play(tmp_path).numbers == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".ppm", ".JPG"])
def test_kinds_of_images(tmp_path: Path, suffix: str):
    assert play(write_images(tmp_path / "folder", 2, suffix=suffix)).numbers == [0, 1]


def test_grey_and_transparent_images_become_rgb(tmp_path: Path):
    for name, code in [("a.png", cv2.COLOR_RGB2GRAY), ("b.png", cv2.COLOR_RGB2BGRA)]:
        cv2.imwrite(str(tmp_path / name), cv2.cvtColor(picture(5), code))
    seen = play(tmp_path)
    assert seen.numbers == [5, 5]
    assert {f.pixels.shape for f in seen.frames} == {(96, 160, 3)}


def test_frame_size_is_obeyed(tmp_path: Path):
    seen = play(write_images(tmp_path / "folder", 2), frame_size=lambda width, height: (width // 2, height // 2))
    assert [f.pixels.shape for f in seen.frames] == [(48, 80, 3)] * 2


def test_other_and_hidden_files_are_left_alone(tmp_path: Path):
    write_images(tmp_path, 2)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".image.png").write_bytes(b"no image")
    (tmp_path / "more").mkdir()
    seen = play(tmp_path)
    assert seen.numbers == [0, 1]
    assert seen.notices == []


def test_only_files_are_images(tmp_path: Path):
    write_images(tmp_path, 2)
    (tmp_path / "image_0000b.png").mkdir()
    os.mkfifo(tmp_path / "image_0000c.png")
    seen = play(tmp_path)
    assert seen.numbers == [0, 1]
    assert seen.times_ms == [0, 1000]
    assert seen.notices == []


def test_a_link_to_nowhere_leaves_a_gap_and_a_notice(tmp_path: Path):
    write_images(tmp_path, 2)
    (tmp_path / "image_0000b.png").symlink_to("nowhere.png")
    seen = play(tmp_path)
    assert seen.times_ms == [0, 2000]
    assert "No such file" in seen.notices[0]


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_an_image_cut_in_the_middle_is_told(tmp_path: Path, suffix: str, share: float):
    write_images(tmp_path, 3, suffix=suffix)
    path = cut_short(tmp_path / f"image_0001{suffix}", share)
    seen = play(tmp_path)
    assert [number for number in seen.numbers if number != 1] == [0, 2]
    assert len(seen.notices) == 1
    assert path.name in seen.notices[0]
    assert ("is cut short; a part of its picture is missing" in seen.notices[0]) == (len(seen.frames) == 3)


def test_the_thumbnail_of_a_photograph_has_an_end_of_its_own(tmp_path: Path):
    for name in ("whole.jpg", "cut.jpg"):
        data = write_image(tmp_path / name, picture(1)).read_bytes()
        thumbnail = b"\xff\xd8 small \xff\xd9"
        (tmp_path / name).write_bytes(
            data[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail + data[2:]
        )
    cut_short(tmp_path / "cut.jpg", 0.7)
    assert [notice.split("'")[1].rsplit("/")[-1] for notice in play(tmp_path).notices] == ["cut.jpg"]


def test_unreadable_image_leaves_a_gap_and_a_notice(tmp_path: Path):
    write_images(tmp_path, 4)
    (tmp_path / "image_0001.png").write_bytes(b"")
    (tmp_path / "image_0002.png").write_bytes((tmp_path / "image_0003.png").read_bytes()[:300])
    seen = play(tmp_path)
    assert seen.numbers == [0, 3]
    assert seen.times_ms == [0, 3000]
    assert [f.number for f in seen.frames] == [0, 3]
    assert [name in notice for name, notice in zip(["image_0001", "image_0002"], seen.notices, strict=True)]


def test_first_image_unreadable(tmp_path: Path):
    write_images(tmp_path, 2)
    (tmp_path / "image_0000.png").write_bytes(b"")
    assert play(tmp_path).numbers == [1]


def test_image_named_as_such_is_a_stream_of_one(tmp_path: Path):
    seen = play(write_image(tmp_path / "one.png", picture(9)))
    assert seen.numbers == [9]


def test_image_name_with_a_pattern_in_it_is_only_a_name(tmp_path: Path):
    write_images(tmp_path, 3)
    assert play(write_image(tmp_path / "image_%04d.png", picture(77))).numbers == [77]


def test_animated_image_named_as_such_is_a_video(tmp_path: Path):
    clip = numbered_clip(tmp_path / "moving.mkv", 30)
    gif = tmp_path / "moving.gif"
    import av

    with av.open(str(clip)) as source, av.open(str(gif), "w") as out:
        stream = out.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "gray"
        for frame in source.decode(video=0):
            out.mux(stream.encode(frame.reformat(format="gray")))
        out.mux(stream.encode(None))
    assert len(play(gif).frames) == 3
    assert len(play(tmp_path).frames) == 1


def test_facts(tmp_path: Path):
    with open_source(str(write_images(tmp_path / "f", 3)), SourceSettings(fps=0.1)) as source:
        assert source.duration_ns == 30_000_000_000
        assert source.describe() == f"{tmp_path / 'f'} (3 images, 00:30)"
        assert not source.live
    with open_source(str(tmp_path / "f" / "image_0000.png"), SourceSettings()) as source:
        assert source.describe().endswith("image_0000.png (1 image, 00:01)")


def test_close_ends_the_iteration(tmp_path: Path):
    source = open_source(str(write_images(tmp_path, 3)), SourceSettings())
    next(source)
    source.close()
    assert Seen(source).events == []


def test_image_that_vanishes_is_a_notice(tmp_path: Path):
    with open_source(str(write_images(tmp_path, 3)), SourceSettings()) as source:
        (tmp_path / "image_0001.png").unlink()
        seen = Seen(source)
    assert seen.numbers == [0, 2]
    assert "No such file" in seen.notices[0]


def test_none_readable_is_an_error_at_once(tmp_path: Path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"no image at all")
    with pytest.raises(SourceError, match=r"none of the 2 images.*b\.jpg"):
        open_source(str(tmp_path), SourceSettings())
