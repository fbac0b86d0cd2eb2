"""Blocks that the question itself attends to: the retrieval window, turned to what has left the cache.

Mean keys tell frames apart, but hardly pieces of text: 32 tokens of a record have nearly the same mean as any other 32,
and one that holds what is asked for stands out by a token or two. So every token of the question attends to every
archived key of a layer, and a block's score is the largest share of attention that any token in any head pays to it.
The keys are read from the blocks themselves, so no larger index is kept, but the choice takes a time that grows with
what there is to choose from. Measured by `demos/bench/quality/lines.py`.

Text is cut into blocks where it happens to be full, so what is asked for may lie across a cut:

    block     ... he said. The code of | Adam's safe is 48213. Then ...
    attended to        ^^^^^^^^^^^^^^^   ^^^^^^^^^^^
    half      first   | second           first     | second

A token speaks for its surroundings: attention to the second half of a block counts for the block that goes on from
there, too, and attention to the first half for the block before. Frames are whole, and speak for themselves alone.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.base.tokens import NO_FRAME
from inf_stream.cache.archive.archive import Archive
from inf_stream.cache.archive.ballots import Ballot

_MOST_LOGITS = 1 << 22
"""Of one product, so that a large archive is read in pieces, and a long question too."""


class AttentionBallot(Ballot):
    """Scores by the attention of each token of the question, without rotation, to each archived key.

    Of more candidates than `most`, or than there are seats if those are more, a layer attends only to those that it
    finds the best by their mean keys.
    """

    def __init__(self, archive: Archive, places: Int[Tensor, "candidates"], seats: int, most: int | None = None):
        super().__init__(archive, places, seats)
        self._most = len(places) if most is None else max(most, seats)
        self._strongest: dict[int, Tensor] = {}
        self._before, self._after = self._neighbours()

    def scores(
        self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float
    ) -> Float[Tensor, "candidates"]:
        """Largest share of attention of any token of the question so far in any head."""
        read = self._read(layer)
        scores, first, second = torch.zeros(3, len(self.places), device=read.device)
        if len(read):
            scores[read], first[read], second[read] = self._shares(layer, queries * scaling, self.places[read.cpu()])
        spoken_for: Tensor = scores.clone()
        spoken_for[self._after] = torch.maximum(scores[self._after], second[self._before])
        spoken_for[self._before] = torch.maximum(spoken_for[self._before], first[self._after])
        if layer in self._strongest:
            spoken_for = torch.maximum(spoken_for, self._strongest[layer])
        self._strongest[layer] = spoken_for
        return spoken_for

    def _read(self, layer: int) -> Int[Tensor, "read"]:
        """Which candidates a layer attends to: what took the place of one that has gone is not what was there."""
        here = torch.nonzero(~self._stale)[:, 0].to(self._votes.device)
        return here if len(here) <= self._most else here[self.by_means(layer)[here].topk(self._most).indices]

    def _shares(
        self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], places: Int[Tensor, "read"]
    ) -> Float[Tensor, "3 read"]:
        """Largest share of attention that each block gets of any token in any head, and that each half of it gets."""
        at_once = max(1, _MOST_LOGITS // (queries.shape[0] * len(places)))
        shares = torch.zeros(3, len(places), device=queries.device)
        for start in range(0, queries.shape[1], at_once):
            halves = self._half_logits(layer, queries[:, start : start + at_once], places)
            of_halves = halves.flatten(1).softmax(-1).view_as(halves)
            largest = torch.stack((of_halves.sum(-1).amax(0), *of_halves.amax(0).unbind(-1)))
            shares = torch.maximum(shares, largest)
        return shares

    def _half_logits(
        self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], places: Int[Tensor, "read"]
    ) -> Float[Tensor, "rows read 2"]:
        """Logarithm of the attention, not normalised yet, of each token in each head to both halves of each block."""
        kv_heads, block = self.archive.layout.kv_heads, self.archive.block_tokens
        folded = queries.reshape(kv_heads, -1, queries.shape[-1])
        piece = max(1, _MOST_LOGITS // (folded.shape[0] * folded.shape[1] * block))
        found = []
        for start in range(0, len(places), piece):
            some = places[start : start + piece]
            logits = (folded @ self.archive.keys(layer, some).transpose(1, 2)).float().flatten(0, 1)
            # Adding is several times faster than filling, and a softmax than its parts.
            logits += (
                torch.zeros(logits.shape[1]).masked_fill_(~self.archive.filled(some), -torch.inf).to(logits.device)
            )
            whole = logits.logsumexp(-1) if len(some) < len(places) else torch.zeros(len(logits), device=logits.device)
            by_token = logits.softmax(-1).view(-1, len(some), block)
            parts = by_token[..., : (block + 1) // 2], by_token[..., (block + 1) // 2 :]
            found.append(torch.stack([part.sum(-1) for part in parts], dim=-1).log_() + whole[:, None, None])
        return torch.cat(found, dim=1)

    def _neighbours(self) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
        """Candidates of text, and those that go on where each of them ends."""
        first, tokens = self.archive.spans(self.places)
        is_text = self.archive.frames()[self.places] == NO_FRAME
        ordered, order = first.sort()
        at = torch.searchsorted(ordered, first + tokens).clamp(max=max(0, len(order) - 1))
        after = order[at]
        joined = (first[after] == first + tokens) & is_text & is_text[after]
        device = self._votes.device
        return torch.nonzero(joined)[:, 0].to(device), after[joined].to(device)
