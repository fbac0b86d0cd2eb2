"""What saving a session needs of its engine."""

from typing import Protocol, runtime_checkable

from inf_stream.base.state import State
from inf_stream.engine.protocol import SteppedEngine


@runtime_checkable
class SavedEngine(SteppedEngine, Protocol):
    """An engine whose state can be taken between two answers, and given to a fresh one."""

    @property
    def is_answering(self) -> bool:
        """Whether an answer is open."""
        ...

    def state(self) -> State:
        """Everything that later answers depend on, but for the weights; valid until the next step."""
        ...

    def restore(self, state: State) -> None:
        """Go on where another engine was; for one that has taken in nothing yet."""
        ...
