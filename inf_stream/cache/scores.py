"""Relevance scores for eviction: how much attention a window of latest queries pays to each kept token.

Computed at eviction only, from the last `w` queries: one ``[w, n]`` product a head. Its slow twin accumulates the
full attention matrix at every step; the two agree as long as no eviction falls inside the window.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.base.errors import StateError
from inf_stream.base.state import State


def attention_received(
    queries: Float[Tensor, "query_heads window head_dim"],
    rotated_keys: Float[Tensor, "kv_heads slots head_dim"],
    used: int,
    scaling: float,
    rows: int,
) -> Float[Tensor, "rows used"]:
    """Causal attention each slot receives from the last `window` tokens, summed over them, averaged over heads.

    The window's queries belong to the last `window` of the `used` slots. The slots behind are read and left out, so
    that the product has one of few shapes (`inf_stream.cache.attend`). `rows` is 1 (average over all heads of the
    layer) or the number of key/value heads (average over the query heads that share one). Source: the retrieval window
    of arXiv 2409.09086, Figure 3.
    """
    query_heads, window, head_dim = queries.shape
    kv_heads = rotated_keys.shape[0]
    group = query_heads // kv_heads
    folded = (queries * scaling).reshape(kv_heads, group * window, head_dim)
    logits = folded @ rotated_keys.transpose(1, 2)
    future = torch.ones(window, window, dtype=torch.bool, device=logits.device).triu(1).repeat(group, 1)
    logits[..., used - window : used].masked_fill_(future, -torch.inf)
    logits[..., used:] = -torch.inf
    # Converting first is four times faster on a CPU than softmax with a dtype.
    received = logits.float().softmax(-1).sum(1)[:, :used] / group
    return received.mean(0, keepdim=True) if rows == 1 else received


def times_visible(window: int, slots: int, device: torch.device) -> Int[Tensor, "slots"]:
    """How many of the window's queries can see each slot: all of them before the window, fewer inside it."""
    visible = torch.full((slots,), window, device=device)
    visible[slots - window :] = torch.arange(window, 0, -1, device=device)
    return visible


class QueryWindow:
    """The latest rotated queries of each layer, in a ring ``[layers, query_heads, window, head_dim]``."""

    def __init__(self, layers: int, query_heads: int, window: int, head_dim: int, like: Tensor):
        self.window = window
        self._ring = torch.zeros(layers, query_heads, window, head_dim, dtype=like.dtype, device=like.device)
        self._scaling = [1.0] * layers
        self._seen = 0
        self._valid = 0

    @property
    def valid(self) -> int:
        """Queries that may be used: those since the last eviction, at most `window`."""
        return self._valid

    def write(self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float) -> None:
        """Take in the queries of new tokens of one layer; `advance` follows when all layers are done."""
        self._scaling[layer] = scaling
        tokens = queries.shape[1]
        latest = min(tokens, self.window)
        first = self._seen + tokens - latest
        places = torch.arange(first, first + latest, device=self._ring.device) % self.window
        self._ring[layer].index_copy_(1, places, queries[:, tokens - latest :])

    def advance(self, tokens: int) -> None:
        """Count new tokens, after every layer has written them."""
        self._seen += tokens
        self._valid = min(self.window, self._valid + tokens)

    def forget(self) -> None:
        """Start over: the ranks of older queries are void after an eviction or a failed step."""
        self._valid = 0

    def latest(self, layer: int) -> Float[Tensor, "query_heads valid head_dim"]:
        """The valid queries of one layer, oldest first."""
        places = torch.arange(self._seen - self._valid, self._seen, device=self._ring.device) % self.window
        return self._ring[layer].index_select(1, places)

    def received(
        self, layer: int, rotated_keys: Float[Tensor, "kv_heads slots head_dim"], used: int, rows: int
    ) -> Float[Tensor, "rows used"]:
        """Attention each used slot of one layer receives from the valid queries."""
        return attention_received(self.latest(layer), rotated_keys, used, self._scaling[layer], rows)

    def state(self) -> State:
        """The ring and how far it was written."""
        return State({"ring": self._ring}, {"scaling": self._scaling, "seen": self._seen, "valid": self._valid})

    def restore(self, state: State) -> None:
        """Take over what `state` of a window of the same size gave.

        Raises:
            StateError: it does not fit this window; nothing was taken over.
        """
        ring = state.tensor("ring", tuple(self._ring.shape), self._ring.dtype)
        scaling, seen, valid = state.fact("scaling", list), state.count("seen"), state.count("valid")
        if [type(s) for s in scaling] != [float] * len(self._scaling) or valid > min(seen, self.window):
            raise StateError("the saved session has a retrieval window that does not fit this model")
        self._ring.copy_(ring)
        self._scaling, self._seen, self._valid = list(scaling), seen, valid

    def bytes(self) -> int:
        """Memory of the ring."""
        return self._ring.nbytes
