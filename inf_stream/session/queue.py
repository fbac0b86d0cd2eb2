"""A bounded queue with a rule for what happens when it is full. Pure: no locks, no waiting."""

from collections import deque
from enum import Enum
from typing import Generic, TypeVar

from inf_stream.base.errors import ConfigError, SessionError

T = TypeVar("T")


class QueueRule(str, Enum):
    """What happens to something that arrives at a full queue."""

    WAIT = "wait"
    """Nothing is lost: its source has to wait."""
    DROP_OLDEST = "drop-oldest"
    """What waited longest is left out: the newest matters most (live sources)."""
    DROP_LATEST = "drop-latest"
    """What just arrived is left out: what waits is worked off undisturbed."""

    @classmethod
    def named(cls, name: str, *, live: bool) -> "QueueRule":
        """The rule of a setting; `auto` waits, unless the source is live and cannot wait.

        Raises:
            ConfigError: no such rule.
        """
        if name == "auto":
            return cls.DROP_OLDEST if live else cls.WAIT
        try:
            return cls(name)
        except ValueError:
            raise ConfigError(f"queue rule '{name}' is unknown; known: auto, {', '.join(cls)}") from None


class BoundedQueue(Generic[T]):
    """First in, first out, never longer than `capacity`.

    Attributes:
        capacity: most items at any time.
        rule: what happens at a full queue.
        dropped: items left out by the rule so far.
    """

    def __init__(self, capacity: int, rule: QueueRule):
        """Make an empty queue.

        Raises:
            ConfigError: a capacity below 1.
        """
        if capacity < 1:
            raise ConfigError(f"queue of {capacity} places; at least 1 is needed")
        self.capacity, self.rule, self.dropped = capacity, rule, 0
        self._items: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether the next arrival meets the rule."""
        return len(self._items) == self.capacity

    def push(self, item: T) -> T | None:
        """Add an item; returns the one left out for it (perhaps `item` itself), or None.

        Raises:
            SessionError: the queue is full and its rule is to wait.
        """
        if not self.full:
            self._items.append(item)
            return None
        if self.rule is QueueRule.WAIT:
            raise SessionError(f"all {self.capacity} places of the queue are taken; wait for room before sending more")
        self.dropped += 1
        if self.rule is QueueRule.DROP_LATEST:
            return item
        oldest = self._items.popleft()
        self._items.append(item)
        return oldest

    def head(self) -> T:
        """The oldest item, left in place; the queue must not be empty."""
        return self._items[0]

    def pop(self) -> T:
        """Take the oldest item; the queue must not be empty."""
        return self._items.popleft()
