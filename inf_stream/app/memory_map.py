"""Which parts of the stream are still in the cache: the numbers behind the memory map.

A stream with frames is laid out by stream time; streamed text has no clock and is laid out by token number.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from inf_stream.base.clock import NS_PER_S, format_clock
from inf_stream.cache.stream_cache import StreamCache

MOST_BINS = 360
_MOST_ENLARGED_BINS = 120
_ENLARGE_BELOW = 0.25
_LEAST_ENLARGED = 3
_ENLARGED_SHARES = (0.95, 0.9, 0.8, 0.65, 0.5)


@dataclass(frozen=True)
class Kept:
    """What a cache holds at one moment.

    Attributes:
        times_ns: stream time of every kept token.
        index: running number in the stream of every kept token.
        seen_tokens: tokens of the stream so far.
        budget_tokens: most tokens a layer keeps after an eviction.
        cache_bytes: memory of the cache.
        policy: name of the cache policy.
    """

    times_ns: Int[np.ndarray, "layers rows kept"]
    index: Int[np.ndarray, "layers rows kept"]
    seen_tokens: int
    budget_tokens: int
    cache_bytes: int
    policy: str

    @property
    def tokens(self) -> int:
        """Tokens kept per layer."""
        return int(self.index.shape[-1])

    @property
    def timed(self) -> bool:
        """Whether the stream has a clock: kept tokens of more than one time."""
        return self.times_ns.size > 0 and bool(self.times_ns.min() != self.times_ns.max())

    @property
    def places(self) -> Float[np.ndarray, "layers rows kept"]:
        """Where each kept token lies: seconds of the stream if it is timed, else token numbers."""
        return self.times_ns / NS_PER_S if self.timed else self.index.astype(np.float64)


@dataclass(frozen=True)
class MemoryMap:
    """Kept tokens counted per layer and stretch of the stream.

    Attributes:
        timed: whether the stream is laid out by seconds; else by token number.
        edges: limits of the stretches, in seconds or token numbers.
        tokens: kept tokens of each layer in each stretch, averaged over the layer's heads.
        half_from: where the newer half of all kept tokens begins, in seconds or token numbers.
    """

    timed: bool
    edges: Float[np.ndarray, "edges"]
    tokens: Float[np.ndarray, "layers bins"]
    half_from: float

    @property
    def share(self) -> Float[np.ndarray, "bins"]:
        """Share of the shown tokens in each stretch; sums to 1 unless nothing is kept."""
        total = self.tokens.sum(axis=0)
        return np.asarray(total / max(float(total.sum()), 1e-12))

    def tick(self, place: float) -> str:
        """A place on the axis, short."""
        return format_clock(round(place * NS_PER_S)) if self.timed else f"{round(place):,}"

    def label(self, place: float) -> str:
        """A place on the axis, in a sentence."""
        return self.tick(place) if self.timed else f"token {self.tick(place)}"


@dataclass(frozen=True)
class Enlarged:
    """The newest stretch of a stream: where the newest `share` of its kept tokens lie."""

    map: MemoryMap
    share: float


def kept_in(cache: StreamCache) -> Kept:
    """What `cache` holds now; call it from the engine's thread or while the engine rests."""
    used = cache.slots.used
    index: torch.Tensor = cache.slots.planes["index"][:, :, :used]
    return Kept(
        times_ns=cache.kept_times_ns().numpy(),
        index=index.cpu().numpy().copy(),
        seen_tokens=cache.seen_tokens,
        budget_tokens=cache.budget_tokens,
        cache_bytes=cache.bytes(),
        policy=cache.policy.name,
    )


def memory_map(kept: Kept, start: float = 0.0, most_bins: int = MOST_BINS) -> MemoryMap:
    """Count kept tokens per layer and stretch from `start` (seconds or token number) to the newest token.

    Stretches are equally long, a whole number of seconds or tokens, at most `most_bins` of them.
    """
    places = kept.places
    start = float(np.floor(start))
    span = np.floor(places.max(initial=start)) + 1 - start
    width = np.ceil(span / most_bins)
    edges = start + width * np.arange(np.ceil(span / width) + 1)
    rows = places.shape[1]
    counts = np.stack([np.histogram(layer, edges)[0] for layer in places]) / rows
    half_from = float(np.median(places)) if places.size else start
    return MemoryMap(kept.timed, edges, counts, half_from)


def enlarged(kept: Kept, whole: MemoryMap) -> Enlarged | None:
    """As much of the newest memory as lies in a short stretch of the stream.

    None if even the newest half is spread too widely to need enlarging, or the stream is too short for it.
    """
    end = float(whole.edges[-1])
    for share in _ENLARGED_SHARES:
        start = float(np.quantile(kept.places, 1 - share, method="higher")) if kept.tokens else 0.0
        if _LEAST_ENLARGED <= end - start <= _ENLARGE_BELOW * (end - float(whole.edges[0])):
            return Enlarged(memory_map(kept, start, _MOST_ENLARGED_BINS), share)
    return None
