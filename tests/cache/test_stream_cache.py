"""The cache alone: sizes, the period of evictions, complete frames, failed steps, drift."""

import pytest
import torch
from support.toy_stream import TagMaker, ToyRotation, toy_inputs, toy_layout

from inf_stream.base.errors import BudgetError, ConfigError
from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import rotate
from inf_stream.base.tokens import TokenTags
from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache


def make_cache(
    policy: str = "inf-mllm",
    options: dict | None = None,
    *,
    layout: CacheLayout | None = None,
    budget: int = 16,
    chunk: int = 8,
    every: int = 4,
) -> StreamCache:
    layout = layout or toy_layout()
    defaults = {"window": 4} if policy == "inf-mllm" else {}
    return StreamCache(
        layout,
        make_policy(policy, {**defaults, **(options or {})}),
        ToyRotation(layout),
        budget_tokens=budget,
        chunk_tokens=chunk,
        evict_every_tokens=every,
    )


def feed(cache: StreamCache, tags: TokenTags, seed: int = 0) -> None:
    step = cache.begin(tags)
    for layer, (q, k, v) in enumerate(toy_inputs(cache.layout, len(tags), seed)):
        step.attend(layer, q, k, v, 0.3)
    cache.commit(step)


def test_no_eviction_falls_inside_the_retrieval_window() -> None:
    with pytest.raises(ConfigError, match=r"evict_every_tokens is 3.*window of 'inf-mllm' is 4"):
        make_cache(every=3)


@pytest.mark.parametrize(("policy", "least"), [("inf-mllm", 5), ("streaming-llm", 5)])
def test_a_budget_below_the_sinks_is_refused(policy: str, least: int) -> None:
    with pytest.raises(BudgetError, match=f"budget of 4 tokens.*needs {least}"):
        make_cache(policy, budget=4)


def test_evictions_keep_their_period_token_by_token() -> None:
    cache, tags = make_cache(every=4), TagMaker()
    used = []
    for i in range(60):
        feed(cache, tags.text(1), i)
        used.append(cache.used_tokens)
    assert max(used) == cache.budget_tokens + cache.evict_every_tokens - 1
    assert cache.evictions == (60 - cache.budget_tokens) // 4


def test_the_newest_frame_is_complete_even_when_read_in_pieces() -> None:
    cache, tags = make_cache(options={"recent_share": 0.1}, chunk=5), TagMaker()
    for i in range(20):
        picture = tags.picture(3, 3)
        for start in range(0, len(picture), 5):
            feed(cache, picture.slice(start, min(start + 5, len(picture))), i)
            frames = cache.slots.view().frame
            so_far = min(start + 5, len(picture))
            assert bool(((frames == i).sum(-1) == so_far).all())


def test_frames_beyond_the_budget_give_way_oldest_first() -> None:
    cache, tags = make_cache(options={"recent_frames": 3, "recent_share": 0.0}, chunk=12), TagMaker()
    for i in range(8):
        feed(cache, tags.picture(2, 2), i)
    frames = cache.slots.view().frame
    for complete in (7, 6):
        assert bool(((frames == complete).sum(-1) == 6).all())


def test_an_abandoned_step_counts_for_nothing() -> None:
    cache, tags = make_cache("h2o"), TagMaker()
    feed(cache, tags.text(8))
    before = cache.slots.view().index.clone(), cache.seen_tokens
    step = cache.begin(TagMaker().text(3))
    step.attend(0, *toy_inputs(cache.layout, 3, 5)[0], 0.3)
    other = cache.begin(tags.text(2))
    with pytest.raises(AssertionError, match="only the latest step"):
        cache.commit(step)
    assert (before[0] == cache.slots.view().index).all()
    assert cache.seen_tokens == before[1]
    for layer, (q, k, v) in enumerate(toy_inputs(cache.layout, 2, 9)):
        other.attend(layer, q, k, v, 0.3)
    cache.commit(other)
    cache.check()


def test_an_abandoned_step_shortens_the_window() -> None:
    cache, tags = make_cache(), TagMaker()
    feed(cache, tags.text(8))
    assert cache.window is not None
    assert cache.window.valid == 4
    cache.begin(TagMaker().text(3))
    feed(cache, tags.text(2))
    assert cache.window.valid == 2


def test_full_grows_and_keeps_everything() -> None:
    cache, tags = make_cache("full"), TagMaker()
    for i in range(30):
        feed(cache, tags.text(7), i)
    cache.check()
    assert cache.used_tokens == 210
    assert cache.slots.view().index[0, 0].tolist() == list(range(210))


def test_a_plan_changes_nothing_and_can_be_printed() -> None:
    cache, tags = make_cache(), TagMaker()
    feed(cache, tags.text(8))
    feed(cache, tags.text(6))
    feed(cache, tags.text(3))
    before = cache.slots.view().index.clone()
    assert "kept" in str({"kept": cache.plan().tolist()})
    assert torch.equal(cache.slots.view().index, before)


def test_kept_times_are_those_of_the_kept_tokens() -> None:
    cache, tags = make_cache("sliding-window"), TagMaker()
    for i in range(10):
        feed(cache, tags.text(4), i)
    times = cache.kept_times_ns()
    assert times.shape == (2, 1, cache.used_tokens)
    assert times[0, 0].tolist() == sorted([t for t in range(1, 11) for _ in range(4)])[-cache.used_tokens :]


@pytest.mark.parametrize("segmented", [False, True])
def test_keys_in_bfloat16_do_not_drift(segmented: bool) -> None:
    """A thousand evictions later a stored key is one rotation away from its raw form, as on the first day."""
    layout = toy_layout(segmented=segmented, head_dim=12, dtype=torch.bfloat16)
    cache, tags = make_cache("inf-mllm", {"sinks": 8}, layout=layout), TagMaker()
    for i in range(1000):
        feed(cache, tags.text(5), i)
    assert cache.evictions > 900
    cache.check()
    assert cache.slots.view().index[0, 0, :8].tolist() == list(range(8))


def test_rotation_leaves_the_rest_of_a_head_alone() -> None:
    x = torch.randn(3, 5, 8)
    cos, sin = torch.rand(1, 5, 4), torch.rand(1, 5, 4)
    turned = rotate(x, (cos, sin))
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert not torch.equal(turned[..., :4], x[..., :4])


def test_stale_keys_are_noticed() -> None:
    cache, tags = make_cache(), TagMaker()
    feed(cache, tags.text(8))
    cache.planes.rotated_keys[1, 0, 3] += 1
    with pytest.raises(AssertionError, match="layer 1 went stale"):
        cache.check()


def test_an_empty_cache_is_in_order() -> None:
    cache = make_cache()
    cache.check()
    assert (cache.used_tokens, cache.seen_tokens) == (0, 0)
