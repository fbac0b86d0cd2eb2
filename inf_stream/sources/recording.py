"""Reading a recorded session, as `inf_stream.sources.recorder` writes it; nothing in it is trusted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from inf_stream.base.errors import SourceError
from inf_stream.base.events import Frame, Pixels, Question
from inf_stream.session.replay import ExecutedStep, GiveAnswer
from inf_stream.session.steps import IngestFrames, IngestText
from inf_stream.sources.images import read_image
from inf_stream.sources.recorder import END, EVENTS, FORMAT, VERSION, checksum
from inf_stream.sources.shaping import Shaper

_LONGEST_LINE_BYTES = 1 << 24


class Recording:
    """Iterates over the steps of a recorded session, as often as wanted; frames are read when their step comes.

    Attributes:
        folder: where it lies.
        about: what the recorder was told of the session.
        has_end: the end mark was met by the last iteration; without it the recorder was killed or had to stop early.

    Raises:
        SourceError: no recording, of a newer version, or damaged; the damage may show only while iterating.
    """

    def __init__(self, folder: Path):
        self.folder, self._shaper = folder, Shaper()
        self.has_end = False
        with self._open() as file:
            self.about = self._header(file)

    def __iter__(self) -> Iterator[ExecutedStep]:
        with self._open() as file:
            self._header(file)
            self.has_end = False
            number = 1
            while line := file.readline(_LONGEST_LINE_BYTES):
                number += 1
                try:
                    step = self._step_or_end(_parsed(line))
                except _DamageError as error:
                    raise self._damaged(number, str(error)) from error
                if step is not None:
                    yield step

    def _open(self) -> BinaryIO:
        try:
            return (self.folder / EVENTS).open("rb")
        except OSError as error:
            raise SourceError(
                f"'{self.folder}' is not a recording: {EVENTS} cannot be read ({error.strerror or error})"
            ) from error

    def _header(self, file: BinaryIO) -> dict[str, Any]:
        try:
            header = _parsed(file.readline(_LONGEST_LINE_BYTES))
        except _DamageError as error:
            raise SourceError(f"'{self.folder}' is not a recording: its header is {error}") from error
        version, about = header.get("version"), header.get("about")
        if header.get("format") != FORMAT or not _is_count(version) or not isinstance(about, dict):
            raise SourceError(f"'{self.folder}' is not a recording of inf-stream: it has another header")
        if version != VERSION:
            raise SourceError(
                f"recording '{self.folder}' is of version {version}; this program reads version {VERSION}: update it"
            )
        return about

    def _step_or_end(self, values: dict[str, Any]) -> ExecutedStep | None:
        if self.has_end:
            raise _DamageError("behind the end mark")
        self.has_end = values == END
        return None if self.has_end else self._step(values)

    def _step(self, values: dict[str, Any]) -> ExecutedStep:
        match values:
            case {"type": "frames", "frames": [_, *_] as listed, **rest} if not rest:
                return IngestFrames(tuple(self._frame(entry) for entry in listed))
            case {"type": "text", "text": str(text), "at_ns": at_ns, **rest} if not rest and _is_count(at_ns):
                return IngestText(text, at_ns)
            case {"type": "answer", "question": dict(question), "decoding_steps": steps, **rest}:
                if not rest and _is_count(steps):
                    return GiveAnswer(_question(question), steps)
        raise _DamageError("not a step")

    def _frame(self, entry: Any) -> Frame:
        match entry:
            case {"file": str(file), "at_ns": at_ns, "number": number, "crc32": crc, **rest} if not rest:
                if _is_count(at_ns) and _is_count(number):
                    return Frame(self._pixels(file, crc), at_ns, number)
        raise _DamageError("not a step")

    def _pixels(self, file: str, crc: Any) -> Pixels:
        try:
            path = (self.folder / file).resolve()
            if not path.is_relative_to(self.folder.resolve()):
                raise _DamageError(f"a reference to '{file}', outside of the recording")
            pixels = read_image(path, None, self._shaper)
        except (SourceError, OSError, ValueError) as error:
            raise _DamageError(f"about frame '{file}', which is damaged: {error}") from error
        if checksum(pixels) != crc:
            raise _DamageError(f"about frame '{file}', which is not the one recorded")
        return pixels

    def _damaged(self, number: int, what: str) -> SourceError:
        return SourceError(f"recording '{self.folder}' is damaged: line {number} of {EVENTS} is {what}")


class _DamageError(Exception):
    """A line of a recording is not what the recorder writes; says what it is instead."""


def _parsed(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise _DamageError("cut off")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _DamageError("not JSON") from error
    if not isinstance(values, dict):
        raise _DamageError("not a JSON object")
    return values


def _question(values: dict[str, Any]) -> Question:
    match values:
        case {"id": str(name), "text": str(text), "at_ns": at_ns, "max_tokens": limit, **rest}:
            aside, expect = rest.pop("aside", False), rest.pop("expect", None)
            is_sound = _is_count(at_ns) and (limit is None or _is_count(limit)) and not rest
            if is_sound and type(aside) is bool and (expect is None or type(expect) is str):
                return Question(name, text, at_ns, limit, aside, expect)
    raise _DamageError("not a step")


def _is_count(value: Any) -> bool:
    """Whether a JSON value is a whole number from 0 on; True and False are not."""
    return type(value) is int and value >= 0
