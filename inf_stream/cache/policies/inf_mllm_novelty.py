"""`inf-mllm-novelty`: as `inf-mllm`, but frames age by how little they showed that was new, and leave whole."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.base.config import setting
from inf_stream.base.tokens import NO_FRAME
from inf_stream.cache.policies.base import Evidence
from inf_stream.cache.policies.inf_mllm import InfMLLM
from inf_stream.cache.slots import SlotView


@dataclass(frozen=True)
class InfMLLMNovelty(InfMLLM):
    """Keep = TopK(S + D, r) and the latest L, where the bias D knows what was new.

    Age alone makes a camera forget the one visitor of a quiet hour for ever more frames of an empty yard. So for a
    frame's tokens the bias is

        D_j = -bias_slope * mean(S) * (age_j * (1 - v_j) - v_j),   age_j = (n - 1 - j) / n

    with v = novelty_weight * novelty, at most 1: what looked like nothing before it has a lead and ages little, and
    what repeats what is kept already ages as in `inf-mllm`. ``S`` of a frame's tokens is their mean, so that a frame
    stays with its time, or goes with it. Text ages as ever; a stream of text alone is remembered as by `inf-mllm`,
    token for token. Measured by `demos/bench/quality/video.py`.
    """

    name: ClassVar[str] = "inf-mllm-novelty"
    summary: ClassVar[str] = "as inf-mllm, but frames that showed something new age less, and frames leave whole"

    novelty_weight: float = setting(1.0, "how much the novelty of frames counts; 0: not at all", low=0.0, high=1e3)

    @property
    def needs_novelty(self) -> bool:
        """Whether `plan` looks at `Evidence.novelty`."""
        return True

    def biased_scores(self, slots: SlotView, evidence: Evidence) -> Float[Tensor, "layers rows slots"]:
        """``S + D``."""
        assert evidence.novelty is not None, "asked for by needs_novelty"
        score = mean_of_frames(self.scores(evidence), slots.frame)
        novelty = (self.novelty_weight * evidence.novelty).clamp(max=1)
        lead = self.bias_slope * score.mean(-1, keepdim=True) * novelty
        return score + self.bias(score) * (1 - novelty) + lead


def mean_of_frames(values: Float[Tensor, "layers rows slots"], frames: Tensor) -> Float[Tensor, "layers rows slots"]:
    """Each slot of a frame with the mean of all that the row holds of the frame; others as they are."""
    numbers, places = torch.unique(frames, return_inverse=True)
    sums = torch.zeros(*frames.shape[:2], len(numbers), device=values.device)
    counts = torch.zeros_like(sums).scatter_add_(-1, places, torch.ones_like(values))
    sums.scatter_add_(-1, places, values)
    return torch.where(frames == NO_FRAME, values, (sums / counts.clamp(min=1)).gather(-1, places))
