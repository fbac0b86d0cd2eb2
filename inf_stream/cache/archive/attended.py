"""Blocks that the question itself attends to: the retrieval window, turned to what has left the cache.

Mean keys tell frames apart, but hardly pieces of text: 32 tokens of a record have nearly the same mean as any other 32,
and one that holds what is asked for stands out by a token or two. So every token of the question attends to every
archived key of a layer, and a block's score is the largest share of attention that any token in any head pays to it.
The keys are read from the blocks themselves, so no larger index is kept, but the choice takes a time that grows with
the archive. Measured by `demos/bench/quality/lines.py` and `demos/bench/recall.py`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.cache.archive.archive import Archive
from inf_stream.cache.archive.recall import Recall

_MOST_LOGITS = 1 << 22
"""Of one product, so that a large archive is read in pieces."""


class AttendedRecall(Recall):
    """A recall that chooses by the attention of each token of the question, without rotation, to each archived key."""

    def __init__(self, archive: Archive, start: int, between_ns: tuple[int, int] | None):
        super().__init__(archive, start, between_ns)
        self._strongest: dict[int, Tensor] = {}

    def _scores(
        self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float
    ) -> Float[Tensor, "candidates"]:
        """Largest share of attention of any token of the question so far in any head."""
        shares = self._block_logits(layer, queries * scaling).softmax(-1).amax(0)
        if layer in self._strongest:
            shares = torch.maximum(shares, self._strongest[layer])
        self._strongest[layer] = shares
        return shares

    def _block_logits(
        self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"]
    ) -> Float[Tensor, "rows candidates"]:
        """Logarithm of the attention, not normalised yet, that each token in each head pays to each block."""
        kv_heads, block = self.archive.layout.kv_heads, self.archive.block_tokens
        folded = queries.reshape(kv_heads, -1, queries.shape[-1])
        places = self._allowed.cpu()
        piece = max(1, _MOST_LOGITS // (folded.shape[0] * folded.shape[1] * block))
        found = []
        for start in range(0, len(places), piece):
            some = places[start : start + piece]
            logits = (folded @ self.archive.keys(layer, some).transpose(1, 2)).float()
            logits.masked_fill_(~self.archive.filled(some).to(logits.device), -torch.inf)
            found.append(logits.view(*logits.shape[:2], len(some), block).logsumexp(-1).flatten(0, 1))
        return torch.cat(found, dim=-1)
