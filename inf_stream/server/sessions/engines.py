"""Engines of many sessions on one model: the weights are loaded once, each session has its own cache."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from inf_stream.app.memory_map import kept_in, memory_map
from inf_stream.base.clock import NS_PER_S
from inf_stream.base.config import Settings
from inf_stream.base.errors import BudgetError
from inf_stream.base.events import Frame, Question
from inf_stream.base.state import State
from inf_stream.cache.archive import Archive, ArchiveSizes
from inf_stream.cache.policies import make_policy
from inf_stream.cache.sizes import CacheSizes, footprint
from inf_stream.engine.build import build_engine, recall_tokens
from inf_stream.engine.engine import Engine
from inf_stream.engine.forwarding import ForwardingEngine
from inf_stream.engine.saved import SavedEngine
from inf_stream.engine.stopwatch import Timer, stopwatch
from inf_stream.models.stream_model import StreamModel
from inf_stream.models.weights.checkpoint import local_path
from inf_stream.models.weights.loaded import LoadedWeights
from inf_stream.models.weights.placement import CudaFacts, machine_facts
from inf_stream.sources.base import FrameSize


@dataclass(frozen=True)
class SessionOptions:
    """What a client may choose for its session until its stream begins.

    Attributes:
        instructions: system prompt; empty takes the server's.
        budget_tokens: of the cache; None takes the server's, which is also the most.
    """

    instructions: str = ""
    budget_tokens: int | None = None


@runtime_checkable
class EngineMaker(Protocol):
    """Where sessions get their engines from."""

    @property
    def name(self) -> str:
        """Of the model, as clients see it."""
        ...

    @property
    def sees(self) -> bool:
        """Whether frames can be taken in."""
        ...

    @property
    def frame_size(self) -> FrameSize | None:
        """The size that frames are best given in, asked with their own; None if any will do."""
        ...

    @property
    def instructions(self) -> str:
        """The system prompt of a session that asks for no other."""
        ...

    @property
    def budget_tokens(self) -> int:
        """The largest cache of a session, and the one it gets."""
        ...

    @property
    def characters_per_step(self) -> int:
        """As of all engines made here."""
        ...

    @property
    def session_bytes(self) -> int:
        """Memory of one session with the largest cache."""
        ...

    def free_bytes(self) -> int:
        """Memory free for sessions now."""
        ...

    def gpu(self) -> CudaFacts | None:
        """The GPU that the model runs on, as it is now; None if it runs elsewhere."""
        ...

    def check(self, options: SessionOptions) -> None:
        """Refuse options with which no engine could be made.

        Raises:
            InfStreamError: saying what can be had instead.
        """
        ...

    def make(self, options: SessionOptions) -> SavedEngine:
        """A new engine; slow, for the engine's thread.

        Raises:
            InfStreamError: see `check`; or the memory is gone.
        """
        ...


class SharedModel:
    """Engines on one set of weights (`EngineMaker`).

    Nothing that changes is shared: `StreamModel`, `StreamCache` and `Engine` are made for each session, and the weights
    are only read.

    Args:
        settings: of the server.
        weights: of the model.
        timer: told the model's work (`Engine`), on the engine's thread.

    Raises:
        BudgetError, ConfigError: no session could have such a cache, or such an archive.
    """

    def __init__(self, settings: Settings, weights: LoadedWeights, timer: Timer = lambda _work, _s: None):
        self._settings, self._weights = settings, weights
        model = StreamModel(weights, frame_tokens=settings.model.frame_tokens or None)
        self._policy = make_policy(settings.cache.policy, settings.policy)
        self._device = model.device
        self._stopwatch = stopwatch(model.device, timer)
        self._footprint = footprint(model.layout, self._policy, model.rotation)
        self._sees = model.vision is not None
        self._frame_size = None if model.vision is None else model.vision.frame_size
        self._sizes().check(self._policy)
        if self._archive_bytes():
            Archive(model.layout, ArchiveSizes(self._archive_bytes()))  # takes no memory before its first block

    @property
    def name(self) -> str:
        """As in the settings; of a path, only its last part, since clients see it."""
        name = self._settings.model.name
        return local_path(name).name if local_path(name).exists() else name

    @property
    def sees(self) -> bool:
        """Whether the model has a vision tower."""
        return self._sees

    @property
    def frame_size(self) -> FrameSize | None:
        """As the model's vision tower has it."""
        return self._frame_size

    @property
    def instructions(self) -> str:
        """As in the settings."""
        return self._settings.model.system_prompt

    @property
    def budget_tokens(self) -> int:
        """As in the settings."""
        return self._settings.cache.budget_tokens

    @property
    def characters_per_step(self) -> int:
        """About one chunk, as `Engine` has it."""
        return Engine.characters_per_chunk(self._settings.cache.chunk_tokens)

    @property
    def session_bytes(self) -> int:
        """Of a cache with the budget of the settings, and of its archive, where both lie in the same memory."""
        own = self._archive_bytes() if self._device.type == "cpu" else 0
        return self._footprint.total_bytes(self._sizes()) + own

    def free_bytes(self) -> int:
        """Of the model's device; less, where the host's memory for archives ends first."""
        facts, archive_bytes = machine_facts(), self._archive_bytes()
        free_bytes = facts.free_bytes(self._device)
        if self._device.type == "cpu" or not archive_bytes:
            return free_bytes
        return min(free_bytes, facts.ram_free_bytes * self.session_bytes // archive_bytes)

    def gpu(self) -> CudaFacts | None:
        """The model's device, if it is a CUDA device."""
        return machine_facts().cuda[self._device.index or 0] if self._device.type == "cuda" else None

    def check(self, options: SessionOptions) -> None:
        """Refuse a budget above the server's, or too small for its policy.

        Raises:
            BudgetError: naming the limit.
        """
        budget = options.budget_tokens
        if budget is None:
            return
        if budget > self.budget_tokens:
            raise BudgetError(
                f"a cache of {budget} tokens was asked for; this server gives at most {self.budget_tokens} to a session"
            )
        dataclasses.replace(self._sizes(), budget_tokens=budget).check(self._policy)

    def make(self, options: SessionOptions) -> SavedEngine:
        """An engine with a cache of its own.

        Raises:
            BudgetError, ConfigError, ModelError: see `build_engine`.
        """
        self.check(options)
        settings = self._settings
        model = dataclasses.replace(settings.model, system_prompt=options.instructions or self.instructions)
        budget = self.budget_tokens if options.budget_tokens is None else options.budget_tokens
        cache = dataclasses.replace(settings.cache, budget_tokens=budget)
        settings = dataclasses.replace(settings, model=model, cache=cache)
        return UsageEngine(build_engine(settings, self._weights, self._stopwatch))

    def _sizes(self) -> CacheSizes:
        cache = self._settings.cache
        sizes = (cache.budget_tokens, cache.chunk_tokens, cache.evict_every_tokens)
        return CacheSizes(*sizes, recall_tokens(self._settings))

    def _archive_bytes(self) -> int:
        """Host memory of a session for what leaves its cache."""
        return self._settings.archive.host_mib << 20 if self._policy.bounded else 0


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a session holds: tokens kept per layer, and bytes of its cache and of its archive, on disk or not."""

    tokens: int
    cache_bytes: int
    archive_bytes: int


Memory: TypeAlias = dict[str, float | int | list[float]]
"""Which seconds of a stream are kept: `from_s`, `width_s`, `kept` (tokens in each stretch of that width, averaged over
the layers), `tokens_kept`, and `most_tokens`, more than which there never are."""

_MEMORY_BINS = 240
_MEMORY_EVERY_S = 1.0


class UsageEngine(ForwardingEngine):
    """An engine whose `stats` also say what its latest answer was given, and which tells what is kept.

    `input_tokens` were in the cache when the answer began, its question included; of them `cached_tokens` before the
    question came, and `image_tokens` belong to frames.

    Attributes:
        answering: the engine itself.
        memory: which seconds are kept, a second old at most while frames come. None before the first frame.
        use: what is held since the latest frames, text, question or answer. As `memory`, it is replaced as a whole, so
            that any thread may read it.
    """

    def __init__(self, engine: Engine, clock_s: Callable[[], float] = time.monotonic):
        super().__init__(engine)
        self.answering = engine
        self.memory: Memory | None = None
        self._cache, self._clock_s = engine.cache, clock_s
        self.use = self._count_use()
        self._usage: dict[str, float | int | str] = {}
        self._looked_s: float | None = None

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        """As the engine's."""
        super().ingest_frames(frames)
        now_s = self._clock_s()
        if self._looked_s is None or now_s - self._looked_s >= _MEMORY_EVERY_S:
            self._looked_s = now_s
            self.memory = self._look()
        self.use = self._count_use()

    def ingest_text(self, text: str, at_ns: int) -> None:
        """As the engine's."""
        super().ingest_text(text, at_ns)
        self.use = self._count_use()

    def end_answer(self) -> int:
        """As the engine's."""
        tokens = super().end_answer()
        self.use = self._count_use()
        return tokens

    def _look(self) -> Memory:
        kept = kept_in(self._cache)
        # A stream of one frame has no extent yet; it is laid out by seconds all the same.
        drawn = memory_map(dataclasses.replace(kept, index=kept.times_ns // NS_PER_S), most_bins=_MEMORY_BINS)
        return {
            "from_s": float(drawn.edges[0]),
            "width_s": float(drawn.edges[1] - drawn.edges[0]),
            "kept": [round(float(tokens), 2) for tokens in drawn.tokens.mean(axis=0)],
            "tokens_kept": kept.tokens,
            "most_tokens": self._cache.capacity_tokens,
        }

    def begin_answer(self, question: Question) -> str | None:
        """As the engine's."""
        seen = self._cache.seen_tokens
        warning = super().begin_answer(question)
        kept, read = self._cache.used_tokens, self._cache.seen_tokens - seen
        visual = self._cache.slots.planes["visual"][0, 0, :kept]
        self._usage = {
            "input_tokens": kept,
            "cached_tokens": max(0, kept - read),
            "image_tokens": int((visual > 0).sum()),
        }
        self.use = self._count_use()
        return warning

    def _count_use(self) -> CacheUse:
        cache, archive = self._cache, self._cache.archive
        return CacheUse(cache.used_tokens, cache.bytes(), 0 if archive is None else archive.bytes())

    def stats(self) -> dict[str, float | int | str]:
        """As the engine's, and the latest answer's usage."""
        return super().stats() | self._usage

    @property
    def is_answering(self) -> bool:
        """As the engine's."""
        return self.answering.is_answering

    def state(self) -> State:
        """As the engine's."""
        return self.answering.state()

    def restore(self, state: State) -> None:
        """As the engine's."""
        self.answering.restore(state)
        self.use = self._count_use()
        if self.answering.stats()["frames"]:
            self.memory = self._look()
