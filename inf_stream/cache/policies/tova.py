"""`tova`: the tokens the newest query attends to most."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from inf_stream.cache.policies.base import Evidence, Policy, keep_best, protect
from inf_stream.cache.slots import SlotView


@dataclass(frozen=True)
class TOVA(Policy):
    """Token omission via attention: heads averaged in the layer, the newest query alone decides.

    Source: arXiv 2401.06104. Published with one eviction per token; here it evicts as often as every other policy
    (`cache.evict_every_tokens`), so that all are compared with the same memory.
    """

    name: ClassVar[str] = "tova"
    summary: ClassVar[str] = "the tokens the newest query attends to most"

    @property
    def window_tokens(self) -> int:
        """The newest query."""
        return 1

    def plan(self, slots: SlotView, evidence: Evidence, budget_tokens: int) -> Int[Tensor, "layers rows kept"]:
        """Slots that stay: the most attended, and the newest."""
        assert evidence.received is not None, "asked for by window_tokens"
        return keep_best(protect(evidence.received, slots.index >= slots.tokens_seen - 1), budget_tokens)
