"""`full`: everything; the unbounded reference."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from inf_stream.cache.policies.base import Evidence, Policy, keep_all_rows
from inf_stream.cache.slots import SlotView


@dataclass(frozen=True)
class Full(Policy):
    """Keeps every token, and grows: what the bounded policies are measured against."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "every token; grows without bound, for reference"
    bounded: ClassVar[bool] = False

    def plan(self, slots: SlotView, evidence: Evidence, budget_tokens: int) -> Int[Tensor, "layers rows kept"]:
        """All slots."""
        return keep_all_rows(slots, torch.arange(slots.used, device=slots.index.device))
