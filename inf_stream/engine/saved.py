"""What saving a session needs of its engine."""

from typing import Protocol, runtime_checkable

from inf_stream.base.state import State, StateCopy
from inf_stream.engine.protocol import CopyInParts, SteppedEngine


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


def begin_copy(engine: SteppedEngine) -> CopyInParts:
    """A copy of the engine's state, no part of which is made yet; it must not be stepped until the copy is whole."""
    assert isinstance(engine, SavedEngine), "asked of an engine that can be saved"
    return StateCopy(engine.state())
