"""Sources that run whether they are read or not: stamped on arrival, reconnected when lost."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from typing import TypeAlias

from inf_stream.base.clock import NS_PER_S, seconds
from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.base.events import Frame, FrameArrived, Pixels, SourceNotice
from inf_stream.sources.base import FrameSize, Source, SourceEvent
from inf_stream.sources.pump import Pump
from inf_stream.sources.sampling import GridSampler

Shot: TypeAlias = Callable[[FrameSize | None], Pixels]
"""A picture that has arrived; calling it converts and resizes it. Valid until the next one is asked for."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STABLE_NS = 10 * NS_PER_S
"""A connection that has given pictures for so long was good: the next loss starts counting attempts anew."""


class Connection(ABC):
    """An open camera or address."""

    @abstractmethod
    def shots(self) -> Iterator[Shot]:
        """Pictures as they arrive; ends when there will be no more.

        Raises:
            SourceError: the connection is lost.
        """

    @abstractmethod
    def describe(self) -> str:
        """Name, and size if it is known."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the device or socket; called by the thread that reads it."""


def pause_s(attempt: int) -> float:
    """Wait before reconnecting attempt 1, 2, ...: doubling, up to half a minute."""
    return min(FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 16), LONGEST_PAUSE_S)


class LiveFeed:
    """The events of a live source, over all its connections. Driven by one thread.

    Pictures that arrive before `start` are read and forgotten, so that nothing stale is waiting later.

    Args:
        first: the connection, already open.
        connect: opens another one, or raises SourceError.
        name: for messages.
        settings: sampling rate and number of reconnects.
        now_ns: a monotonic clock.
        wait: pauses for so many seconds; returns True at once when the source is being closed.
    """

    def __init__(
        self,
        first: Connection,
        connect: Callable[[], Connection],
        name: str,
        settings: SourceSettings,
        now_ns: Callable[[], int],
        wait: Callable[[float], bool],
    ):
        self.frame_size: FrameSize | None = None
        self._first, self._connect, self._name = first, connect, name
        self._now_ns, self._wait, self._reconnects = now_ns, wait, settings.reconnects
        self._sampler = GridSampler(settings.fps)
        self._start_ns: int | None = None
        self._taken, self._attempt = 0, 0

    def start(self) -> None:
        """Stream time 0 is now."""
        if self._start_ns is None:
            self._start_ns = self._now_ns()

    def events(self) -> Generator[SourceEvent, None, None]:
        """Frames and notices until the source is lost for good or closed."""
        connection: Connection | None = self._first
        while connection is not None:
            why = yield from self._read(connection)
            if self._wait(0):
                return
            connection = yield from self._reconnected(why)

    def _read(self, connection: Connection) -> Generator[SourceEvent, None, str]:
        opened_ns = self._now_ns()
        try:
            for shot in connection.shots():
                if self._wait(0):
                    break
                if self._now_ns() - opened_ns >= STABLE_NS:
                    self._attempt = 0
                at_ns = self._at_ns()
                if self._start_ns is not None and self._sampler.takes(at_ns):
                    yield FrameArrived(Frame(shot(self.frame_size), at_ns, self._taken))
                    self._taken += 1
        except SourceError as error:
            return str(error)
        finally:
            connection.close()
        return "no more pictures come"

    def _reconnected(self, why: str) -> Generator[SourceEvent, None, Connection | None]:
        """Another connection, or None when the last attempt failed or the source is being closed."""
        lost_ns = self._at_ns()
        while self._attempt < self._reconnects:
            self._attempt += 1
            pause = pause_s(self._attempt)
            yield self._notice(f"is lost ({why}); attempt {self._attempt} of {self._reconnects} in {pause:g} s")
            if self._wait(pause):
                return None
            try:
                connection = self._connect()
            except SourceError as error:
                why = str(error)
                continue
            yield self._notice(f"is back after {seconds(self._at_ns() - lost_ns):.1f} s")
            return connection
        yield self._notice(f"is lost for good ({why}); the stream ends here (source.reconnects)")
        return None

    def _at_ns(self) -> int:
        return 0 if self._start_ns is None else self._now_ns() - self._start_ns

    def _notice(self, message: str) -> SourceNotice:
        return SourceNotice(f"'{self._name}' {message}", self._at_ns())


class LiveSource(Source):
    """A live source, read by a thread of its own from the moment it is opened.

    Stream time begins with the first event asked for. When the source is lost for good, a notice says so and the
    stream ends.
    """

    live = True

    def __init__(
        self,
        first: Connection,
        connect: Callable[[], Connection],
        name: str,
        settings: SourceSettings,
        now_ns: Callable[[], int],
        frame_size: FrameSize | None = None,
    ):
        self._closing = threading.Event()
        self._description = first.describe()
        self._feed = LiveFeed(first, connect, name, settings, now_ns, self._closing.wait)
        self.frame_size = frame_size
        self._pump = Pump(self._feed.events(), name)

    def describe(self) -> str:
        """Name, and size if it is known."""
        return self._description

    def __next__(self) -> SourceEvent:
        self._feed.frame_size = self.frame_size
        self._feed.start()
        return self._pump.take()

    def close(self) -> None:
        """End the iteration now; the connection is closed when its read returns."""
        self._closing.set()
        self._pump.stop()
