"""Video files: which frames come, when, in which shape; and what is left of damaged ones."""

import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.media import corners, cut_short, garble, number_of, numbered_clip, picture
from support.playing import Seen, play

from inf_stream.base.config import SourceSettings
from inf_stream.base.events import Pixels
from inf_stream.sources import open_source
from inf_stream.sources.container import Damage, Decoded, decode, decode_with, open_container

FAST_START = {"movflags": "faststart"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds, 10 frames a second."""
    return numbered_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 30)


# ---- sampling and time -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "numbers"),
    [
        (1.0, [0, 10, 20]),
        (2.0, [0, 5, 10, 15, 20, 25]),
        (3.0, [0, 4, 7, 10, 14, 17, 20, 24, 27]),
        (0.5, [0, 20]),
        (10.0, list(range(30))),
        (240.0, list(range(30))),
    ],
)
def test_frames_on_the_grid_with_their_own_times(clip: Path, fps: float, numbers: list[int]):
    seen = play(clip, fps)
    assert seen.numbers == numbers
    assert seen.times_ms == [100 * n for n in numbers]
    assert [f.number for f in seen.frames] == list(range(len(numbers)))
    assert seen.notices == []


def test_frames_are_the_pictures_encoded(clip: Path):
    frame = play(clip).frames[1]
    assert frame.pixels.shape == (96, 160, 3)
    assert frame.pixels.dtype == np.uint8
    assert np.abs(frame.pixels.astype(int) - picture(10)).mean() < 6


def test_variable_frame_rate(tmp_path: Path):
    times = [0, 100, 900, 1000, 1100, 5000, 5900, 6300]
    seen = play(numbered_clip(tmp_path / "vfr.mp4", 8, at_ms=times))
    assert seen.times_ms == [0, 1000, 5000, 6300]
    assert seen.numbers == [0, 3, 5, 7]


@given(st.lists(st.integers(20, 2500), min_size=3, max_size=12))
def test_any_variable_rate_keeps_every_time(tmp_path_factory: pytest.TempPathFactory, gaps: list[int]):
    times = [0, *np.cumsum(gaps).tolist()]
    path = tmp_path_factory.mktemp("vfr") / "clip.mkv"
    seen = play(numbered_clip(path, len(times), at_ms=times), fps=100.0)
    assert seen.times_ms == times
    assert seen.numbers == list(range(len(times)))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_timestamps_that_start_late_are_rebased(tmp_path: Path, suffix: str):
    times = [100_000 + 100 * i for i in range(25)]
    seen = play(numbered_clip(tmp_path / f"late{suffix}", 25, at_ms=times))
    assert seen.times_ms == [0, 1000, 2000]
    assert seen.numbers == [0, 10, 20]


def test_stream_without_timestamps_takes_the_nominal_rate(tmp_path: Path):
    seen = play(numbered_clip(tmp_path / "bare.h264", 30, container="h264"))
    assert seen.times_ms == [0, 1000, 2000]
    assert seen.numbers == [0, 10, 20]


def test_sound_is_ignored(tmp_path: Path):
    clip = numbered_clip(tmp_path / "talkie.mp4", 30, audio=True)
    with av.open(str(clip)) as container:
        assert len(container.streams.audio) == 1
    assert play(clip).numbers == [0, 10, 20]


@pytest.mark.parametrize(("name", "codec"), [("c.avi", "mjpeg"), ("c.mkv", "libx264"), ("c.mov", "mpeg4")])
def test_other_formats(tmp_path: Path, name: str, codec: str):
    assert play(numbered_clip(tmp_path / name, 30, codec=codec)).numbers == [0, 10, 20]


def test_colon_and_percent_in_a_file_name(tmp_path: Path):
    assert play(numbered_clip(tmp_path / "http:%03d?.mp4", 12)).numbers == [0, 10]


def test_file_address(clip: Path):
    assert play(f"file://{clip}").numbers == [0, 10, 20]


def test_file_address_is_unquoted(tmp_path: Path):
    numbered_clip(tmp_path / "a b.mp4", 2)
    assert play(f"file://localhost{tmp_path}/a%20b.mp4").numbers == [0]


def test_pipe_is_played_while_it_is_written(tmp_path: Path):
    broadcast = numbered_clip(tmp_path / "clip.ts", 60).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(broadcast,))
    writer.start()
    seen = play(pipe, frame_size=lambda width, height: (80, 48))
    writer.join()
    assert seen.numbers == [0, 10, 20, 30, 40, 50]
    assert {f.pixels.shape for f in seen.frames} == {(48, 80, 3)}


# ---- shape -----------------------------------------------------------------------------------------


def test_frame_size_is_asked_and_obeyed(clip: Path):
    seen = play(clip, frame_size=lambda width, height: (width // 2, height * 2))
    assert {f.pixels.shape for f in seen.frames} == {(192, 80, 3)}
    assert seen.numbers == [0, 10, 20]


def test_frame_size_set_after_opening(clip: Path):
    with open_source(str(clip), SourceSettings()) as source:
        source.frame_size = lambda width, height: (32, 48)
        assert [f.pixels.shape for f in Seen(source).frames] == [(48, 32, 3)] * 3


def test_pixels_that_are_not_square(tmp_path: Path):
    asked: list[tuple[int, int]] = []

    def frame_size(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return width, height

    clip = numbered_clip(tmp_path / "wide.mp4", 2, sar=Fraction(2))
    assert play(clip, frame_size=frame_size).frames[0].pixels.shape == (96, 320, 3)
    assert asked == [(320, 96)]


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def yuv_frame(pixels: Pixels, weights: tuple[float, float]) -> av.VideoFrame:
    """Limited-range yuv420p by the standards' formula, from the weights of red and blue."""
    red, green, blue = (pixels[..., i] / 255 for i in range(3))
    of_red, of_blue = weights
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    chroma = [(blue - luma) / (1 - of_blue), (red - luma) / (1 - of_red)]
    planes = [16 + 219 * luma, *(128 + 112 * c[::2, ::2] for c in chroma)]
    flat = np.concatenate([np.round(p).astype(np.uint8).ravel() for p in planes])
    return av.VideoFrame.from_ndarray(flat.reshape(-1, pixels.shape[1]), format="yuv420p")


@pytest.mark.parametrize(("size", "weights"), [((640, 480), BT601), ((1280, 720), BT709)])
def test_unlabelled_video_has_the_colours_of_its_size(
    tmp_path: Path, size: tuple[int, int], weights: tuple[float, float]
):
    with av.open(str(tmp_path / "clip.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        out.mux(stream.encode(yuv_frame(corners(*size), weights)))
        out.mux(stream.encode(None))
    pixels = play(tmp_path / "clip.mkv").frames[0].pixels
    for row, column in [(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]:
        at = int(row * size[1]), int(column * size[0])
        assert np.abs(pixels[at].astype(int) - corners(*size)[at]).max() <= 3


def test_only_sampled_frames_are_converted(clip: Path, monkeypatch: pytest.MonkeyPatch):
    shaped = []
    from inf_stream.sources.shaping import Shaper

    real = Shaper.shape
    monkeypatch.setattr(Shaper, "shape", lambda *a, **k: (shaped.append(1), real(*a, **k))[1])
    assert len(play(clip).frames) == len(shaped) == 3


# ---- the contract ----------------------------------------------------------------------------------


def test_facts_for_people_and_progress_bars(clip: Path):
    with open_source(str(clip), SourceSettings()) as source:
        assert not source.live
        assert source.duration_ns == 3_000_000_000
        assert source.describe() == f"{clip} (160 x 96, h264, 00:03)"


def test_unknown_length(tmp_path: Path):
    with open_source(str(numbered_clip(tmp_path / "bare.h264", 5, container="h264")), SourceSettings()) as source:
        assert source.duration_ns is None
        assert source.describe().endswith("(160 x 96, h264)")


def test_close_ends_the_iteration_from_another_thread(clip: Path):
    source = open_source(str(clip), SourceSettings())
    next(source)
    closer = threading.Thread(target=lambda: (source.close(), source.close()))
    closer.start()
    closer.join(10)
    assert not closer.is_alive()
    assert list(source) == []


def test_close_during_decoding_stops_before_the_next_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import inf_stream.sources.player as player

    decoded = []

    def watched(container, stream):
        for item in decode(container, stream):
            decoded.append(item)
            if len(decoded) == 5:
                source._closed = True
            yield item

    monkeypatch.setattr(player, "decode", watched)
    source = open_source(str(numbered_clip(tmp_path / "clip.mp4", 30)), SourceSettings())
    assert len(Seen(source).frames) == 1
    assert len(decoded) == 5


# ---- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_truncated_file_yields_what_is_there_and_says_so(tmp_path: Path, suffix: str):
    options = FAST_START if suffix == ".mp4" else None
    clip = cut_short(numbered_clip(tmp_path / f"cut{suffix}", 60, options=options), 0.6)
    seen = play(clip)
    assert seen.numbers == [0, 10, 20]
    assert seen.times_ms == [0, 1000, 2000]
    assert "it was cut short" in seen.notices[-1]
    assert "should last 00:06" in seen.notices[-1]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_corrupt_bytes_in_the_middle_cost_only_themselves(tmp_path: Path, suffix: str):
    options = FAST_START if suffix == ".mp4" else None
    clip = garble(numbered_clip(tmp_path / f"bad{suffix}", 80, options=options), 0.5, 0.6)
    seen = play(clip)
    assert seen.numbers[:4] == [0, 10, 20, 30]
    assert seen.numbers[-2:] == [60, 70]
    assert seen.times_ms[-2:] == [6000, 7000]
    assert "is damaged at 00:0" in seen.notices[0]
    assert "going on with what can be decoded" in seen.notices[0]
    assert len(seen.notices) <= 2


def test_decoding_is_on_one_thread(clip: Path):
    with open_container(str(clip), "clip") as container:
        context = container.streams.video[0].codec_context
        assert (context.thread_type.name, context.thread_count) == ("NONE", 1)


def test_much_damage_is_summed_up_in_two_notices(tmp_path: Path):
    clip = numbered_clip(tmp_path / "bad.mp4", 80, options=FAST_START)
    for start in (0.3, 0.5, 0.7):
        garble(clip, start, start + 0.08)
    notices = play(clip).notices
    assert len(notices) == 2
    assert "damaged pieces" in notices[1]


def test_whole_clip_has_no_notices(clip: Path):
    assert play(clip).notices == []


def test_long_pause_in_an_indexed_file_is_no_damage(tmp_path: Path):
    times = [*range(0, 4000, 100), 30_000, 30_100]
    assert play(numbered_clip(tmp_path / "slides.mp4", len(times), at_ms=times)).notices == []


def test_hole_in_a_file_without_an_index_is_damage(tmp_path: Path):
    times = [*range(0, 4000, 100), *range(7000, 9000, 100)]
    seen = play(numbered_clip(tmp_path / "hole.mkv", len(times), at_ms=times))
    assert seen.times_ms == [0, 1000, 2000, 3000, 7000, 8000]
    assert len(seen.notices) == 1
    assert "no pictures from 00:04 to 00:07" in seen.notices[0]


class FailingReads:
    """Packets that cannot be read, then the end."""

    def __init__(self, *failures: Exception):
        self.failures = list(failures)
        self.reads = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.reads += 1
        if self.failures:
            raise self.failures.pop(0)
        raise StopIteration

    def decoded(self) -> list[Decoded]:
        return list(decode_with(lambda: self, lambda packet: []))


def test_reads_of_damaged_data_are_tried_again():
    reads = FailingReads(*[av.error.InvalidDataError(1, "bad")] * 3)
    assert [d.is_final for d in reads.decoded()] == [False] * 3
    assert reads.reads == 4


def test_reads_that_keep_failing_are_given_up():
    assert len(FailingReads(*[av.error.InvalidDataError(1, "bad")] * 1000).decoded()) == 16


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (av.error.ConnectionResetError(104, "Connection reset by peer"), "connection reset by peer"),
        (av.error.TimeoutError(110, "Connection timed out"), "no answer in time"),
        (av.error.ExitError(1, "Immediate exit requested"), "no answer in time"),
        (
            av.error.OSError(5, "Input/output error"),
            "input/output error: no such host, or the connection or disk broke",
        ),
    ],
)
def test_broken_disk_or_connection_is_final(error: Exception, reason: str):
    reads = FailingReads(error, ValueError("read again"))
    assert reads.decoded() == [Damage(reason, is_final=True)]


def test_frame_that_cannot_be_converted_is_left_out(clip: Path, monkeypatch: pytest.MonkeyPatch):
    from inf_stream.sources.shaping import Shaper

    real = Shaper.shape

    def fails_at_second(self, frame, *rest):
        pixels = real(self, frame, *rest)
        if number_of(pixels) == 10:
            raise av.error.InvalidDataError(22, "Invalid argument")
        return pixels

    monkeypatch.setattr(Shaper, "shape", fails_at_second)
    seen = play(clip)
    assert seen.numbers == [0, 20]
    assert [f.number for f in seen.frames] == [0, 1]
    assert "the data is damaged" in seen.notices[0]


def test_truncated_stream_without_a_header_still_plays(tmp_path: Path):
    assert play(cut_short(numbered_clip(tmp_path / "cut.ts", 60), 0.6)).numbers[:3] == [0, 10, 20]


def test_every_way_to_cut_a_clip_plays_or_is_refused(tmp_path: Path):
    from inf_stream.base.errors import SourceError

    whole = numbered_clip(tmp_path / "whole.mkv", 12).read_bytes()
    path = tmp_path / "cut.mkv"
    played = 0
    for length in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:length])
        try:
            played += len(play(path, fps=10.0).frames)
        except SourceError:
            continue
    assert played > 60
