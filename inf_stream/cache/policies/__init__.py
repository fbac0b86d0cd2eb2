"""Which tokens stay: one policy a file, all under one contract (`policies/base.py`)."""

from collections.abc import Mapping
from typing import Any

from inf_stream.base.config import build, nearest
from inf_stream.base.errors import ConfigError
from inf_stream.cache.policies.base import Evidence, Policy
from inf_stream.cache.policies.full import Full
from inf_stream.cache.policies.h2o import H2O
from inf_stream.cache.policies.inf_mllm import InfMLLM
from inf_stream.cache.policies.inf_mllm_novelty import InfMLLMNovelty
from inf_stream.cache.policies.last_frames import LastFrames
from inf_stream.cache.policies.sliding_window import SlidingWindow
from inf_stream.cache.policies.streaming_llm import StreamingLLM
from inf_stream.cache.policies.tova import TOVA

POLICIES: dict[str, type[Policy]] = {
    p.name: p for p in (InfMLLM, InfMLLMNovelty, StreamingLLM, H2O, TOVA, SlidingWindow, LastFrames, Full)
}


def make_policy(name: str, options: Mapping[str, Any]) -> Policy:
    """The policy of this name with these options.

    Raises:
        ConfigError: no such policy, or an option it does not have, of the wrong type, or out of range.
    """
    if name not in POLICIES:
        raise ConfigError(f"unknown cache policy '{name}'{nearest(name, list(POLICIES))}")
    return build(POLICIES[name], options, "policy")


__all__ = ["POLICIES", "Evidence", "Policy", "make_policy"]
