"""`inf-mllm`: the relevant tokens by a retrieval window with an attention bias, and the recent ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.base.config import setting
from inf_stream.base.errors import ConfigError
from inf_stream.cache.policies.base import Evidence, Policy, keep_best, newest_frames_first_index, protect
from inf_stream.cache.slots import SlotView


@dataclass(frozen=True)
class InfMLLM(Policy):
    """Keep = TopK(S + D, r) and the latest L. Source: arXiv 2409.09086.

    ``S`` is the attention each token receives from the retrieval window (the last `window` queries), normalised by
    how many of them can see it. ``D_j = -bias_slope * mean(S) * (n - 1 - j) / n`` grows with the age rank of slot j
    among n: without it old tokens keep their advantage for ever and the cache freezes.

        index  0      ...                                  newest
               [sinks)[ chosen by S + D ......)[latest L = recent_share * budget)

    What the paper leaves open is a setting. Each default is as good as any other value that was tried, or better
    (`demos/bench/quality/README.md`, "Settings"; the rows are in `demos/bench/results/quality/ablations.jsonl`): a
    slope of 0 costs 2 % of perplexity and one of 32 costs 1.6 %, between 1 and 8 it makes no difference, and 2 is the
    smallest with which the cache keeps turning over (`tests/cache/test_attention_bias.py`); heads that choose
    separately cost 0.7 %; all else is within half a percent.
    """

    name: ClassVar[str] = "inf-mllm"
    summary: ClassVar[str] = "relevant tokens (retrieval window + attention bias) and recent ones; the default"

    window: int = setting(64, "latest queries that form the retrieval window", low=1, high=1 << 16)
    bias_slope: float = setting(2.0, "attention bias: 0 freezes the cache, larger forgets sooner", low=0.0, high=1e6)
    recent_share: float = setting(0.5, "share of the budget for the latest tokens", low=0.0, high=1.0)
    sinks: int = setting(4, "first tokens of the stream that always stay", low=0, high=1 << 16)
    recent_frames: int = setting(1, "newest frames that stay complete", low=0, high=4096)
    separate_heads: bool = setting(False, "each key/value head keeps its own tokens")
    pooled_tokens: int = setting(1, "scores are averaged over this many neighbours; odd", low=1, high=1025)
    value_weighted: bool = setting(False, "scores are multiplied by the length of the value vector")

    def __post_init__(self) -> None:
        if self.pooled_tokens % 2 == 0:
            raise ConfigError(f"policy.pooled_tokens is {self.pooled_tokens}; an odd number is expected")

    @property
    def window_tokens(self) -> int:
        """Latest queries whose attention decides."""
        return self.window

    @property
    def per_head(self) -> bool:
        """Whether each key/value head keeps its own tokens."""
        return self.separate_heads

    @property
    def needs_value_norms(self) -> bool:
        """Whether scores are weighted by value length."""
        return self.value_weighted

    @property
    def frames_remembered(self) -> int:
        """Frames whose beginnings must be known."""
        return max(self.recent_frames, 1)

    @property
    def least_budget_tokens(self) -> int:
        """The sinks and the newest token."""
        return self.sinks + 1

    def plan(self, slots: SlotView, evidence: Evidence, budget_tokens: int) -> Int[Tensor, "layers rows kept"]:
        """Slots that stay: sinks, the newest frames, the latest L, and the best of the rest."""
        score = self.biased_scores(slots, evidence)
        latest = slots.tokens_seen - int(self.recent_share * budget_tokens)
        frames = newest_frames_first_index(slots, self.recent_frames, budget_tokens - self.sinks)
        recent_from = min(latest, frames, slots.tokens_seen - 1)
        return keep_best(protect(score, (slots.index >= recent_from) | (slots.index < self.sinks)), budget_tokens)

    def biased_scores(self, slots: SlotView, evidence: Evidence) -> Float[Tensor, "layers rows slots"]:
        """``S + D``."""
        score = self.scores(evidence)
        return score + self.bias(score)

    def scores(self, evidence: Evidence) -> Float[Tensor, "layers rows slots"]:
        """``S``."""
        assert evidence.received is not None, "asked for by window_tokens"
        assert evidence.visible is not None, "comes with every window"
        score = evidence.received / evidence.visible
        if evidence.value_norms is not None:
            score = score * evidence.value_norms
        if self.pooled_tokens > 1:
            score = torch.nn.functional.avg_pool1d(
                score, self.pooled_tokens, stride=1, padding=self.pooled_tokens // 2, count_include_pad=False
            )
        return score

    def bias(self, score: Float[Tensor, "layers rows slots"]) -> Float[Tensor, "layers rows slots"]:
        """``D``, by the age rank of each slot."""
        slots = score.shape[-1]
        age = torch.arange(slots - 1, -1, -1, device=score.device) / slots
        return -self.bias_slope * score.mean(-1, keepdim=True) * age
