"""`streaming-llm`: attention sinks and the recent tokens."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from inf_stream.base.config import setting
from inf_stream.cache.policies.base import Evidence, Policy, keep_first_and_last
from inf_stream.cache.slots import SlotView


@dataclass(frozen=True)
class StreamingLLM(Policy):
    """The first `sinks` tokens of the stream and the latest ones. Source: arXiv 2309.17453."""

    name: ClassVar[str] = "streaming-llm"
    summary: ClassVar[str] = "the first few tokens (attention sinks) and the recent ones"

    sinks: int = setting(4, "first tokens of the stream that always stay", low=0, high=1 << 16)

    @property
    def least_budget_tokens(self) -> int:
        """The sinks and the newest token."""
        return self.sinks + 1

    def plan(self, slots: SlotView, evidence: Evidence, budget_tokens: int) -> Int[Tensor, "layers rows kept"]:
        """Slots that stay: sinks and the latest."""
        return keep_first_and_last(slots, self.sinks, budget_tokens - self.sinks)
