"""An engine that hands every call on to another: what decorators of an engine derive from."""

from collections.abc import Sequence

from inf_stream.base.events import Evidence, Frame, Question
from inf_stream.engine.protocol import AnswerStep, SteppedEngine


class ForwardingEngine:
    """`inf_stream.engine.protocol.SteppedEngine` by another one."""

    def __init__(self, engine: SteppedEngine):
        self._engine = engine

    @property
    def frames_per_step(self) -> int:
        """As the engine's."""
        return self._engine.frames_per_step

    @property
    def characters_per_step(self) -> int:
        """As the engine's."""
        return self._engine.characters_per_step

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        """As the engine's."""
        self._engine.ingest_frames(frames)

    def ingest_text(self, text: str, at_ns: int) -> None:
        """As the engine's."""
        self._engine.ingest_text(text, at_ns)

    def begin_answer(self, question: Question) -> str | None:
        """As the engine's."""
        return self._engine.begin_answer(question)

    def step_answer(self) -> AnswerStep:
        """As the engine's."""
        return self._engine.step_answer()

    def end_answer(self) -> int:
        """As the engine's."""
        return self._engine.end_answer()

    def stats(self) -> dict[str, float | int | str]:
        """As the engine's."""
        return self._engine.stats()

    def evidence(self) -> tuple[Evidence, ...]:
        """As the engine's."""
        return self._engine.evidence()
