"""Where an engine, a stream and what shows them are put together and run."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from inf_stream.app.guard import FirstFrameGuard, StreamRefused
from inf_stream.app.interrupts import on_interrupt
from inf_stream.app.memory_map import kept_in
from inf_stream.app.memory_picture import draw_memory_map
from inf_stream.app.reports import Report
from inf_stream.base.clock import seconds
from inf_stream.base.config import SourceSettings
from inf_stream.base.events import InputEvent
from inf_stream.engine.engine import Engine
from inf_stream.engine.protocol import SteppedEngine
from inf_stream.session.interrupt import run_interruptible
from inf_stream.session.limits import SessionLimits
from inf_stream.session.loop import Observer, SessionLoop, engine_worker


@runtime_checkable
class Stream(Protocol):
    """Events in their order, walked by one thread; `close` may come from any, and ends what is read."""

    def __iter__(self) -> Iterator[InputEvent]: ...

    def close(self) -> None:
        """End what is being read."""
        ...


def run_stream(
    engine: SteppedEngine,
    stream: Stream,
    report: Report,
    settings: SourceSettings,
    *,
    live: bool,
    endless: bool,
    observer: Observer | None = None,
    live_until_ns: int | None = None,
) -> None:
    """Run a session over `stream` until it ends; Ctrl-C ends it cleanly.

    An `endless` stream, one whose end nobody knows, is ended by the first Ctrl-C (or SIGTERM), and its last questions
    are answered; the second one stops at once. `live_until_ns` ends a live source that has fallen silent.

    Raises:
        InfStreamError: the source fails, or the engine refuses the very first frame.
        KeyboardInterrupt: after Ctrl-C.
    """

    async def session() -> bool:
        report.start()
        with engine_worker() as worker:
            loop = SessionLoop(
                FirstFrameGuard(engine),
                limits=SessionLimits.from_settings(settings, live=live),
                emit=report.show,
                worker=worker,
                observer=observer,
            )
            if live_until_ns is not None:
                asyncio.get_running_loop().call_later(seconds(live_until_ns) + settings.connect_timeout_s, stream.close)
            if not endless:
                await loop.run(lambda: loop.read(stream))
                return False
            gently = _EndThenStop(stream.close, loop.stop, report)

            async def feed() -> None:
                await loop.read(stream)
                gently.stream_ended = True

            with on_interrupt(gently, signal.SIGINT, signal.SIGTERM):
                await loop.run(feed)
            return gently.used

    try:
        interrupted = run_interruptible(session)
    except StreamRefused as refused:
        raise refused.reason from refused
    finally:
        report.close()
    if interrupted:
        raise KeyboardInterrupt


class _EndThenStop:
    """Two stages of Ctrl-C: first the stream ends, if it has not by itself, then everything does."""

    def __init__(self, end: Callable[[], None], stop: Callable[[], None], report: Report):
        self._end, self._stop, self._report = end, stop, report
        self.used = self.stream_ended = False

    def __call__(self) -> None:
        is_second, self.used = self.used, True
        if is_second or self.stream_ended:
            self._stop()
            return
        self._report.note("ending the stream; press Ctrl-C again to stop at once")
        self._end()


def draw_map(engine: Engine, path: Path | None, report: Report) -> None:
    """Draw the memory map, if one was asked for.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is not None:
        draw_memory_map(kept_in(engine.cache), path)
        report.note(f"memory map: {path}", path=str(path))
