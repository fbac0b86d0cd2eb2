"""An engine that is made when it is needed, and whose steps are timed."""

import time
from collections.abc import Sequence

from inf_stream.base.events import Evidence, Frame, Question
from inf_stream.base.state import State, StateCopy
from inf_stream.engine import together
from inf_stream.engine.engine import Engine
from inf_stream.engine.protocol import AnswerStep
from inf_stream.engine.saved import SavedEngine
from inf_stream.engine.stopwatch import Timer
from inf_stream.server.sessions.engines import CacheUse, EngineMaker, Memory, SessionOptions, UsageEngine


class LazyEngine:
    """An engine that is made at its first step, on the thread of its steps (`SavedEngine`).

    Until then its options can be changed. A step whose engine cannot be made raises what `EngineMaker.make` raised.
    `timer` is told each step on its thread: how long the step held it, which on a GPU may be less than the work takes.
    """

    def __init__(self, maker: EngineMaker, options: SessionOptions, timer: Timer):
        self.options = options
        self._maker, self._timer = maker, timer
        self._engine: SavedEngine | None = None
        self._read_s = 0.0

    def configure(self, options: SessionOptions) -> None:
        """Change the options of an engine that is not made yet.

        Raises:
            InfStreamError: see `EngineMaker.check`.
        """
        self._maker.check(options)
        self.options = options

    @property
    def frames_per_step(self) -> int:
        """As the engine's; one before there is any."""
        return 1 if self._engine is None else self._engine.frames_per_step

    @property
    def characters_per_step(self) -> int:
        """As every engine's of the maker."""
        return self._maker.characters_per_step

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        """As the engine's."""
        engine, began_s = self._made(), time.monotonic()
        engine.ingest_frames(frames)
        self._timer("frames", time.monotonic() - began_s)

    def ingest_text(self, text: str, at_ns: int) -> None:
        """As the engine's."""
        engine, began_s = self._made(), time.monotonic()
        engine.ingest_text(text, at_ns)
        self._timer("text", time.monotonic() - began_s)

    def begin_answer(self, question: Question) -> str | None:
        """As the engine's."""
        engine, began_s = self._made(), time.monotonic()
        warning = engine.begin_answer(question)
        self._timer("question", time.monotonic() - began_s)
        return warning

    def step_answer(self) -> AnswerStep:
        """As the engine's; the time of a `read_together` before it counts."""
        began_s = time.monotonic() - self._read_s
        self._read_s = 0.0
        step = self._made().step_answer()
        self._timer("token", time.monotonic() - began_s)
        return step

    @property
    def has_unread(self) -> bool:
        """Whether the next step needs a token read that `read_together` could read."""
        return isinstance(self._engine, UsageEngine) and self._engine.answering.has_unread

    def end_answer(self) -> int:
        """As the engine's."""
        return self._made().end_answer()

    @property
    def memory(self) -> Memory | None:
        """Which seconds of the stream are kept, if the engine tells; for any thread."""
        return self._engine.memory if isinstance(self._engine, UsageEngine) else None

    @property
    def use(self) -> CacheUse | None:
        """What is held, if the engine tells; for any thread."""
        return self._engine.use if isinstance(self._engine, UsageEngine) else None

    def stats(self) -> dict[str, float | int | str]:
        """As the engine's; nothing before there is any."""
        return {} if self._engine is None else self._engine.stats()

    def evidence(self) -> tuple[Evidence, ...]:
        """As the engine's."""
        return () if self._engine is None else self._engine.evidence()

    # ---- kept on disk ------------------------------------------------------------------------------

    @property
    def is_answering(self) -> bool:
        """As the engine's."""
        return self._engine is not None and self._engine.is_answering

    def state(self) -> State:
        """As the engine's; of one that is not made yet there is nothing."""
        return State() if self._engine is None else self._engine.state()

    def restore(self, state: State) -> None:
        """Make an engine that goes on where another was, unless there was none.

        Raises:
            InfStreamError: it cannot be made, or the state is not one of such an engine.
        """
        assert self._engine is None, "restored before its first step"
        if state.facts:
            engine = self._maker.make(self.options)
            engine.restore(state)
            self._engine = engine

    def copied(self, copy: StateCopy) -> None:
        """A copy of the state was made, on the thread of the steps: each part of it was one."""
        for part_s in copy.parts_s:
            self._timer("copy", part_s)

    # ---- the end -----------------------------------------------------------------------------------

    def let_go(self) -> None:
        """No step will come any more: free the engine's memory now, whoever else still holds this object."""
        self._engine = None

    def _made(self) -> SavedEngine:
        if self._engine is None:
            self._engine = self._maker.make(self.options)
        return self._engine

    def _answering(self) -> Engine:
        assert isinstance(self._engine, UsageEngine), "an engine that has something unread"
        return self._engine.answering


def read_together(engines: Sequence[LazyEngine]) -> None:
    """See `inf_stream.engine.together.read_together`; each engine's next step counts the time as its own."""
    began_s = time.monotonic()
    together.read_together([engine._answering() for engine in engines])
    for engine in engines:
        engine._read_s = time.monotonic() - began_s
