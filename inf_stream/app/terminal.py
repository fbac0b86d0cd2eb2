"""Lines that somebody types, read beside a running session."""

import asyncio
import threading
from typing import Protocol, runtime_checkable

from inf_stream.app.questions import MOST_CHARACTERS

_LIMIT = MOST_CHARACTERS + 2


@runtime_checkable
class TextIn(Protocol):
    """The part of a text file that lines are read from."""

    def readline(self, limit: int, /) -> str:
        """The next line with its end, or its first `limit` characters; empty at the end of the file."""
        ...


class Lines:
    """Lines of `stream` in the order they are typed, without blocking the event loop; make it on the running loop.

    At most `ahead` lines are read before they are taken, so that an endless pipe is read no faster than it is used.
    A line much longer than any question is cut.
    Input that breaks off has ended; anything unexpected is raised where lines are taken. The thread that waits for the
    terminal cannot be woken; it ends with the program.
    """

    def __init__(self, stream: TextIn, ahead: int = 1):
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        self._room = threading.Semaphore(ahead)
        threading.Thread(target=self._read, name="inf-stream-terminal", daemon=True).start()

    async def next(self) -> str | None:
        """The next line without its end, or None at the end of the input.

        Raises:
            BaseException: whatever the stream raised that is no end of its input.
        """
        line = await self._lines.get()
        self._room.release()
        if isinstance(line, BaseException):
            raise line
        return line

    def _read(self) -> None:
        found: str | BaseException | None = ""
        while isinstance(found, str):
            self._room.acquire()
            try:
                line = self._next_line()
                found = line.rstrip("\r\n") if line else None
            except BaseException as error:  # noqa: BLE001 raised again by `next`
                found = error
            try:
                self._loop.call_soon_threadsafe(self._lines.put_nowait, found)
            except RuntimeError:  # the loop was closed: nobody listens any more
                return

    def _next_line(self) -> str:
        try:
            line = piece = self._stream.readline(_LIMIT)
            while len(piece) == _LIMIT and not piece.endswith("\n"):
                piece = self._stream.readline(_LIMIT)
        except (OSError, ValueError):  # the terminal was closed, or sends what is no text
            return ""
        return line
