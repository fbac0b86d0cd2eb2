"""Blocks of the archive that take part in an answer: each layer chooses its own while the question is read.

Choosing. A layer scores every block by how well its mean key answers what is particular to the question
(`inf_stream.cache.archive.usual`): the question's mean query, as ReKV (arXiv 2503.00540) takes it, less the usual one.
The scores are standardised and added to those of the layers below, so no layer's choice is its own alone, and no extra
pass over the question is needed. Only the lower third of the layers has a vote, and the others take what that chose, so
that most layers recall the same moments (`all-vote` in `demos/bench/recall.py` is the other way).

Taking part. The chosen tokens stand behind the live ones in memory, but before all of them in position: the cache
leaves the first `recall_tokens` positions to them, always. So no live key is touched, and when the answer is over only
what was said in it moves up by as many slots; its positions are right already. They may also stay
(`ArchiveSizes.keep_recalled`) until the next question calls back others.

    slot      0 ... live ... | recalled ...   | question, answer
    position  R ... R + live | ... R (time)   | R + live ...
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.base.layout import CacheLayout
from inf_stream.base.tokens import NO_FRAME
from inf_stream.cache.archive.archive import Archive
from inf_stream.cache.archive.recalled import Recalled


def _voters(layout: CacheLayout) -> tuple[int, ...]:
    """Layers that choose: the lower third of those that see everything."""
    seeing = [layer for layer, window in enumerate(layout.sliding_windows) if window is None]
    return tuple(seeing[: -(-len(seeing) // 3)])


class Recall(Recalled):
    """What is recalled for one answer."""

    def __init__(self, archive: Archive, start: int, between_ns: tuple[int, int] | None):
        self.archive = archive
        device = archive.layout.device
        allowed = archive.candidates(between_ns)
        self._voters = _voters(archive.layout)
        self.blocks = min(archive.recall_blocks, int(allowed.sum())) if self._voters else 0
        super().__init__(start, self.blocks * archive.block_tokens, {})
        self._allowed = torch.nonzero(allowed)[:, 0].to(device)
        self._numbers = archive.numbers(torch.nonzero(allowed)[:, 0])
        self._stale = torch.zeros(len(self._allowed), dtype=torch.bool, device=device)
        self._votes = torch.zeros(len(self._allowed), device=device)
        self._chosen: dict[int, Tensor] = {}
        self._received = torch.zeros(len(allowed))
        # Blocks that come meanwhile may take the places of the oldest.
        self._times_ns, self._frames = archive.times_ns().clone(), archive.frames().clone()

    def begin_choice(self) -> None:
        """More of the question follows: the layers choose afresh."""
        self._votes.zero_()
        # While a long question is read, new blocks may take the places of the oldest.
        self._stale = (self.archive.numbers(self._allowed.cpu()) != self._numbers).to(self._stale.device)

    def choose(self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float) -> None:
        """Let a layer choose by what it heard of the question, in rising order of layers.

        `queries` are its unrotated ones of the question's latest part, which the archive has heard already.
        """
        if layer > self._voters[-1]:
            self._chosen[layer], self._hidden[layer] = self._chosen[self._voters[-1]], self._hidden[self._voters[-1]]
            return
        scores = self._scores(layer, queries, scaling)
        self._votes += (scores - scores.mean()) / scores.std(correction=0).clamp(min=1e-12)
        best = self._allowed[self._votes.masked_fill(self._stale, -torch.inf).topk(self.blocks).indices].cpu()
        self._chosen[layer] = chosen = self.archive.in_time_order(best)
        gone = torch.isin(chosen, self._allowed[self._stale].cpu()).repeat_interleave(self.archive.block_tokens)
        filled = self.archive.filled(chosen) & ~gone
        self._hidden[layer] = None if bool(filled.all()) else ~filled

    def _scores(
        self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float
    ) -> Float[Tensor, "candidates"]:
        """How well the mean key of every candidate answers what is particular to the question."""
        index, layout = self.archive.index_of(layer), self.archive.layout
        asked = self.archive.usual.particular(layer).view(layout.kv_heads, -1, layout.head_dim).mean(1)
        return (index @ asked.flatten().to(index.dtype)[:, None])[:, 0].float()[self._allowed]

    def chosen(self, layer: int) -> Int[Tensor, "blocks"]:
        """Places of what the layer chose, in time order."""
        return self._chosen[layer]

    # ---- evidence ----------------------------------------------------------------------------------

    def receive(self, layer: int, received: Float[Tensor, "rows slots"]) -> None:
        """Count what attention the recalled slots of a layer received; one that sees only the latest has none."""
        if layer not in self._chosen:
            return
        by_block = received.sum(0).view(self.blocks, -1).sum(-1).cpu()
        self._received.index_add_(0, self._chosen[layer], by_block)

    def weights(self) -> dict[int, float]:
        """Stream time in ns of each frame that received attention -> how much."""
        places = torch.nonzero((self._received > 0) & (self._frames != NO_FRAME))[:, 0]
        found: dict[int, float] = {}
        times, received = self._times_ns[places].tolist(), self._received[places].tolist()
        for at_ns, weight in zip(times, received, strict=True):
            found[at_ns] = found.get(at_ns, 0.0) + weight
        return found
