"""`last-frames`: the opening prompt and everything from the newest N frames on."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from inf_stream.base.config import setting
from inf_stream.cache.policies.base import Evidence, Policy, keep_first_and_last, newest_frames_first_index
from inf_stream.cache.slots import SlotView


@dataclass(frozen=True)
class LastFrames(Policy):
    """Only the present: the strong baseline for questions about now. Source: arXiv 2604.02317.

    Before the first frame it keeps the opening and the latest tokens.
    """

    name: ClassVar[str] = "last-frames"
    summary: ClassVar[str] = "only the newest frames and the prompt; knows the present, forgets the past"

    frames: int = setting(4, "newest frames that stay", low=1, high=4096)

    @property
    def frames_remembered(self) -> int:
        """Frames whose beginnings must be known."""
        return self.frames

    def plan(self, slots: SlotView, evidence: Evidence, budget_tokens: int) -> Int[Tensor, "layers rows kept"]:
        """Slots that stay: the opening, and what follows the first token of the newest frames that fit."""
        opening = min(slots.opening_tokens, budget_tokens - 1)
        room = budget_tokens - opening
        first = newest_frames_first_index(slots, self.frames, room)
        since = slots.tokens_seen - first
        return keep_first_and_last(slots, opening, since if since else room)
