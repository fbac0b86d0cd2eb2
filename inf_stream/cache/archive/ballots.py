"""Blocks that compete for the same seats in a recall: each layer that votes scores them, and the best are elected."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.cache.archive.archive import Archive


class Ballot:
    """Candidates, and what votes they have so far; how a layer scores them is a subclass's.

    Scores are standardised and added to those of the layers below, so no layer's choice is its own alone, and no extra
    pass over the question is needed.

    Attributes:
        places: of the candidates, in rising order.
        seats: how many of them are elected.
    """

    def __init__(self, archive: Archive, places: Int[Tensor, "candidates"], seats: int):
        self.archive, self.places, self.seats = archive, places, seats
        device = archive.layout.device
        self._numbers = archive.numbers(places)
        self._stale = torch.zeros(len(places), dtype=torch.bool)
        self._votes = torch.zeros(len(places), device=device)

    def begin(self) -> None:
        """The layers vote afresh; what is no longer in the archive, since new blocks took its place, cannot win."""
        self._votes.zero_()
        self._stale = self.archive.numbers(self.places) != self._numbers

    @property
    def gone(self) -> Int[Tensor, "places"]:
        """Places of candidates that are no longer in the archive."""
        return self.places[self._stale]

    def vote(self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float) -> None:
        """Add a layer's scores; `queries` are its unrotated ones of the question's latest part."""
        scores = self.scores(layer, queries, scaling)
        self._votes += (scores - scores.mean()) / scores.std(correction=0).clamp(min=1e-12)

    def elected(self) -> Int[Tensor, "blocks"]:
        """Places of the best so far."""
        votes = self._votes
        if bool(self._stale.any()):
            votes = votes.masked_fill(self._stale.to(votes.device), -torch.inf)
        return self.places[votes.topk(self.seats).indices.cpu()]

    def scores(
        self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float
    ) -> Float[Tensor, "candidates"]:
        """How much a layer wants each candidate."""
        raise NotImplementedError

    def by_means(self, layer: int) -> Float[Tensor, "candidates"]:
        """How well the mean key of every candidate answers what is particular to the question.

        That is the question's mean query, as ReKV (arXiv 2503.00540) takes it, less the usual one
        (`inf_stream.cache.archive.usual`).
        """
        layout, index = self.archive.layout, self.archive.index_of(layer)
        asked = self.archive.usual.particular(layer).view(layout.kv_heads, -1, layout.head_dim).mean(1)
        rows, last = self.places.to(index.device), int(self.places[-1]) + 1
        # Few of them are taken out of the index first; of many, all are scored.
        is_few = 2 * len(rows) < last
        scores = (index[rows if is_few else slice(last)] @ asked.flatten().to(index.dtype)[:, None])[:, 0].float()
        return scores if is_few or len(rows) == last else scores[rows]


class MeansBallot(Ballot):
    """Scores by mean keys: of each candidate one vector is read."""

    def scores(
        self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float
    ) -> Float[Tensor, "candidates"]:
        """See `Ballot.by_means`."""
        return self.by_means(layer)
