"""`sliding-window`: the recent tokens and nothing else."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from inf_stream.cache.policies.base import Evidence, Policy, keep_first_and_last
from inf_stream.cache.slots import SlotView


@dataclass(frozen=True)
class SlidingWindow(Policy):
    """The latest tokens. Known to break down once the first tokens leave (arXiv 2309.17453): a baseline."""

    name: ClassVar[str] = "sliding-window"
    summary: ClassVar[str] = "the recent tokens only; a baseline that is known to break down"

    def plan(self, slots: SlotView, evidence: Evidence, budget_tokens: int) -> Int[Tensor, "layers rows kept"]:
        """Slots that stay: the latest."""
        return keep_first_and_last(slots, 0, budget_tokens)
