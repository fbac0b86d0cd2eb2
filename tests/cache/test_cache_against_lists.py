"""The cache and its list-based twin, driven by the same random streams, keep the same tokens and say the same."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.reference_cache import ReferenceCache
from support.toy_stream import TagMaker, ToyRotation, toy_inputs, toy_layout

from inf_stream.base.tokens import TokenTags
from inf_stream.cache.policies import POLICIES, make_policy
from inf_stream.cache.stream_cache import StreamCache

POLICY_OPTIONS = [
    ("inf-mllm", {"window": 4}),
    ("inf-mllm", {"window": 5, "separate_heads": True, "recent_share": 0.25, "sinks": 0}),
    ("inf-mllm", {"window": 3, "pooled_tokens": 3, "value_weighted": True, "bias_slope": 0.5, "recent_frames": 2}),
    ("inf-mllm", {"window": 6, "separate_heads": True, "value_weighted": True, "bias_slope": 0.0}),
    ("inf-mllm-novelty", {"window": 5}),
    ("inf-mllm-novelty", {"window": 5, "separate_heads": True}),
    ("streaming-llm", {}),
    ("h2o", {}),
    ("h2o", {"separate_heads": False, "recent_share": 0.0}),
    ("tova", {}),
    ("sliding-window", {}),
    ("last-frames", {"frames": 2}),
    ("full", {}),
]
LAYOUTS = {
    "rank": {},
    "one head each": {"query_heads": 2, "kv_heads": 2},
    "segments": {"segmented": True, "head_dim": 12},
    "sliding": {"sliding_windows": (7, None)},
    "two-way frames": {"bidirectional_frames": True, "sliding_windows": (5, None)},
}


class Twins:
    """A cache and its reference, fed alike."""

    def __init__(self, layout_name: str, policy: tuple[str, dict], budget: int = 20, chunk: int = 12, every: int = 6):
        self.layout = toy_layout(**LAYOUTS[layout_name])
        rotation = ToyRotation(self.layout)
        sizes = {"budget_tokens": budget, "chunk_tokens": chunk, "evict_every_tokens": every}
        self.cache = StreamCache(self.layout, make_policy(*policy), rotation, **sizes)
        self.reference = ReferenceCache(self.layout, make_policy(*policy), rotation, **sizes)
        self.seed = 0

    def feed(self, tags: TokenTags) -> None:
        self.seed += 1
        mine, theirs = self.cache.begin(tags), self.reference.begin(tags)
        for layer, (q, k, v) in enumerate(toy_inputs(self.layout, len(tags), self.seed)):
            out = mine.attend(layer, q, k, v, 0.3)
            expected = theirs.attend(layer, q, k, v, 0.3)
            torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
        self.cache.commit(mine)
        self.reference.commit(theirs)

    def compare(self) -> None:
        self.cache.check()
        index = self.cache.slots.view().index
        for layer, rows in enumerate(self.reference.kept()):
            for row, expected in enumerate(rows):
                assert index[layer, row].tolist() == expected
        assert self.cache.evictions == self.reference.evictions
        assert self.cache.seen_tokens == self.reference.seen


class CacheMachine(RuleBasedStateMachine):
    @initialize(layout=st.sampled_from(sorted(LAYOUTS)), policy=st.sampled_from(POLICY_OPTIONS))
    def start(self, layout: str, policy: tuple[str, dict]) -> None:
        self.twins = Twins(layout, policy)
        self.tags = TagMaker()
        self.allocated = self.twins.cache.bytes()

    @rule(tokens=st.integers(1, 12))
    def read_text(self, tokens: int) -> None:
        self.twins.feed(self.tags.text(tokens))

    @rule(rows=st.integers(1, 3), columns=st.integers(1, 3))
    def see_frame(self, rows: int, columns: int) -> None:
        self.twins.feed(self.tags.picture(rows, columns))

    @rule(cut=st.integers(1, 5))
    @precondition(lambda self: not self.twins.layout.bidirectional_frames)
    def see_frame_in_two_chunks(self, cut: int) -> None:
        tags = self.tags.picture(2, 2)
        self.twins.feed(tags.slice(0, cut))
        self.twins.feed(tags.slice(cut, len(tags)))

    @rule(tokens=st.integers(1, 12))
    @precondition(lambda self: self.twins.cache.window is None)
    def give_up_a_step(self, tokens: int) -> None:
        tags = TagMaker().text(tokens)
        step = self.twins.cache.begin(tags)
        step.attend(0, *toy_inputs(self.twins.layout, tokens, 999)[0], 0.3)

    @rule()
    @precondition(lambda self: self.twins.cache.seen_tokens < 8)
    def close_opening(self) -> None:
        self.twins.cache.close_opening()
        self.twins.reference.close_opening()

    @invariant()
    def same(self) -> None:
        if hasattr(self, "twins") and self.twins.cache.seen_tokens:
            self.twins.compare()
            cache = self.twins.cache
            if cache.policy.bounded:
                assert cache.bytes() == self.allocated
                assert cache.used_tokens < cache.budget_tokens + cache.evict_every_tokens + cache.chunk_tokens


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("policy", POLICY_OPTIONS, ids=lambda p: f"{p[0]}-{len(p[1])}")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_long_stream_of_text_and_frames(layout: str, policy: tuple[str, dict]) -> None:
    twins, tags = Twins(layout, policy), TagMaker()
    for i in range(12):
        twins.feed(tags.picture(2, 1 + i % 3))
        twins.feed(tags.text(1 + i % 5))
        twins.compare()
    assert twins.cache.evictions > 3 or not twins.cache.policy.bounded


def test_every_policy_is_compared() -> None:
    assert {name for name, _ in POLICY_OPTIONS} == set(POLICIES)
