"""Whose turn it is on the one engine thread: plain queues, no thread, no clock."""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
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
        ring = self._next_ring(hold)
        if not ring:
            return None
        self._passed_over = self._passed_over + 1 if self._ordinary and ring is self._urgent else 0
        return self._pop(ring, next(iter(ring)))

    def waits(self, lane: Hashable) -> bool:
        """Whether a job of this lane waits."""
        return lane in self._urgent or lane in self._ordinary

    def peek(self) -> Hashable | None:
        """The lane whose job goes next if nothing is held back, or None if there is none."""
        ring = self._next_ring(hold=False)
        return next(iter(ring)) if ring else None

    def take_with(self, joins: Callable[[Hashable], bool], most: int) -> list[T]:
        """The next jobs of up to `most` lanes that may join the one just taken, urgent ones first.

        They are nobody's turn, so they change nothing of whose turn it is next.
        """
        taken: list[T] = []
        for ring in (self._urgent, self._ordinary):
            joining = [lane for lane in ring if joins(lane)][: most - len(taken)]
            taken += [self._pop(ring, lane) for lane in joining]
        return taken

    def _next_ring(self, hold: bool) -> OrderedDict[Hashable, deque[T]]:
        is_free = not self._urgent and not hold
        is_their_turn = self._ordinary and (is_free or self._passed_over >= self._patience)
        return self._ordinary if is_their_turn else self._urgent

    @staticmethod
    def _pop(ring: OrderedDict[Hashable, deque[T]], lane: Hashable) -> T:
        """The first job of a lane, which goes behind the others."""
        jobs = ring.pop(lane)
        job = jobs.popleft()
        if jobs:
            ring[lane] = jobs
        return job
