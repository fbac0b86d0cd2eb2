"""Whose turn it is on the one engine thread: plain queues, no thread, no clock."""

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairSchedule(Generic[T]):
    """Jobs of many lanes, handed out one at a time.

    A lane keeps the order of its own jobs. Lanes for which somebody waits (`urgent`) go before the others, and among
    equals the lane goes first whose turn was longest ago:

        urgent    [a: 1 2] [b: 1]        handed out: a1 b1 a2 ...
        ordinary  [c: 1 2] [d: 1]        ... c1 d1 c2, and one of them after each `patience` urgent jobs in a row

    so a lane among `n` ordinary ones waits for at most `n * (patience + 1)` jobs.
    """

    def __init__(self, patience: int = 8):
        assert patience >= 1, "an urgent job comes first at least once"
        self._patience = patience
        self._urgent: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._ordinary: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._passed_over = 0

    def __len__(self) -> int:
        return sum(len(jobs) for ring in (self._urgent, self._ordinary) for jobs in ring.values())

    def add(self, lane: Hashable, job: T, *, urgent: bool) -> None:
        """Add a job behind its lane's others; `urgent` holds for the whole lane from now on."""
        self.set_urgent(lane, urgent)
        (self._urgent if urgent else self._ordinary).setdefault(lane, deque()).append(job)

    def set_urgent(self, lane: Hashable, urgent: bool) -> None:
        """Somebody began to wait for this lane, or waits no more; it goes to the end of the others of its kind."""
        come_from, go_to = (self._ordinary, self._urgent) if urgent else (self._urgent, self._ordinary)
        jobs = come_from.pop(lane, None)
        if jobs is not None:
            go_to[lane] = jobs

    def take(self, *, hold: bool = False) -> T | None:
        """The job that goes next, or None if there is none.

        `hold` keeps ordinary jobs back, but for those whose turn it is after `patience` urgent ones: an urgent lane is
        about to come back with its next job.
        """
        is_free = not self._urgent and not hold
        is_their_turn = self._ordinary and (is_free or self._passed_over >= self._patience)
        ring = self._ordinary if is_their_turn else self._urgent
        if not ring:
            return None
        self._passed_over = self._passed_over + 1 if self._ordinary and not is_their_turn else 0
        lane, jobs = ring.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            ring[lane] = jobs
        return job

    def remove(self, lane: Hashable) -> list[T]:
        """Take out all jobs of a lane."""
        return [job for ring in (self._urgent, self._ordinary) for job in ring.pop(lane, ())]
