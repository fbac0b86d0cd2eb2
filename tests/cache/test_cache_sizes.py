"""What is foretold of a cache is what it allocates."""

from typing import Any

import pytest
import torch
from support.toy_stream import ToyRotation, toy_layout

from inf_stream.cache.policies import POLICIES, make_policy
from inf_stream.cache.sizes import CacheSizes, footprint
from inf_stream.cache.stream_cache import StreamCache

OPTIONS: dict[str, dict[str, Any]] = {
    name: {"window": 4, "separate_heads": True} for name in ("inf-mllm", "inf-mllm-novelty")
}


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("name", POLICIES)
def test_bytes_are_foretold(name: str, segmented: bool) -> None:
    layout = toy_layout(segmented=segmented, layers=3, dtype=torch.float32)
    policy, rotation = make_policy(name, OPTIONS.get(name, {})), ToyRotation(layout)
    sizes = CacheSizes(budget_tokens=100, chunk_tokens=30, evict_every_tokens=10)
    cache = StreamCache(layout, policy, rotation, budget_tokens=100, chunk_tokens=30, evict_every_tokens=10)
    memory = footprint(layout, policy, rotation)
    assert sizes.capacity_tokens == cache.capacity_tokens == 192
    assert memory.total_bytes(sizes) == cache.bytes()
    assert memory.largest_budget(cache.bytes(), sizes) == 192 - 30 - 10
    assert memory.largest_budget(cache.bytes() - 1, sizes) == 128 - 30 - 10
    assert memory.largest_budget(0, sizes) < 1
