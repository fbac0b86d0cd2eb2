"""How long the model's work takes, on a device that may still be at it when the program goes on."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeAlias

import torch

Timer: TypeAlias = Callable[[str, float], None]
"""Told what kind of work was done, and the seconds it took."""
Stopwatch: TypeAlias = Callable[[str], AbstractContextManager[None]]
"""Times the work done within the block, by its kind; work that raises is not told."""


def untimed(_work: str) -> AbstractContextManager[None]:
    """The `Stopwatch` of those who want no times."""
    return contextlib.nullcontext()


def stopwatch(device: torch.device, tell: Timer) -> Stopwatch:
    """One that measures what `device` does."""
    return CudaStopwatch(device, tell).time if device.type == "cuda" else HostStopwatch(tell).time


class HostStopwatch:
    """Work that is done when the call returns."""

    def __init__(self, tell: Timer, clock_s: Callable[[], float] = time.perf_counter):
        self._tell, self._clock_s = tell, clock_s

    @contextlib.contextmanager
    def time(self, work: str) -> Iterator[None]:
        """See `Stopwatch`."""
        began_s = self._clock_s()
        yield
        self._tell(work, self._clock_s() - began_s)


class CudaStopwatch:
    """Work that a GPU is given and does later: it is never waited for, and told once later work has been given."""

    def __init__(self, device: torch.device, tell: Timer):
        self._device, self._tell = device, tell
        self._running: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextlib.contextmanager
    def time(self, work: str) -> Iterator[None]:
        """See `Stopwatch`."""
        began = self._mark()
        yield
        self._running.append((work, began, self._mark()))
        while self._running and self._running[0][2].query():  # type: ignore[no-untyped-call]
            work, began, ended = self._running.popleft()
            self._tell(work, began.elapsed_time(ended) / 1000)

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
