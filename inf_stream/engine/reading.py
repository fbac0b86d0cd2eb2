"""Chunks on their way through the model into the cache, in parts no longer than it takes at once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.base.errors import BudgetError
from inf_stream.cache.evidence import EvidenceMeter
from inf_stream.cache.step import CacheStep
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.stopwatch import Stopwatch
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel


@dataclass(frozen=True)
class Reading:
    """A part that is being read: what the model runs over, and what to do with the logits that come of it."""

    chunk: Chunk
    step: CacheStep
    end: Callable[[Float[Tensor, "vocabulary"]], None]


class ChunkReader:
    """Runs a model over chunks against the cache of one stream.

    Attributes:
        meter: what adds up the attention that frames receive meanwhile; None where nobody asks for it.
    """

    def __init__(self, model: StreamModel, cache: StreamCache, stopwatch: Stopwatch):
        self.meter: EvidenceMeter | None = None
        self._model, self._cache, self._stopwatch = model, cache, stopwatch

    def read(self, chunk: Chunk, work: str = "chunk") -> Float[Tensor, "tokens width"]:
        """Read a chunk, timed as this kind of work; returns the hidden states of its last part.

        Raises:
            BudgetError: the memory of the device is gone, or a frame that has to be read in one piece is too long.
        """
        start, hidden = 0, None
        try:
            while start < len(chunk):
                stop = self._end_of_part(chunk, start)
                part = chunk.slice(start, stop)
                with self._stopwatch(work):
                    step = self.begin(part)
                    hidden = self._model.forward(part, step)
                    self.commit(step)
                start = stop
        except torch.OutOfMemoryError as error:
            raise BudgetError(
                f"out of memory on {self._model.device} while reading {len(chunk)} tokens into a cache of "
                f"{self._cache.bytes() / 2**20:.0f} MiB; lower cache.budget_tokens or cache.chunk_tokens"
            ) from error
        assert hidden is not None, "a chunk has tokens"
        return hidden

    def begin(self, part: Chunk) -> CacheStep:
        """The step in which the model reads a part; nothing changes until `commit`."""
        return self._cache.begin(part.tags, watched=self.meter is not None)

    def commit(self, step: CacheStep) -> None:
        """The model has run: the part counts."""
        if self.meter is not None:
            self.meter.add(step)
        self._cache.commit(step)

    def require_frame_fits(self, frame: Chunk) -> None:
        """Refuse a frame of which the cache could not keep every token.

        Raises:
            BudgetError: saying how many there may be.
        """
        room = self._cache.budget_tokens - self._cache.policy.least_budget_tokens
        if len(frame) > room:
            raise BudgetError(
                f"a frame has {len(frame)} tokens with its time text; a budget of {self._cache.budget_tokens} keeps "
                f"at most {room} of a frame: raise cache.budget_tokens or choose a model with fewer tokens a frame"
            )

    def require_prompt_fits(self, chunk: Chunk, what: str, remedy: str) -> None:
        """Refuse a text, named by `what`, that would leave the stream less than half of the cache.

        Raises:
            BudgetError: with the remedy.
        """
        limit = self._cache.budget_tokens // 2
        if len(chunk) > limit:
            raise BudgetError(
                f"{what} of {len(chunk)} tokens; at most {limit}, half of the cache budget, are allowed: {remedy}"
            )

    def require_aside_fits(self, chunk: Chunk) -> int:
        """Tokens that are left for the answer of an aside.

        Raises:
            BudgetError: there is none.
        """
        left = self._cache.room_tokens - len(chunk)
        if not self._cache.policy.bounded:
            return 1 << 30
        if left < 1:
            raise BudgetError(
                f"aside of {len(chunk)} tokens; there is room for {self._cache.room_tokens - 1} without forgetting "
                "anything: shorten it, raise cache.chunk_tokens, or ask it as a question of the stream"
            )
        return left

    def _end_of_part(self, chunk: Chunk, start: int) -> int:
        stop = min(start + self._cache.chunk_tokens, len(chunk))
        if not self._model.layout.bidirectional_frames or stop == len(chunk):
            return stop
        segment, visual = chunk.tags.segment, chunk.tags.visual
        while visual[stop] and segment[stop] == segment[stop - 1]:
            stop -= 1
            if stop == start:
                raise BudgetError(
                    f"a frame of this model is read in one piece, but is longer than {self._cache.chunk_tokens} "
                    "tokens; raise cache.chunk_tokens"
                )
        return stop
