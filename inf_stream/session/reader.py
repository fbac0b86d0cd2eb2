"""A thread that walks a blocking source and hands its events to an event loop, one at a time."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable
from concurrent.futures import CancelledError, Future
from typing import Any

from inf_stream.base.errors import SourceError
from inf_stream.base.events import InputEvent
from inf_stream.session.outlast import outlast

PATIENCE_S = 10.0
"""Longest wait for a source to end after it was closed."""


class SourceReader:
    """Reads `source` in a thread of its own; back-pressure is that the thread waits until each event is taken.

    A source is any iterable of events. One that may block for long must have a method `close()` that may be called from
    another thread, more than once, returns promptly, and makes a blocked iteration end soon, by its end or by an
    error; generators cannot be closed from outside and must therefore never block for long. `close()`, if there is one,
    is always called at the end.

    `take` is awaited for each event, on the loop; it returns whether to go on.
    """

    def __init__(
        self,
        source: Iterable[InputEvent],
        take: Callable[[InputEvent], Coroutine[Any, Any, bool]],
        *,
        patience_s: float = PATIENCE_S,
    ):
        self._source = source
        self._take = take
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._walk, name="inf-stream-source", daemon=True)
        self._handover: Future[bool] | None = None
        self._is_stopped = False

    async def run(self) -> None:
        """Read to the end of the source, or until `take` returns False or this is cancelled.

        Raises:
            SourceError: from the source; or it did not end within `patience_s` after `close()`.
        """
        self._thread.start()
        cancelled: asyncio.CancelledError | None = None
        try:
            await asyncio.wait({self._ended})
        except asyncio.CancelledError as error:
            cancelled = error
            self._interrupt()
        cancelled = await outlast(self._ended, self._patience_s) or cancelled
        if not self._ended.done():
            raise SourceError(
                f"the source did not end within {self._patience_s:g} s after it was closed; its thread is left behind"
            )
        self._thread.join()
        failure = self._ended.exception()
        if cancelled is not None:
            raise cancelled
        if failure is not None:
            raise failure

    def _interrupt(self) -> None:
        self._is_stopped = True
        if self._handover is not None:
            self._handover.cancel()
        if not isinstance(self._source, Generator):
            _close(self._source)

    def _walk(self) -> None:
        error: BaseException | None = None
        try:
            self._hand_over_all()
        except BaseException as raised:  # noqa: BLE001 raised again by `run`
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is gone if nobody waited for this thread any more
            self._loop.call_soon_threadsafe(self._settle, error)

    def _hand_over_all(self) -> None:
        try:
            for event in self._source:
                if not self._hand_over(event):
                    break
        except CancelledError:
            return
        finally:
            _close(self._source)

    def _hand_over(self, event: InputEvent) -> bool:
        if self._is_stopped:
            return False
        self._handover = asyncio.run_coroutine_threadsafe(self._take(event), self._loop)
        if self._is_stopped:
            self._handover.cancel()
        return self._handover.result()

    def _settle(self, error: BaseException | None) -> None:
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)


def _close(source: Iterable[InputEvent]) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()
