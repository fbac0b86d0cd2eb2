"""How much may wait in a session, and in what portions the engine takes it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from inf_stream.base.config import SourceSettings
from inf_stream.session.queue import QueueRule


@runtime_checkable
class StepSizes(Protocol):
    """The part of an engine that a session plans with; read only while no step is in flight."""

    @property
    def frames_per_step(self) -> int:
        """Most frames one step takes; may change from step to step."""
        ...

    @property
    def characters_per_step(self) -> int:
        """Most characters of streamed text one step takes; fixed."""
        ...


@dataclass(frozen=True)
class SessionLimits:
    """Bounds of a session's queues.

    Attributes:
        queue_frames: frames that may wait.
        rule: what happens to a frame beyond them.
        queue_questions: questions that may wait; one more is refused.
        queue_characters: characters of streamed text that may wait; at least one step's worth is always allowed.
        full_steps: frames wait until there are enough for a whole step or something else follows them. Steps then
            depend on the order of events alone, not on their timing, so that a file gives the same answers at
            each run, and the engine works in larger portions. A live source would see the present late.
    """

    queue_frames: int = 8
    rule: QueueRule = QueueRule.WAIT
    queue_questions: int = 64
    queue_characters: int = 1 << 16
    full_steps: bool = False

    @classmethod
    def from_settings(cls, source: SourceSettings, *, live: bool) -> "SessionLimits":
        """Limits as the `[source]` settings have them, for a source that keeps pace with the world or not.

        The rule "auto" becomes DROP_OLDEST for a live source, WAIT for any other.
        """
        automatic = QueueRule.DROP_OLDEST if live else QueueRule.WAIT
        rule = automatic if source.queue_rule == "auto" else QueueRule(source.queue_rule)
        return cls(source.queue_frames, rule, source.queue_questions, full_steps=not live)
