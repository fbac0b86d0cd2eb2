"""Work in a thread of its own, so that whoever waits for it can be called off at any moment."""

import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from contextlib import closing
from typing import Generic, NoReturn, TypeVar

from inf_stream.base.errors import SourceError
from inf_stream.sources.base import Source, SourceEvent

T = TypeVar("T")


class Pump(Generic[T]):
    """Hands over the items of an iterator that a daemon thread runs, at most `room` ahead.

    A read that blocks inside the iterator when `stop` is called ends by itself, later, in its thread.
    """

    def __init__(self, items: Generator[T, None, None], name: str, room: int = 2):
        self._source, self._room = items, room
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def take(self) -> T:
        """Wait for the next item.

        Raises:
            StopIteration: there are no more, or `stop` was called.
            BaseException: whatever the iterator raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self._stopped)
            if self._stopped or not self._items:
                self._raise_end()
            self._changed.notify_all()
            return self._items.popleft()

    def stop(self) -> None:
        """End every `take` now, and the thread after the item it is at."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _raise_end(self) -> NoReturn:
        if self._error is not None and not self._stopped:
            raise self._error
        raise StopIteration

    def _run(self) -> None:
        try:
            with closing(self._source):
                for item in self._source:
                    if not self._hand_over(item):
                        break
        except BaseException as error:  # noqa: BLE001 - raised again where the items are taken
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _hand_over(self, item: T) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._room or self._stopped)
            self._items.append(item)
            self._changed.notify_all()
            return not self._stopped


class PumpedSource(Source):
    """A source read by a thread of its own from the first event on; for sources whose reads may block."""

    def __init__(self, inner: Source, name: str):
        self._inner, self._name = inner, name
        self._pump: Pump[SourceEvent] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.live = inner.live

    @property
    def duration_ns(self) -> int | None:
        """As the inner source's."""
        return self._inner.duration_ns

    def describe(self) -> str:
        """As the inner source's."""
        return self._inner.describe()

    def __next__(self) -> SourceEvent:
        with self._lock:
            if self._closed:
                raise StopIteration
            if self._pump is None:
                self._inner.frame_size = self.frame_size
                self._pump = Pump(self._read(), self._name)
        return self._pump.take()

    def close(self) -> None:
        """End the iteration; the thread closes the inner source when its read returns."""
        with self._lock:
            self._closed = True
            if self._pump is None:
                self._inner.close()
            else:
                self._pump.stop()

    def _read(self) -> Generator[SourceEvent, None, None]:
        with self._inner:
            yield from self._inner


def within(timeout_s: float, work: Callable[[], T], name: str, undo: Callable[[T], None]) -> T:
    """The result of `work`, which may hang.

    Args:
        timeout_s: longest wait.
        work: run in a daemon thread, which is left behind when the time is up.
        name: for the message.
        undo: gets a result that comes too late.

    Raises:
        SourceError: the time is up.
        BaseException: whatever `work` raised.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            if outcome.set_running_or_notify_cancel():
                outcome.set_exception(error)
            return
        if outcome.set_running_or_notify_cancel():
            outcome.set_result(result)
        else:
            undo(result)

    threading.Thread(target=run, name=f"opening {name}", daemon=True).start()
    wait([outcome], timeout_s)
    if outcome.cancel():
        raise SourceError(f"'{name}' does not answer within {timeout_s:g} s (source.connect_timeout_s)")
    return outcome.result()
