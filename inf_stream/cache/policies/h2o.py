"""`h2o`: heavy hitters by attention accumulated over the token's whole life, and the recent tokens."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from inf_stream.base.config import setting
from inf_stream.cache.policies.base import Evidence, Policy, keep_best, protect
from inf_stream.cache.slots import SlotView


@dataclass(frozen=True)
class H2O(Policy):
    """Half heavy hitters, half recent, each key/value head for itself. Source: arXiv 2306.14048.

    The accumulated sum never forgets, which is what `inf-mllm`'s local window mends. Every step pays for a full
    attention matrix, since the sum needs all of them.
    """

    name: ClassVar[str] = "h2o"
    summary: ClassVar[str] = "heavy hitters by attention accumulated for ever, and the recent tokens"
    accumulates: ClassVar[bool] = True

    recent_share: float = setting(0.5, "share of the budget for the latest tokens", low=0.0, high=1.0)
    separate_heads: bool = setting(True, "each key/value head keeps its own tokens, as published")

    @property
    def per_head(self) -> bool:
        """Whether each key/value head keeps its own tokens."""
        return self.separate_heads

    def plan(self, slots: SlotView, evidence: Evidence, budget_tokens: int) -> Int[Tensor, "layers rows kept"]:
        """Slots that stay: the latest, and the highest accumulated attention."""
        assert evidence.received is not None, "asked for by accumulates"
        recent_from = slots.tokens_seen - max(int(self.recent_share * budget_tokens), 1)
        return keep_best(protect(evidence.received, slots.index >= recent_from), budget_tokens)
