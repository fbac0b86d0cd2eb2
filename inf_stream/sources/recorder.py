"""Writing a recorded session: the steps its engine made, in order, with every frame bit for bit.

A folder with ``events.jsonl`` (a header line, one JSON object a step, and an end mark) and ``frames/`` (PNG files);
`inf_stream.sources.recording` reads it. Without the end mark the recorder was killed, or had to stop before the session
ended.
"""

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2

from inf_stream.base.errors import SourceError
from inf_stream.base.events import Frame, Pixels
from inf_stream.session.replay import ExecutedStep, GiveAnswer
from inf_stream.session.steps import IngestFrames, IngestText

FORMAT, VERSION = "inf-stream recording", 1
EVENTS, FRAMES = "events.jsonl", "frames"
END = {"type": "end"}
_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def require_empty(folder: Path) -> None:
    """Refuse a folder to record into in which something lies; it need not exist.

    Raises:
        SourceError: it is not empty, or no folder.
    """
    try:
        is_empty = not folder.exists() or not any(folder.iterdir())
    except OSError as error:
        raise SourceError(f"folder '{folder}' cannot be recorded into: {error.strerror or error}") from error
    if not is_empty:
        raise SourceError(f"folder '{folder}' is not empty; give a new folder to record into")


class Recorder:
    """Writes a recording: `StepRecorder(recorder.record)` of `inf_stream.session.replay` observes a session for it.

    When the next step would make the recording larger than `limit_bytes`, or the disk refuses it, recording stops for
    good and `warn` is told once; the session goes on, and what was recorded until then can be replayed.

    Args:
        folder: made if it does not exist; must be empty.
        limit_bytes: most bytes of all files together.
        warn: takes the one warning.
        about: what the session ran with (model, policy, ...), kept in the header; JSON values only.

    Raises:
        SourceError: the folder is not empty or cannot be written.
    """

    def __init__(
        self, folder: Path, limit_bytes: int, warn: Callable[[str], None], about: Mapping[str, Any] | None = None
    ):
        self._folder, self._limit_bytes, self._warn = folder, limit_bytes, warn
        self._frames, self._stopped = 0, False
        header = _line({"format": FORMAT, "version": VERSION, "about": dict(about or {})})
        try:
            folder.mkdir(parents=True, exist_ok=True)
            require_empty(folder)
            (folder / FRAMES).mkdir()
            self._events = (folder / EVENTS).open("xb", buffering=0)
            self._events.write(header)
        except OSError as error:
            raise SourceError(f"folder '{folder}' cannot be recorded into: {error.strerror or error}") from error
        self._events_bytes = self.written_bytes = len(header)
        """Bytes of all files so far."""

    def record(self, step: ExecutedStep) -> None:
        """Append a step, unless recording has stopped."""
        if self._stopped:
            return
        pictures = [_png(frame) for frame in step.frames] if isinstance(step, IngestFrames) else []
        line = _line(_described(step, self._frames))
        total_bytes = self.written_bytes + len(line) + sum(map(len, pictures))
        if total_bytes + len(_END_LINE) > self._limit_bytes:
            wanted_bytes = total_bytes + len(_END_LINE)
            self._stop(f"the next step would make it {wanted_bytes} bytes, {self._limit_bytes} are allowed")
            return
        try:
            self._write(pictures, line)
        except OSError as error:
            self._stop(error.strerror or str(error))
            return
        self.written_bytes = total_bytes

    def close(self) -> None:
        """Finish the recording with the end mark; later steps are ignored."""
        if not self._stopped:
            with contextlib.suppress(OSError):  # the reader tells that there is none
                self._events.write(_END_LINE)
                self.written_bytes += len(_END_LINE)
        self._stopped = True
        self._events.close()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, pictures: list[bytes], line: bytes) -> None:
        """Pictures first, so that no line ever names a file that is not there."""
        for picture in pictures:
            (self._folder / picture_name(self._frames)).write_bytes(picture)
            self._frames += 1
        self._events.write(line)
        self._events_bytes += len(line)

    def _stop(self, why: str) -> None:
        with contextlib.suppress(OSError):  # a line half written; where even that fails, the reader names it
            self._events.truncate(self._events_bytes)
        self._stopped = True
        self._events.close()
        self._warn(f"recording into '{self._folder}' stops here: {why}; the session goes on")


def picture_name(number: int) -> str:
    """Path of a recorded frame, relative to the recording."""
    return f"{FRAMES}/{number:08d}.png"


def checksum(pixels: Pixels) -> int:
    """CRC-32 of a picture's bytes."""
    return zlib.crc32(pixels.tobytes())


def _described(step: ExecutedStep, first_picture: int) -> dict[str, Any]:
    match step:
        case IngestFrames(frames):
            listed = [
                {
                    "file": picture_name(first_picture + i),
                    "at_ns": frame.at_ns,
                    "number": frame.number,
                    "crc32": checksum(frame.pixels),
                }
                for i, frame in enumerate(frames)
            ]
            return {"type": "frames", "frames": listed}
        case IngestText(text, at_ns):
            return {"type": "text", "text": text, "at_ns": at_ns}
        case GiveAnswer(question, decoding_steps):
            return {"type": "answer", "question": dataclasses.asdict(question), "decoding_steps": decoding_steps}


def _png(frame: Frame) -> bytes:
    encoded: bytes = cv2.imencode(".png", cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2BGR), _FAST)[1].tobytes()
    return encoded


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


_END_LINE = _line(END)
