"""How fast the stream is taken in: frames and characters over the time spent on them."""

from collections.abc import Callable
from time import monotonic

from inf_stream.base.events import (
    AnswerFinished,
    AnswerStarted,
    FrameDropped,
    FramesIngested,
    OutputEvent,
    TextIngested,
)


class Throughput:
    """Counts what a session reports; time during answers does not count.

    `clock` gives seconds; only differences matter.
    """

    def __init__(self, clock: Callable[[], float] = monotonic):
        self._clock = clock
        self._since = clock()
        self._reading_s = 0.0
        self.frames = 0
        self.characters = 0
        self.dropped_frames = 0

    def start(self) -> None:
        """Reading begins now; what came before, such as loading a model, does not count."""
        self._lap()

    def count(self, event: OutputEvent) -> None:
        """Take one event into account."""
        match event:
            case FramesIngested():
                self.frames += event.count
                self._reading_s += self._lap()
            case TextIngested():
                self.characters += event.characters
                self._reading_s += self._lap()
            case FrameDropped():
                self.dropped_frames = event.dropped
            case AnswerStarted() | AnswerFinished():
                self._lap()

    @property
    def frames_per_s(self) -> float:
        """Frames taken in per second of reading."""
        return self.frames / self._reading_s if self._reading_s > 0 else 0.0

    @property
    def characters_per_s(self) -> float:
        """Characters of streamed text taken in per second of reading."""
        return self.characters / self._reading_s if self._reading_s > 0 else 0.0

    def _lap(self) -> float:
        now = self._clock()
        passed, self._since = now - self._since, now
        return passed
