"""The one thread on which the engines of all sessions run, their steps in fair turns."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeVar

from inf_stream.server.sessions.schedule import FairSchedule

T = TypeVar("T")

HOLD_S = 0.02
"""Longest wait for the next step of an answer, whose session must first take in what the last one gave.

Without it a frame of another session would slip in between any two tokens.
"""


class EngineWorker:
    """Runs one job at a time, chosen by a `FairSchedule`. Each session has a `Lane` of its own.

    Ends with `close`, after the job in progress; what still waits then is cancelled.
    """

    def __init__(self, patience: int = 8, hold_s: float = HOLD_S) -> None:
        self._schedule: FairSchedule[_Job] = FairSchedule(patience)
        self._hold_s = hold_s
        self._change = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="inf-stream-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        with self._change:
            return len(self._schedule)

    def lane(self) -> "Lane":
        """A new lane."""
        return Lane(self)

    def submit(self, lane: "Lane", job: Callable[[], T]) -> "Future[T]":
        """Have a job of a lane run in its turn; the future's result is its own.

        Raises:
            RuntimeError: the worker was closed.
        """
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 raised again by whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._change:
            if self._is_closed:
                raise RuntimeError("the engine's thread was closed; no step can run any more")
            self._schedule.add(lane, _Job(lane, run, future.cancel), urgent=lane.urgent)
            self._change.notify()
        return future

    def set_urgent(self, lane: "Lane", urgent: bool) -> None:
        """See `FairSchedule.set_urgent`."""
        with self._change:
            self._schedule.set_urgent(lane, urgent)
            self._change.notify()

    def close(self) -> None:
        """End the thread after the job in progress, and wait for that; may be called more than once."""
        with self._change:
            self._is_closed = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        latest: Lane | None = None
        while True:
            job = self._next(latest)
            if job is None:
                return
            job.run()
            latest = job.lane
            del job  # it holds an engine, which may be the last trace of a closed session

    def _next(self, latest: "Lane | None") -> "_Job | None":
        hold_until_s = time.monotonic() + self._hold_s
        with self._change:
            while True:
                if self._is_closed:
                    while (left := self._schedule.take()) is not None:
                        left.cancel()
                    return None
                hold_s = hold_until_s - time.monotonic() if latest is not None and latest.urgent else 0.0
                job = self._schedule.take(hold=hold_s > 0)
                if job is not None:
                    return job
                self._change.wait(hold_s if hold_s > 0 and len(self._schedule) else None)


@dataclass(frozen=True, slots=True)
class _Job:
    lane: "Lane"
    run: Callable[[], None]
    cancel: Callable[[], bool]


class Lane(Executor):
    """The executor of one session (`inf_stream.session.loop.SessionLoop`): its jobs run in their turn.

    `urgent` says that somebody waits for this session; set it from any thread.
    """

    def __init__(self, worker: EngineWorker):
        self._worker = worker
        self._urgent = False

    @property
    def urgent(self) -> bool:
        """Whether this lane goes before those that are not urgent."""
        return self._urgent

    @urgent.setter
    def urgent(self, urgent: bool) -> None:
        if urgent != self._urgent:
            self._urgent = urgent
            self._worker.set_urgent(self, urgent)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Run `fn(*args, **kwargs)` on the engine's thread in this lane's turn."""
        return self._worker.submit(self, lambda: fn(*args, **kwargs))
