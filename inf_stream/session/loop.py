"""The asyncio driver of a session: events and readers on the loop's thread, the engine on a worker thread."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

from inf_stream.base.errors import InfStreamError, SessionError
from inf_stream.base.events import InputEvent, OutputEvent, StreamEnded, TextArrived
from inf_stream.engine.protocol import CopyInParts, SteppedEngine
from inf_stream.session.limits import SessionLimits
from inf_stream.session.machine import SessionMachine
from inf_stream.session.outlast import outlast
from inf_stream.session.queue import cut_text
from inf_stream.session.reader import SourceReader
from inf_stream.session.steps import (
    Action,
    Close,
    Emit,
    HandState,
    Intake,
    PauseSource,
    ResumeSource,
    RunStep,
    Step,
    StepResult,
    execute,
)

Listener: TypeAlias = Callable[[OutputEvent], None]
Taker: TypeAlias = Callable[[CopyInParts | InfStreamError], None]
"""Told a copy of the engine's state, when all that came out before it was told and nothing after, or why there is none.
"""
Observer: TypeAlias = Callable[[Step, StepResult], None]
"""Told each step that the engine executed, in order, with its result."""


def engine_worker() -> ThreadPoolExecutor:
    """The one thread on which engine steps run; several sessions may share it, their steps take turns."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="inf-stream-engine")


class SessionLoop:
    """One session on the running event loop. Make it there, start producers, and await `run`.

    `emit` and `observer` are called on the loop's thread, in order, and must not block for long. `worker` runs one
    thing at a time and outlives the session. All methods are for the loop's thread but `post_threadsafe`.
    """

    def __init__(
        self,
        engine: SteppedEngine,
        *,
        limits: SessionLimits,
        emit: Listener,
        worker: Executor,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        observer: Observer | None = None,
    ):
        self.machine = SessionMachine(engine, limits)
        self._engine = engine
        self._emit = emit
        self._worker = worker
        self._clock_ns = clock_ns
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._outbox: deque[Callable[[], None]] = deque()
        self._finished: tuple[Step, asyncio.Future[StepResult]] | None = None
        self._failure: BaseException | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._taker: Taker | None = None

    # ---- in ----------------------------------------------------------------------------------------

    def post(self, event: InputEvent) -> None:
        """Take in an event now.

        Raises:
            SessionError: see `SessionMachine.receive`; under WAIT use `put`.
        """
        self._apply(self.machine.receive(event, self._clock_ns()))

    async def put(self, event: InputEvent) -> None:
        """Take in an event as soon as there is room for it.

        Raises:
            SessionError: the session takes no such event any more.
        """
        if not await self._admit(event):
            raise SessionError(f"{type(event).__name__} came to a session that is {self.machine.intake.value}")

    def post_threadsafe(self, event: InputEvent) -> "Future[None]":
        """`put` from any thread; the future is done once the event is taken."""
        return asyncio.run_coroutine_threadsafe(self.put(event), self._loop)

    async def read(self, source: Iterable[InputEvent]) -> None:
        """Read a blocking source in a thread of its own until it ends or the session takes no more.

        Under WAIT the thread waits while the queue is full; the dropping rules never hold it up. See
        `SourceReader` for what a source must do.

        Raises:
            SourceError: from the source.
        """
        await SourceReader(source, self._admit).run()

    def end(self) -> None:
        """The stream has ended: what waits is still worked off. Does nothing if it has ended already."""
        if self.machine.intake is Intake.OPEN:
            self.post(StreamEnded())

    def stop(self) -> None:
        """Wait for the step in flight, end the open answer, leave all else, close. May be called at any time."""
        self._apply(self.machine.stop())
        self._cancel_feed()

    def copy_state(self, taker: Taker) -> None:
        """Have the engine's state copied, see `SessionMachine.copy_state`; `taker` is told on the loop's thread.

        A session that breaks tells it nothing.
        """
        assert self._taker is None, "one copy at a time"
        self._taker = taker
        self._apply(self.machine.copy_state())

    # ---- the session's life ------------------------------------------------------------------------

    async def run(self, feed: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the session while `feed()` produces its events; return when it is closed.

        The stream ends when `feed` returns, or with a `StreamEnded`; `feed` is cancelled once the session is closed.
        Cancelling `run`, as often as one likes, stops the session cleanly before it is raised.

        Raises:
            InfStreamError: from `feed`, after all that came before was worked off.
            Exception: anything unexpected from `feed`, the engine, `emit` or `observer`, after the session was closed.
        """
        self._feeder = asyncio.create_task(feed())
        self._feeder.add_done_callback(self._fed)
        cancellations: list[asyncio.CancelledError | None] = []
        try:
            cancellations.append(await self._drive())
        finally:
            self._cancel_feed()
            cancellations.append(await outlast(self._feeder))
        for error in (self._failure, *cancellations):
            if error is not None:
                raise error

    async def _drive(self) -> asyncio.CancelledError | None:
        cancelled: asyncio.CancelledError | None = None
        while self._outbox or self.machine.intake is not Intake.CLOSED:
            try:
                await self._wake.wait()
            except asyncio.CancelledError as error:
                cancelled = error
                self.stop()
            self._wake.clear()
            self._take_result()
            self._deliver()
        return cancelled

    def _take_result(self) -> None:
        if self._finished is None:
            return
        (step, future), self._finished = self._finished, None
        error = future.exception()
        if error is not None:
            self._fail(error)
            self._apply(self.machine.abort())
            return
        result = future.result()
        if self._observer is not None:
            self._outbox.append(partial(self._observer, step, result))
        self._apply(self.machine.step_done(result, self._clock_ns()))

    def _deliver(self) -> None:
        while self._outbox:
            deliver = self._outbox.popleft()
            try:
                deliver()
            except Exception as error:  # noqa: BLE001 raised again by `run`
                self._outbox.clear()
                self._emit, self._observer = _ignore, None
                self._fail(error)
                self.stop()

    def _fed(self, feeder: "asyncio.Task[None]") -> None:
        error = None if feeder.cancelled() else feeder.exception()
        if error is None or isinstance(error, InfStreamError):
            if error is not None:
                self._fail(error)
            self.end()
        else:
            self._fail(error)
            self.stop()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error

    def _cancel_feed(self) -> None:
        """Cancel it by the loop's own queue: behind its first step, so that it can always clean up."""
        if self._feeder is not None:
            self._loop.call_soon(self._feeder.cancel)

    # ---- actions -----------------------------------------------------------------------------------

    def _apply(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case RunStep(step):
                    future = self._loop.run_in_executor(self._worker, execute, self._engine, step)
                    future.add_done_callback(partial(self._step_finished, step))
                case Emit(event):
                    self._outbox.append(partial(self._say, event))
                case HandState(copy):
                    self._outbox.append(partial(self._hand, copy))
                case PauseSource():
                    self._room.clear()
                case ResumeSource() | Close():
                    self._room.set()
        if self.machine.intake is not Intake.OPEN:
            self._room.set()
        self._wake.set()

    def _step_finished(self, step: Step, future: "asyncio.Future[StepResult]") -> None:
        self._finished = (step, future)
        self._wake.set()

    def _say(self, event: OutputEvent) -> None:
        self._emit(event)

    def _hand(self, copy: CopyInParts | InfStreamError) -> None:
        assert self._taker is not None, "handed to whoever asked"
        taker, self._taker = self._taker, None
        taker(copy)

    async def _admit(self, event: InputEvent) -> bool:
        """Take in an event as soon as there is room, long text in pieces; False once the session takes no such."""
        if isinstance(event, TextArrived):
            pieces = cut_text(event.text, self._engine.characters_per_step)
            parts: Iterable[InputEvent] = (TextArrived(piece, event.at_ns) for piece in pieces)
        else:
            parts = (event,)
        for part in parts:
            while self.machine.takes(part) and not self.machine.has_room(part):
                await self._room.wait()
            if not self.machine.takes(part):
                return False
            self.post(part)
        return True


def _ignore(_event: OutputEvent) -> None:
    """What is emitted after `emit` broke."""


async def run_session(
    engine: SteppedEngine,
    source: Iterable[InputEvent],
    *,
    limits: SessionLimits,
    emit: Listener,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    observer: Observer | None = None,
) -> None:
    """One session from the first event of a blocking source to `SessionClosed`, on an engine thread of its own.

    Arguments and errors as for `SessionLoop` and `SessionLoop.run`.
    """
    with engine_worker() as worker:
        session = SessionLoop(engine, limits=limits, emit=emit, worker=worker, clock_ns=clock_ns, observer=observer)
        await session.run(partial(session.read, source))
