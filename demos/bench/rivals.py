"""Other ways to choose what an archive gives back, on the same blocks and with the same memory."""

import torch

from inf_stream.cache.archive import Archive, Recall
from inf_stream.cache.archive.usual import UsualQuery
from inf_stream.cache.stream_cache import StreamCache


class MeanQuery(UsualQuery):
    """A question is taken as it is."""

    def particular(self, layer: int) -> torch.Tensor:
        return self._heard[layer]


class AllVote(Recall):
    """Every layer adds its vote and chooses."""

    def __init__(self, archive: Archive, start: int, between_ns: tuple[int, int] | None):
        super().__init__(archive, start, between_ns)
        self._voters = tuple(range(archive.layout.layers))


class EachByItself(AllVote):
    """Every layer chooses, without the votes of those below."""

    def choose(self, layer: int, queries: torch.Tensor, scaling: float) -> None:
        self.begin_choice()
        super().choose(layer, queries, scaling)


RIVALS: dict[str, type[Recall]] = {"all-vote": AllVote, "mean-query": EachByItself}
"""By name: the product's own recall with the votes of all layers, and ReKV's choice (arXiv 2503.00540)."""


def take_queries_as_they_are(cache: StreamCache) -> None:
    """Let a cache with an archive choose by a question's whole mean query, as ReKV does."""
    if cache.archive is not None:
        cache.archive.usual = MeanQuery(cache.layout)


def choose_as(rival: str, cache: StreamCache, between_ns: tuple[int, int] | None) -> None:
    """Put the rival of this name, if it is one, in the place of the recall that was just opened."""
    if cache.recall is not None and rival in RIVALS:
        cache.recall = RIVALS[rival](cache.recall.archive, cache.recall.start, between_ns)
