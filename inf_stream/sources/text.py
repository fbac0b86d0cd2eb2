"""Streamed text, read as it is needed and cut into pieces at whitespace."""

import codecs
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from inf_stream.base.errors import SourceError
from inf_stream.base.events import SourceNotice, TextArrived
from inf_stream.sources.base import Source, SourceEvent
from inf_stream.sources.pump import PumpedSource

_READ_BYTES = 1 << 16


@runtime_checkable
class Readable(Protocol):
    """What is used of a file."""

    def read(self, size: int, /) -> Any:
        """At most `size` bytes or characters; none at the end."""
        ...


def open_text(
    stream: str | Path | Readable, characters: int = 1024, *, now_ns: Callable[[], int] = time.monotonic_ns
) -> Source:
    """Open a text file, or take an open text or binary file such as `sys.stdin`.

    Args:
        stream: a path; or a file from which nothing has been read yet, which is left open at the end.
        characters: most characters of a piece.
        now_ns: the clock that stamps pieces, from 0 at the first one.

    Raises:
        SourceError: the path cannot be read.
    """
    if isinstance(stream, str | Path):
        try:
            opened = Path(stream).open("rb", buffering=0)  # noqa: SIM115 - the source closes it
        except (OSError, ValueError) as error:
            raise SourceError(f"text {str(stream)!r} cannot be opened: {_why(error)}") from error
        return TextSource(opened, str(stream), characters, now_ns, opened.close)
    raw = _beneath(stream)
    source = TextSource(raw, str(getattr(stream, "name", "text")), characters, now_ns, lambda: None)
    return PumpedSource(source, "text") if _may_block(raw) else source


class TextSource(Source):
    """Pieces of a text, which joined are the whole text.

    Bytes that are not UTF-8 become replacement characters, with one notice. `release` is called when no more is read.

    Raises:
        SourceError: while iterating, if a read fails.
    """

    def __init__(
        self, file: Readable, name: str, characters: int, now_ns: Callable[[], int], release: Callable[[], None]
    ):
        self._file, self._name, self._release, self._now_ns = file, name, release, now_ns
        self._start_ns: int | None = None
        self._reading = threading.Lock()
        self._decoder = Utf8Decoder()
        self._events = self._play(characters)

    def describe(self) -> str:
        """The file's name."""
        return f"text of {self._name}"

    def __next__(self) -> SourceEvent:
        with self._reading:
            return next(self._events)

    def close(self) -> None:
        """Stop before the next piece and let go of the file."""
        with self._reading:
            self._events.close()
            self._release()

    def _play(self, characters: int) -> Generator[SourceEvent, None, None]:
        for piece in pieces(self._texts(), characters):
            if self._decoder.new_damage():
                yield SourceNotice(
                    f"{self._name}: bytes that are not UTF-8, from byte {self._decoder.damaged_at} on, are read as "
                    "replacement characters; convert the text to UTF-8",
                    self._time_ns(),
                )
            yield TextArrived(piece, self._time_ns())
        self._release()

    def _texts(self) -> Iterator[str]:
        while True:
            try:
                read = self._file.read(_READ_BYTES)
            except (OSError, ValueError) as error:
                raise SourceError(f"{self._name} cannot be read any further: {_why(error)}") from error
            yield read if isinstance(read, str) else self._decoder.decode(read)
            if not read:
                return

    def _time_ns(self) -> int:
        now_ns = self._now_ns()
        if self._start_ns is None:
            self._start_ns = now_ns
        return now_ns - self._start_ns


class Utf8Decoder:
    """Decodes UTF-8 in parts of any length, and tells once when bytes were not UTF-8."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._bytes = 0
        self._untold = False
        self.damaged_at: int | None = None
        """Offset of the first byte that is not UTF-8."""

    def decode(self, data: bytes) -> str:
        """The text of the next part; an empty one ends the text."""
        state = self._decoder.getstate()
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            self.damaged_at, self._untold = self._bytes - len(state[0]) + error.start, True
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._decoder.setstate(state)
            text = self._decoder.decode(data, final=not data)
        self._bytes += len(data)
        return text

    def new_damage(self) -> bool:
        """True once, after the first damage."""
        untold, self._untold = self._untold, False
        return untold


def pieces(texts: Iterable[str], characters: int) -> Iterator[str]:
    """Cut a text that comes in parts into pieces of at most `characters`, wherever the parts end.

    A piece ends before its last whitespace, so that the next one starts with it, as tokenizers like it; a piece
    without any is cut at its full length.
    """
    assert characters > 0, "a piece has at least one character"
    waiting = ""
    for text in texts:
        waiting += text
        start = 0
        while len(waiting) - start > characters:
            stop = start + _cut(waiting[start : start + characters + 1])
            yield waiting[start:stop]
            start = stop
        waiting = waiting[start:]
    if waiting:
        yield waiting


def _cut(text: str) -> int:
    """Length of the first piece of a text that is one character too long."""
    full = len(text) - 1
    return next((at for at in range(full, 0, -1) if text[at].isspace()), full)


def _beneath(file: Readable) -> Readable:
    """The raw file under an open one: its read returns what there is, and takes no lock that outlives the interpreter.

    UTF-8 is taken as bytes, since Python may have opened it (`sys.stdin`) to turn bad ones into lone surrogates.
    """
    if isinstance(file, io.TextIOWrapper):
        if codecs.lookup(file.encoding).name != "utf-8":
            return file
        file = file.buffer
    raw: Readable = getattr(file, "raw", file)
    return raw


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _may_block(file: Any) -> bool:
    """Whether reading waits for someone else to write: a pipe, a terminal, a socket."""
    try:
        return not stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (AttributeError, io.UnsupportedOperation):
        return False
