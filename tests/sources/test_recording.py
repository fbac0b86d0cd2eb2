"""Recorded sessions: what goes in comes out, bit for bit; anything else is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.media import picture, png_header_bomb, write_image

from inf_stream.base.errors import SourceError
from inf_stream.base.events import Frame, Pixels, Question
from inf_stream.session.replay import ExecutedStep, GiveAnswer
from inf_stream.session.steps import IngestFrames, IngestText
from inf_stream.sources.recorder import Recorder
from inf_stream.sources.recording import Recording

PLENTY = 1 << 30


def frames(*numbers: int) -> IngestFrames:
    return IngestFrames(tuple(Frame(picture(n), n * 10**9, n) for n in numbers))


STEPS: list[ExecutedStep] = [
    frames(0, 1),
    IngestText("ein Text\nwith \x00, \ud800 and 漢字 🎈", 5),
    frames(5),
    GiveAnswer(Question("q1", "What now?", 7, 64), 12),
    GiveAnswer(Question("", "", 0), 0),
]


def record(folder: Path, steps: list[ExecutedStep], limit_bytes: int = PLENTY) -> list[str]:
    """Record the steps; the warnings."""
    warnings: list[str] = []
    with Recorder(folder, limit_bytes, warnings.append, {"model": "tiny"}) as recorder:
        for step in steps:
            recorder.record(step)
    return warnings


def assert_same(found: list[ExecutedStep], steps: list[ExecutedStep]) -> None:
    assert len(found) == len(steps)
    for one, other in zip(found, steps, strict=True):
        if not isinstance(one, IngestFrames) or not isinstance(other, IngestFrames):
            assert one == other
            continue
        assert [(f.at_ns, f.number) for f in one.frames] == [(f.at_ns, f.number) for f in other.frames]
        for a, b in zip(one.frames, other.frames, strict=True):
            assert a.pixels.dtype == np.uint8
            assert np.array_equal(a.pixels, b.pixels)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    record(tmp_path / "session", STEPS)
    return tmp_path / "session"


# ---- writing and reading ---------------------------------------------------------------------------


def test_steps_come_back_in_order_with_their_grouping(recorded: Path):
    recording = Recording(recorded)
    assert recording.about == {"model": "tiny"}
    for _ in range(2):
        assert_same(list(recording), STEPS)


PIXELS = st.builds(
    lambda seed, height, width: np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8),
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(1, 40),
)


@given(st.lists(st.lists(PIXELS, min_size=1, max_size=3), max_size=4))
def test_any_picture_survives_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, groups: list[list[Pixels]]):
    folder = tmp_path_factory.mktemp("recording")
    steps: list[ExecutedStep] = [IngestFrames(tuple(Frame(p, 0, 0) for p in group)) for group in groups]
    record(folder, steps)
    assert_same(list(Recording(folder)), steps)


def test_picture_that_lies_scattered_in_memory(tmp_path: Path):
    pixels = picture(3)[::-1, ::2]
    assert not pixels.flags.c_contiguous
    steps: list[ExecutedStep] = [IngestFrames((Frame(pixels, 0, 0),))]
    record(tmp_path, steps)
    assert_same(list(Recording(tmp_path)), steps)


def test_frames_are_read_when_their_step_comes(recorded: Path):
    steps = iter(Recording(recorded))
    next(steps)
    (recorded / "frames" / "00000002.png").unlink()
    next(steps)
    with pytest.raises(SourceError, match=r"line 4 of events\.jsonl .*00000002\.png.*cannot be read"):
        next(steps)


def test_recording_without_steps(tmp_path: Path):
    record(tmp_path, [])
    assert list(Recording(tmp_path)) == []


def test_the_end_mark_is_told(recorded: Path):
    recording = Recording(recorded)
    for _ in range(2):
        steps = iter(recording)
        next(steps)
        assert not recording.has_end
        list(steps)
        assert recording.has_end


def test_steps_behind_the_end_mark_are_damage(recorded: Path):
    with (recorded / "events.jsonl").open("ab") as events:
        events.write(b'{"type":"text","text":"a","at_ns":0}\n')
    assert "line 8 of events.jsonl is behind the end mark" in refusal(recorded)


# ---- limits of writing -----------------------------------------------------------------------------


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_written_bytes_are_the_size_on_disk(tmp_path: Path):
    with Recorder(tmp_path, PLENTY, pytest.fail) as recorder:
        for step in STEPS:
            recorder.record(step)
            assert recorder.written_bytes == size_bytes(tmp_path)
    assert recorder.written_bytes == size_bytes(tmp_path)


@pytest.mark.parametrize("spare_bytes", [-1, 0])
def test_limit_stops_recording_with_one_warning(tmp_path: Path, spare_bytes: int):
    record(tmp_path / "two", STEPS[:2])
    limit = size_bytes(tmp_path / "two") + spare_bytes
    warnings = record(tmp_path / "limited", STEPS * 3, limit)
    assert len(warnings) == 1
    assert f"{limit} are allowed" in warnings[0]
    assert "the session goes on" in warnings[0]
    assert size_bytes(tmp_path / "limited") <= limit
    recording = Recording(tmp_path / "limited")
    assert_same(list(recording), STEPS[: 2 + spare_bytes])
    assert not recording.has_end


def test_small_steps_after_the_limit_are_not_recorded_either(tmp_path: Path):
    warnings = record(tmp_path, [frames(1), IngestText("small", 0)], limit_bytes=1000)
    assert len(warnings) == 1
    assert list(Recording(tmp_path)) == []


def test_full_disk_stops_recording_with_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    warnings: list[str] = []
    real, calls = Path.write_bytes, []

    def full(self: Path, data: bytes) -> int:
        calls.append(1)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with Recorder(tmp_path, PLENTY, warnings.append) as recorder:
        for step in [*STEPS, frames(6, 7), *STEPS]:
            recorder.record(step)
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]
    assert_same(list(Recording(tmp_path)), STEPS)


class HalfWritten:
    """A file on a disk that is full in the middle of a line."""

    def __init__(self, real: Any, *, truncates: bool):
        self.real, self.truncates = real, truncates

    def write(self, line: bytes) -> None:
        self.real.write(line[:10])
        raise OSError(28, "No space left on device")

    def truncate(self, size: int) -> None:
        if not self.truncates:
            raise OSError(5, "Input/output error")
        self.real.truncate(size)

    def close(self) -> None:
        self.real.close()


@pytest.mark.parametrize("truncates", [True, False])
def test_line_half_written_is_taken_back(tmp_path: Path, truncates: bool):
    warnings: list[str] = []
    recorder = Recorder(tmp_path, PLENTY, warnings.append)
    recorder.record(STEPS[0])
    recorder._events = HalfWritten(recorder._events, truncates=truncates)  # type: ignore[assignment]
    recorder.record(STEPS[1])
    recorder.record(STEPS[1])
    assert len(warnings) == 1
    if truncates:
        assert_same(list(Recording(tmp_path)), STEPS[:1])
    else:
        with pytest.raises(SourceError, match=r"line 3 of events\.jsonl is cut off"):
            list(Recording(tmp_path))


def test_end_mark_that_does_not_fit_the_disk_is_missing(tmp_path: Path):
    recorder = Recorder(tmp_path, PLENTY, pytest.fail)
    recorder.record(STEPS[1])
    real = recorder._events
    recorder._events = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    recorder.close()
    real.close()
    recording = Recording(tmp_path)
    assert_same(list(recording), STEPS[1:2])
    assert not recording.has_end


def test_folder_with_something_in_it_is_not_recorded_into(tmp_path: Path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(SourceError, match="is not empty"):
        Recorder(tmp_path, PLENTY, pytest.fail)


def test_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SourceError, match="cannot be recorded into"):
        Recorder(tmp_path / "file" / "session", PLENTY, pytest.fail)


def test_steps_after_the_end_are_ignored(tmp_path: Path):
    recorder = Recorder(tmp_path, PLENTY, pytest.fail)
    recorder.close()
    recorder.record(STEPS[0])
    assert list(Recording(tmp_path)) == []


# ---- refused on reading ----------------------------------------------------------------------------


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def changed(folder: Path, number: int, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the object in a line, counted from 1."""
    found = lines(folder)
    result = change(found[number - 1])
    if result is not None:
        found[number - 1] = result
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(SourceError) as caught:
        list(Recording(folder))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_folder(tmp_path: Path):
    assert "is not a recording: events.jsonl cannot be read (No such file" in refusal(tmp_path / "nowhere")


def test_folder_of_something_else(tmp_path: Path):
    write_image(tmp_path / "image.png", picture(1))
    assert "is not a recording" in refusal(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\n",
        b"hello\n",
        b"[]\n",
        b"{}\n",
        b"{",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"format": "other", "version": 1, "about": {}}\n',
        b'{"format": "inf-stream recording", "about": {}}\n',
        b'{"format": "inf-stream recording", "version": true, "about": {}}\n',
        b'{"format": "inf-stream recording", "version": 1}\n',
    ],
)
def test_foreign_header(tmp_path: Path, header: bytes):
    (tmp_path / "events.jsonl").write_bytes(header)
    assert "is not a recording" in refusal(tmp_path)


@pytest.mark.parametrize("version", [0, 2, 99])
def test_other_version(recorded: Path, version: int):
    message = refusal(changed(recorded, 1, lambda header: header.update(version=version)))
    assert f"is of version {version}; this program reads version 1" in message


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (2, lambda step: step.update(type="dream")),
        (2, lambda step: step.pop("type")),
        (2, lambda step: step.update(frames=[])),
        (2, lambda step: step.update(frames="all")),
        (2, lambda step: step.update(extra=1)),
        (2, lambda step: step["frames"].append(None)),
        (2, lambda step: step["frames"][0].update(at_ns=1.5)),
        (2, lambda step: step["frames"][0].update(at_ns=-1)),
        (2, lambda step: step["frames"][0].update(number=True)),
        (2, lambda step: step["frames"][0].update(file=7)),
        (2, lambda step: step["frames"][0].update(extra=7)),
        (2, lambda step: step["frames"][0].pop("crc32")),
        (3, lambda step: step.update(text=None)),
        (3, lambda step: step.update(at_ns="5")),
        (3, lambda step: step.pop("at_ns")),
        (3, lambda step: step.update(extra=1)),
        (5, lambda step: step.update(decoding_steps=-1)),
        (5, lambda step: step.update(decoding_steps=None)),
        (5, lambda step: step.update(question="why?")),
        (5, lambda step: step.update(extra=1)),
        (5, lambda step: step["question"].update(text=1)),
        (5, lambda step: step["question"].update(max_tokens="many")),
        (5, lambda step: step["question"].update(extra=1)),
        (5, lambda step: step["question"].pop("id")),
        (3, lambda step: []),
        (3, lambda step: "text"),
    ],
)
def test_step_that_is_none(recorded: Path, number: int, change: Callable[[Any], Any]):
    message = refusal(changed(recorded, number, change))
    assert f"is damaged: line {number} of events.jsonl is not a" in message


def without_end(folder: Path) -> Path:
    """As a recorder leaves it that was killed."""
    events = folder / "events.jsonl"
    events.write_bytes(events.read_bytes().removesuffix(b'{"type":"end"}\n'))
    return folder


def test_line_cut_off(recorded: Path):
    events = without_end(recorded) / "events.jsonl"
    events.write_bytes(events.read_bytes()[:-20])
    assert "line 6 of events.jsonl is cut off" in refusal(recorded)


def test_garbage_in_the_middle(recorded: Path):
    events = recorded / "events.jsonl"
    data = events.read_bytes().split(b"\n")
    data[2] = b"\x80\x00garbage"
    events.write_bytes(b"\n".join(data))
    assert "line 3 of events.jsonl is not JSON" in refusal(recorded)


def test_steps_before_the_damage_are_given(recorded: Path):
    steps = iter(Recording(changed(recorded, 4, lambda step: [])))
    assert_same([next(steps), next(steps)], STEPS[:2])
    with pytest.raises(SourceError, match="line 4"):
        next(steps)


@pytest.mark.parametrize("file", ["../outside.png", "frames/../../outside.png", "/etc/passwd", "link.png"])
def test_path_outside_of_the_recording(recorded: Path, file: str):
    write_image(recorded.parent / "outside.png", picture(0))
    (recorded / "link.png").symlink_to(recorded.parent / "outside.png")
    message = refusal(changed(recorded, 2, lambda step: step["frames"][0].update(file=file)))
    assert "outside of the recording" in message


def test_file_name_that_is_none(recorded: Path):
    assert "which is damaged" in refusal(changed(recorded, 2, lambda s: s["frames"][0].update(file="a\0b")))


def replace_first_frame(recorded: Path, data: bytes) -> str:
    (recorded / "frames" / "00000000.png").write_bytes(data)
    return refusal(recorded)


def test_frame_replaced_by_another(recorded: Path):
    shutil.copy(recorded / "frames" / "00000001.png", recorded / "frames" / "00000000.png")
    assert "is not the one recorded" in refusal(recorded)


def test_frame_cut_off(recorded: Path):
    data = (recorded / "frames" / "00000000.png").read_bytes()
    assert "line 2" in replace_first_frame(recorded, data[: len(data) // 2])


def test_frame_that_is_no_image(recorded: Path):
    assert "which is damaged" in replace_first_frame(recorded, b"hello")
    assert "which is damaged" in replace_first_frame(recorded, b"")


def test_frame_of_another_kind(recorded: Path):
    grey = cv2.imencode(".png", picture(0)[..., 0])[1].tobytes()
    deep = cv2.imencode(".png", picture(0).astype(np.uint16))[1].tobytes()
    for data in (grey, deep):
        assert "is not the one recorded" in replace_first_frame(recorded, data)


def test_frame_that_is_a_bomb(recorded: Path):
    assert "20000 x 20000 pixels" in replace_first_frame(recorded, png_header_bomb(20_000, 20_000))


@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_in_a_frame_is_found_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: float, bit: int
):
    folder = tmp_path_factory.mktemp("flipped") / "session"
    record(folder, STEPS[:1])
    path = folder / "frames" / "00000000.png"
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(bytes(data))
    try:
        found = list(Recording(folder))
    except SourceError:
        return
    assert_same(found, STEPS[:1])
