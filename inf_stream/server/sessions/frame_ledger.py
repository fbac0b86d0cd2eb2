"""The frames of one session, counted: each gets a number, waits, and is settled once."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

from inf_stream.base.state import State


class FrameLedger:
    """Which frames came, which wait, and what became of the others.

    Args:
        outcomes: what can become of a frame.
    """

    def __init__(self, outcomes: Sequence[str]):
        self.received = 0
        self._arriving: dict[int, int] = {}
        self._waiting: OrderedDict[int, int] = OrderedDict()
        self._outcomes: Counter[str] = Counter(dict.fromkeys(outcomes, 0))
        self._reasons: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Frames that wait for the engine."""
        return len(self._waiting)

    @property
    def are_settled(self) -> bool:
        """Whether every frame that came has its outcome."""
        return not self._waiting and not self._arriving

    def number(self, at_ns: int) -> int:
        """A frame has come; its number counts all of them, from 0."""
        number, self.received = self.received, self.received + 1
        self._arriving[number] = at_ns
        return number

    def wait(self, number: int, at_ns: int) -> None:
        """A numbered frame waits for the engine, behind the others."""
        del self._arriving[number]
        self._waiting[number] = at_ns

    def oldest(self) -> tuple[int, int]:
        """Number and stream time of the frame that has waited longest; it is to be settled next."""
        return next(iter(self._waiting.items()))

    def settle(self, number: int, outcome: str, reason: str | None) -> None:
        """Count what became of a numbered frame."""
        self._arriving.pop(number, None)
        self._waiting.pop(number, None)
        self._outcomes[outcome] += 1
        if reason is not None:
            self._reasons[reason] += 1

    def stats(self) -> dict[str, Any]:
        """All counts."""
        counts = {"received": self.received, "waiting": self.waiting, **self._outcomes}
        return {**counts, "reasons": dict(self._reasons)}

    def state(self) -> State:
        """Counts, and the frames that are not settled."""
        unsettled = (self._waiting | self._arriving).items()
        return State(
            facts={
                "received": self.received,
                "unsettled": [[number, at_ns] for number, at_ns in unsettled],
                "outcomes": dict(self._outcomes),
                "reasons": dict(self._reasons),
            }
        )

    def restore(self, state: State) -> None:
        """Go on where another ledger was; the frames that were not settled then wait.

        Raises:
            StateError: it is not what `state` gives.
        """
        self.received = state.count("received")
        self._waiting = OrderedDict((number, at_ns) for number, at_ns in state.fact("unsettled", list))
        self._outcomes.update(state.fact("outcomes", dict))
        self._reasons.update(state.fact("reasons", dict))
