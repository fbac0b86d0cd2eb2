"""What an answer rests on, against attention computed anew from all keys, one query at a time."""

from collections import Counter

import pytest
import torch
from support.toy_stream import TagMaker, ToyRotation, toy_inputs, toy_layout

from inf_stream.base.layout import CacheLayout
from inf_stream.base.tokens import TokenTags
from inf_stream.cache.evidence import EvidenceMeter
from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache

SCALING = 0.7


def make_cache(layout: CacheLayout, policy: str = "inf-mllm", budget: int = 400) -> StreamCache:
    made = make_policy(policy, {"window": 4} if policy == "inf-mllm" else {})
    return StreamCache(layout, made, ToyRotation(layout), budget_tokens=budget, chunk_tokens=8, evict_every_tokens=4)


def feed(cache: StreamCache, tags: TokenTags, seed: int, meter: EvidenceMeter | None = None) -> None:
    step = cache.begin(tags, watched=meter is not None)
    for layer, (q, k, v) in enumerate(toy_inputs(cache.layout, len(tags), seed)):
        step.attend(layer, q, k, v, SCALING)
    if meter is not None:
        meter.add(step)
    cache.commit(step)


def by_hand(layout: CacheLayout, pieces: list[tuple[TokenTags, int]], watched_from: int) -> Counter[int]:
    """Attention that frames receive from the watched pieces, nothing evicted: position is the running number."""
    found: Counter[int] = Counter()
    tags = TokenTags.concatenate([tags for tags, _ in pieces])
    starts = torch.tensor([0, *(len(t) for t, _ in pieces)]).cumsum(0).tolist()
    (cos, sin), *_ = ToyRotation(layout)(torch.arange(starts[-1]).view(1, 1, -1))

    def turned(x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin

    inputs = [toy_inputs(layout, len(t), seed) for t, seed in pieces]
    for layer in range(layout.layers):
        if layout.sliding_windows[layer] is not None:
            continue
        queries = turned(torch.cat([one[layer][0] for one in inputs], 1))
        keys = turned(torch.cat([one[layer][1] for one in inputs], 1))
        group = layout.query_heads // layout.kv_heads
        for query in range(starts[watched_from], starts[-1]):
            for head in range(layout.query_heads):
                logits = keys[head // group, : query + 1] @ queries[head, query] * SCALING
                for slot, weight in enumerate(logits.softmax(-1).tolist()):
                    if tags.frame[slot] >= 0:
                        found[int(tags.time_ns[slot])] += weight / layout.query_heads
    return found


@pytest.mark.parametrize("policy", ["inf-mllm", "h2o", "last-frames"])
@pytest.mark.parametrize("windows", [(None, None), (None, 5)], ids=["all layers", "one layer sees the latest"])
def test_evidence_is_what_frames_receive(windows: tuple[int | None, ...], policy: str) -> None:
    layout, tags = toy_layout(sliding_windows=windows), TagMaker()
    pieces = [(tags.picture(2, 2) if number % 2 else tags.text(3), number) for number in range(8)]
    pieces += [(tags.text(size), 50 + size) for size in (5, 1, 1)]
    cache = make_cache(layout, policy)
    for piece, seed in pieces[:8]:
        feed(cache, piece, seed)
    meter = EvidenceMeter(cache)
    for piece, seed in pieces[8:]:
        feed(cache, piece, seed, meter)
    expected = by_hand(layout, pieces, 8)
    found = meter.most(99)
    assert [e.at_ns for e in found] == [at for at, _ in expected.most_common()]
    assert sum(e.share for e in found) == pytest.approx(1)
    for one in found:
        assert one.share == pytest.approx(expected[one.at_ns] / expected.total(), rel=1e-4)
    assert [e.at_ns for e in meter.most(2)] == [e.at_ns for e in found[:2]]


def test_evictions_in_an_answer_lose_nothing_of_the_count() -> None:
    layout, tags = toy_layout(), TagMaker()
    cache = make_cache(layout, budget=24)
    for number in range(6):
        feed(cache, tags.picture(2, 2), number)
    meter, rounds, received = EvidenceMeter(cache), 20, 0.0
    before = cache.evictions
    for number in range(rounds):
        used, frames = cache.used_tokens, cache.slots.planes["frame"]
        step = cache.begin(tags.text(2), watched=True)
        for layer, (q, k, v) in enumerate(toy_inputs(layout, 2, 100 + number)):
            step.attend(layer, q, k, v, SCALING)
            received += float(step.received[layer][:, :used][frames[layer, :, :used] >= 0].sum())
        meter.add(step)
        cache.commit(step)
    assert cache.evictions > before
    meter.most()
    assert meter._by_time.total() == pytest.approx(received, rel=1e-4)


def test_a_stream_without_frames_has_no_evidence() -> None:
    cache, tags = make_cache(toy_layout()), TagMaker()
    feed(cache, tags.text(5), 0)
    meter = EvidenceMeter(cache)
    feed(cache, tags.text(3), 1, meter)
    assert meter.most() == ()
