"""The one thread on which the engines of all sessions run, their steps in fair turns."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeVar

from inf_stream.server.log import fields
from inf_stream.server.sessions.lazy_engine import LazyEngine, read_together
from inf_stream.server.sessions.schedule import FairSchedule

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

HOLD_S = 0.02
"""Longest wait for the next step of an answer, whose session must first take in what the last one gave.

Without it a frame of another session would slip in between any two tokens, and tokens that can be read in one pass
over the weights would be read one by one.
"""


class EngineWorker:
    """Runs one job at a time, chosen by a `FairSchedule`. Each session has a `Lane` of its own.

    Where the job next in turn needs the latest token of an answer read, those of up to `most_together` sessions in all
    are read in one pass over the weights, and their jobs follow at once; see `inf_stream.engine.together`.

    Ends with `close`, after the job in progress; what still waits then is cancelled.
    """

    def __init__(self, patience: int = 8, hold_s: float = HOLD_S, most_together: int = 1) -> None:
        self._schedule: FairSchedule[_Job] = FairSchedule(patience)
        self._hold_s, self._most_together = hold_s, most_together
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
        latest: list[Lane] = []
        while jobs := self._next(latest):
            latest = [job.lane for job in jobs]
            if len(jobs) > 1:
                self._read_together(latest)
            while jobs:
                jobs.pop(0).run()  # kept no longer: it holds an engine, perhaps the last trace of a closed session

    def _next(self, latest: "list[Lane]") -> "list[_Job]":
        """The job next in turn, and those that join it; none once the worker is closed."""
        hold_until_s = time.monotonic() + self._hold_s
        with self._change:
            while True:
                if self._is_closed:
                    while (left := self._schedule.take()) is not None:
                        left.cancel()
                    return []
                awaited = [lane for lane in latest if lane.urgent and not self._schedule.waits(lane)]
                hold_s = hold_until_s - time.monotonic() if awaited else 0.0
                if hold_s <= 0 or not self._could_join(awaited):
                    job = self._schedule.take(hold=hold_s > 0)
                    if job is not None:
                        return [job, *self._joining(job)]
                self._change.wait(hold_s if hold_s > 0 and len(self._schedule) else None)

    def _could_join(self, awaited: "list[Lane]") -> bool:
        """Whether a session that is about to come back has a token to be read with the one next in turn."""
        following = self._schedule.peek()
        return self._joins(following) and any(self._joins(lane) for lane in awaited)

    def _joining(self, job: "_Job") -> "list[_Job]":
        return self._schedule.take_with(self._joins, self._most_together - 1) if self._joins(job.lane) else []

    def _joins(self, lane: object) -> bool:
        return self._most_together > 1 and isinstance(lane, Lane) and lane.has_unread

    def _read_together(self, lanes: "list[Lane]") -> None:
        """Read the latest token of each; whatever fails, each session's own step tries again by itself."""
        try:
            read_together([lane.engine for lane in lanes if lane.engine is not None])
        except Exception:  # noqa: BLE001
            _LOG.warning("answers not read together", extra=fields(sessions=len(lanes)), exc_info=True)


@dataclass(frozen=True, slots=True)
class _Job:
    lane: "Lane"
    run: Callable[[], None]
    cancel: Callable[[], bool]


class Lane(Executor):
    """The executor of one session (`inf_stream.session.loop.SessionLoop`): its jobs run in their turn.

    `urgent` says that somebody waits for this session; set it from any thread.

    Attributes:
        engine: whose steps the jobs are, if they may join those of others.
    """

    def __init__(self, worker: EngineWorker):
        self.engine: LazyEngine | None = None
        self._worker = worker
        self._urgent = False

    @property
    def has_unread(self) -> bool:
        """Whether the engine's next step needs a token read; for the engine's thread."""
        return self.engine is not None and self.engine.has_unread

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
