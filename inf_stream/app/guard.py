"""A stream whose very first frame the engine refuses is refused as a whole."""

from collections.abc import Sequence

from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import Frame, Question
from inf_stream.engine.protocol import AnswerStep, SteppedEngine


class StreamRefused(Exception):  # noqa: N818 (not for callers of the package: `reason` is what they get)
    """Ends the session at once; `reason` says why."""

    def __init__(self, reason: InfStreamError):
        super().__init__(str(reason))
        self.reason = reason


class FirstFrameGuard:
    """An engine that breaks, rather than refusing frame after frame, as long as none has been taken in.

    Raises:
        StreamRefused: from `ingest_frames`.
    """

    def __init__(self, engine: SteppedEngine):
        self._engine = engine
        self._seen = False

    @property
    def frames_per_step(self) -> int:
        """As the engine's."""
        return self._engine.frames_per_step

    @property
    def characters_per_step(self) -> int:
        """As the engine's."""
        return self._engine.characters_per_step

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        """As the engine's, but a refusal before the first success is final."""
        try:
            self._engine.ingest_frames(frames)
        except InfStreamError as error:
            if self._seen:
                raise
            raise StreamRefused(error) from error
        self._seen = True

    def ingest_text(self, text: str, at_ns: int) -> None:
        """As the engine's."""
        self._engine.ingest_text(text, at_ns)

    def begin_answer(self, question: Question) -> None:
        """As the engine's."""
        self._engine.begin_answer(question)

    def step_answer(self) -> AnswerStep:
        """As the engine's."""
        return self._engine.step_answer()

    def end_answer(self) -> int:
        """As the engine's."""
        return self._engine.end_answer()

    def stats(self) -> dict[str, float | int | str]:
        """As the engine's."""
        return self._engine.stats()
