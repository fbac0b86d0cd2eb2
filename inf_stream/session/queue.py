"""Bounded queues between a source and the engine: plain data, no locks, no clock.

Every entry carries its arrival number, which orders frames, text and questions among each other.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from inf_stream.base.errors import SessionError
from inf_stream.base.events import Frame


class QueueRule(Enum):
    """What happens to a frame that finds the queue full."""

    WAIT = "wait"
    """Nothing is lost: the source is paused (files)."""
    DROP_OLDEST = "drop-oldest"
    """The frame that waited longest is left out: what is seen is as fresh as can be (live sources)."""
    DROP_LATEST = "drop-latest"
    """The new frame is left out: what waits is worked off undisturbed."""


class FrameQueue:
    """Frames that wait for the engine, oldest first, at most `capacity` of them.

    Raises:
        SessionError: `capacity` is below 1.
    """

    def __init__(self, capacity: int, rule: QueueRule):
        if capacity < 1:
            raise SessionError(f"a queue of {capacity} frames holds nothing; give it at least 1")
        self.capacity = capacity
        self.rule = rule
        self.dropped: Counter[QueueRule] = Counter()
        """Frames left out so far, by the rule that left them out."""
        self._waiting: deque[tuple[int, Frame]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether the next frame meets the rule."""
        return len(self._waiting) == self.capacity

    def arrivals(self) -> list[int]:
        """Arrival numbers of what waits, oldest first."""
        return [arrival for arrival, _ in self._waiting]

    def oldest_arrival(self, default: int) -> int:
        """Arrival number of the oldest frame, or `default` if none waits."""
        return self._waiting[0][0] if self._waiting else default

    def count_before(self, arrival: int) -> int:
        """How many frames came before that arrival number."""
        return sum(own < arrival for own, _ in self._waiting)

    def put(self, frame: Frame, arrival: int) -> Frame | None:
        """Add a frame; returns the one that the rule left out for it (perhaps itself), counted.

        Raises:
            SessionError: the queue is full and the rule is WAIT.
        """
        if not self.is_full:
            self._waiting.append((arrival, frame))
            return None
        if self.rule is QueueRule.WAIT:
            raise SessionError(
                f"frame {frame.number} came while {self.capacity} frames wait, the most allowed; hold it back "
                "until the source is resumed, or choose the rule drop-oldest"
            )
        self.dropped[self.rule] += 1
        if self.rule is QueueRule.DROP_LATEST:
            return frame
        _, oldest = self._waiting.popleft()
        self._waiting.append((arrival, frame))
        return oldest

    def take(self, most: int) -> tuple[Frame, ...]:
        """Remove and return up to `most` of the oldest frames."""
        return tuple(self._waiting.popleft()[1] for _ in range(min(most, len(self._waiting))))


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Streamed text short enough for one step."""

    text: str
    at_ns: int
    arrival: int


class TextQueue:
    """Streamed text that waits for the engine, oldest first, at most `capacity` characters of it."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self._waiting: deque[TextPiece] = deque()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def characters(self) -> int:
        """Characters that wait."""
        return self._characters

    def arrivals(self) -> list[int]:
        """Arrival numbers of what waits, oldest first."""
        return [piece.arrival for piece in self._waiting]

    def oldest_arrival(self, default: int) -> int:
        """Arrival number of the oldest piece, or `default` if none waits."""
        return self._waiting[0].arrival if self._waiting else default

    def has_room(self, characters: int) -> bool:
        """Whether that many more may be put."""
        return self._characters + characters <= self.capacity

    def require_room(self, characters: int) -> None:
        """Make sure that many more may be put.

        Raises:
            SessionError: they do not fit.
        """
        if not self.has_room(characters):
            raise SessionError(
                f"text of {characters} characters came while {self._characters} of at most {self.capacity} wait; "
                "hold it back until the source is resumed, or send it in smaller pieces"
            )

    def put(self, piece: TextPiece) -> None:
        """Add a piece.

        Raises:
            SessionError: it does not fit.
        """
        self.require_room(len(piece.text))
        self._waiting.append(piece)
        self._characters += len(piece.text)

    def take(self) -> TextPiece:
        """Remove and return the oldest piece."""
        piece = self._waiting.popleft()
        self._characters -= len(piece.text)
        return piece


def cut_text(text: str, most_characters: int) -> Iterator[str]:
    """Pieces of at most `most_characters` that join to `text`, cut before white space where there is some.

    >>> list(cut_text("to be or not", 6))
    ['to be', ' or', ' not']
    """
    start = 0
    while len(text) - start > most_characters:
        stop = start + most_characters
        before_space = next((i for i in range(stop, start, -1) if text[i].isspace()), stop)
        yield text[start:before_space]
        start = before_space
    if start < len(text):
        yield text[start:]
