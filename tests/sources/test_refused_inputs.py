"""Everything that cannot be played is refused in one clear sentence, soon."""

import contextlib
import os
import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from support.media import (
    cut_short,
    garble,
    numbered_clip,
    picture,
    png_header_bomb,
    write_audio,
    write_image,
    write_images,
    write_song,
    write_wave,
)

from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.sources import MAX_PIXELS, open_source

SETTINGS = SourceSettings(connect_timeout_s=2.0)


def refusal(address: object) -> str:
    """The message with which an address is refused."""
    with pytest.raises(SourceError) as caught:
        open_source(str(address), SETTINGS)
    message = str(caught.value)
    assert "\n" not in message
    return message


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# ---- files -----------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path):
    assert "No such file" in refusal(tmp_path / "nowhere.mp4")


def test_missing_folder_in_the_path(tmp_path: Path):
    assert "No such file" in refusal(tmp_path / "nowhere" / "clip.mp4")


def test_path_through_a_file(tmp_path: Path):
    assert "Not a directory" in refusal(written(tmp_path / "a.txt", b"x") / "clip.mp4")


def test_name_too_long_for_a_file_system():
    assert "File name too long" in refusal("x" * 5000)


def test_zero_byte_in_a_name():
    assert "is not a file name" in refusal("a\0b.mp4")


def test_empty_name():
    assert "empty" in refusal("")


def test_empty_file(tmp_path: Path):
    message = refusal(written(tmp_path / "empty.mp4", b""))
    assert "is empty (0 bytes)" in message
    assert "camera:0" in message


def test_text_file_named_mp4(tmp_path: Path):
    assert "damaged, cut short, or of an unknown kind" in refusal(written(tmp_path / "text.mp4", b"hello world\n" * 99))


def test_text_file(tmp_path: Path):
    assert "is text, not video" in refusal(written(tmp_path / "text.txt", b"hello world\n" * 99))


def test_random_bytes(tmp_path: Path):
    refusal(written(tmp_path / "noise.bin", np.random.default_rng(1).bytes(5000)))


@pytest.mark.parametrize("name", ["sound.mp4", "sound.mkv"])
def test_sound_only(tmp_path: Path, name: str):
    assert "holds no video, only audio" in refusal(write_audio(tmp_path / name))


def test_uncompressed_sound(tmp_path: Path):
    assert "holds no video, only audio" in refusal(write_wave(tmp_path / "sound.wav"))


def test_sound_with_a_cover_picture(tmp_path: Path):
    assert "holds no video, only a cover picture, audio" in refusal(write_song(tmp_path / "song.m4a"))


def test_recording_cut_off_before_its_index(tmp_path: Path):
    assert "cut short" in refusal(cut_short(numbered_clip(tmp_path / "cut.mp4", 30), 0.7))


def test_damaged_header(tmp_path: Path):
    refusal(garble(numbered_clip(tmp_path / "bad.mp4", 30, options={"movflags": "faststart"}), 0.0, 0.3))


def test_header_without_a_single_picture(tmp_path: Path):
    clip = numbered_clip(tmp_path / "bad.mp4", 30, options={"movflags": "faststart"})
    data = clip.read_bytes()
    start = data.index(b"mdat") + 4
    clip.write_bytes(data[:start] + np.random.default_rng(2).bytes(len(data) - start))
    assert "no picture of" in refusal(clip)


def test_unknown_codec(tmp_path: Path):
    clip = numbered_clip(tmp_path / "odd.avi", 3, codec="mjpeg")
    clip.write_bytes(clip.read_bytes().replace(b"MJPG", b"QQQQ"))
    assert "cannot decode" in refusal(clip)


def test_video_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import inf_stream.sources.container as container

    monkeypatch.setattr(container, "MAX_PIXELS", 160 * 96 - 1)
    message = refusal(numbered_clip(tmp_path / "clip.mp4", 2))
    assert "160 x 96 pixels; at most 15359" in message


def test_file_not_permitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = numbered_clip(tmp_path / "clip.mp4", 2)

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(clip))

    monkeypatch.setattr(Path, "stat", denied)
    assert "Permission denied" in refusal(clip)


def test_pipe_into_which_nobody_writes(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match=r"does not answer within 0\.2 s"):
        open_source(str(pipe), SourceSettings(connect_timeout_s=0.2))
    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))


def test_device_that_is_no_camera():
    assert "cannot be opened" in refusal("/dev/null")


# ---- images ----------------------------------------------------------------------------------------


def test_folder_without_images(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("hello")
    message = refusal(tmp_path)
    assert "holds no images" in message
    assert "jpg" in message


def test_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "cannot be listed: Permission denied" in refusal(tmp_path)


def test_image_of_no_bytes(tmp_path: Path):
    assert "is empty (0 bytes)" in refusal(written(tmp_path / "image.png", b""))


def test_folder_of_one_image_of_no_bytes(tmp_path: Path):
    (tmp_path / "image.png").write_bytes(b"")
    assert "image.png' cannot be read" in refusal(tmp_path)


def test_truncated_image(tmp_path: Path):
    assert "cannot be read" in refusal(cut_short(write_image(tmp_path / "image.png", picture(1)), 0.5))


def test_sound_named_as_image(tmp_path: Path):
    assert "cannot be read" in refusal(write_audio(tmp_path / "sound.mp4").rename(tmp_path / "image.png"))


def test_image_cut_off_at_any_byte_is_read_or_refused(tmp_path: Path):
    with av.open(str(tmp_path / "whole.gif"), "w") as out:
        stream = out.add_stream("gif", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "gray"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(1, 16, 16), format="rgb24").reformat(format="gray")))
        out.mux(stream.encode(None))
    whole = (tmp_path / "whole.gif").read_bytes()
    folder = tmp_path / "folder"
    folder.mkdir()
    for length in range(len(whole) - 200, len(whole) - 1):
        (folder / "image.gif").write_bytes(whole[:length])
        with contextlib.suppress(SourceError):
            open_source(str(folder), SETTINGS).close()


def test_image_bomb(tmp_path: Path):
    message = refusal(written(tmp_path / "bomb.png", png_header_bomb(20_000, 20_000)))
    assert f"20000 x 20000 pixels; at most {MAX_PIXELS}" in message


def test_jpeg_bomb(tmp_path: Path):
    data = bytearray(write_image(tmp_path / "image.jpg", picture(1)).read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    assert "65000 x 65000 pixels" in refusal(written(tmp_path / "bomb.jpg", bytes(data)))


def test_bomb_whose_header_is_not_known_is_stopped_by_the_decoder(tmp_path: Path):
    data = bytearray(write_image(tmp_path / "image.bmp", picture(1)).read_bytes())
    data[18:26] = struct.pack("<ii", 30_000, 30_000)
    assert "cannot be read" in refusal(written(tmp_path / "bomb.bmp", bytes(data)))


def test_png_with_a_wrong_checksum(tmp_path: Path):
    good = cv2.imencode(".png", picture(1))[1].tobytes()
    body = good[:16] + struct.pack(">II", 1 << 31, 5) + good[24:29]
    refusal(written(tmp_path / "image.png", body + struct.pack(">I", zlib.crc32(b"?")) + good[33:]))


# ---- addresses and cameras by name -----------------------------------------------------------------


@pytest.mark.parametrize("address", ["gopher://host/clip", "javascript://x", "://x"])
def test_unknown_scheme(address: str):
    assert "is not an address that can be played" in refusal(address)


def test_unknown_scheme_names_the_nearest():
    assert "did you mean 'rtsp'?" in refusal("rtsq://host/clip")


@pytest.mark.parametrize("address", ["http://", "rtsp:///path", "http://:80/x"])
def test_address_without_host(address: str):
    assert "names no host" in refusal(address)


@pytest.mark.parametrize("address", ["http://[bad/x", "http://host:port/x", "http://host:99999/x"])
def test_address_that_is_none(address: str):
    assert "not valid" in refusal(address)


def test_camera_that_does_not_exist():
    assert "camera:997 does not exist" in refusal("camera:997")


def test_camera_device_that_does_not_exist():
    assert "camera:998 does not exist" in refusal("/dev/video998")


@pytest.mark.parametrize("address", ["camera:-1", "camera:", "camera:front", "camera:1000", "camera:1.5", "Camera:²"])
def test_camera_that_is_no_number(address: str):
    assert "is not a number from 0 to 999" in refusal(address)


def test_all_images_in_a_folder_are_bombs(tmp_path: Path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png_header_bomb(20_000, 20_000))
    assert "none of the 2 images" in refusal(tmp_path)


def test_folder_named_like_a_file(tmp_path: Path):
    folder = write_images(tmp_path / "clip.mp4", 1)
    open_source(str(folder), SETTINGS).close()
