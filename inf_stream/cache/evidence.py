"""What an answer rests on: the frames whose tokens received most of the attention while it was given."""

from collections import Counter

import torch
from torch import Tensor

from inf_stream.base.events import Evidence
from inf_stream.cache.archive import Recall
from inf_stream.cache.step import CacheStep
from inf_stream.cache.stream_cache import StreamCache

MOST = 5
"""Frames that are named."""


class EvidenceMeter:
    """Adds up the attention that frames receive from watched steps, over all layers and heads.

    Recalled frames count as those that are still there. Layers that see only the latest tokens are left out. What a
    token receives is counted where it lies; only when an eviction moves the tokens, and at the end, is it brought
    together by frame.
    """

    def __init__(self, cache: StreamCache):
        self._cache = cache
        self._by_time: Counter[int] = Counter()
        self._begin()

    def add(self, step: CacheStep) -> None:
        """Take in a watched step of text, after the model has run and before it is committed."""
        if self._cache.evictions != self._evictions:
            self._bring_together()
            self._begin()
        slots = self._weights.shape[-1]
        for layer, received in enumerate(step.received):
            if self._cache.layout.sliding_windows[layer] is None:
                self._weights[layer] += received[:, :slots]

    def most(self, count: int = MOST) -> tuple[Evidence, ...]:
        """The frames that weighed most, the heaviest first, each with its share of what all frames received."""
        self._bring_together()
        self._begin()
        if isinstance(self._cache.recall, Recall):
            self._by_time.update(self._cache.recall.weights())
        total = self._by_time.total()
        return tuple(Evidence(at_ns, weight / total) for at_ns, weight in self._by_time.most_common(count) if weight)

    def _begin(self) -> None:
        slots = self._cache.slots
        self._evictions = self._cache.evictions
        self._times = slots.planes["time_ns"][..., : slots.used].clone()
        self._is_frame = slots.planes["frame"][..., : slots.used] >= 0
        self._weights: Tensor = torch.zeros(self._times.shape, device=self._times.device)

    def _bring_together(self) -> None:
        times, places = torch.unique(self._times[self._is_frame].cpu(), return_inverse=True)
        sums = torch.zeros(len(times)).index_add_(0, places, self._weights[self._is_frame].cpu())
        for at_ns, weight in zip(times.tolist(), sums.tolist(), strict=True):
            self._by_time[at_ns] += weight
