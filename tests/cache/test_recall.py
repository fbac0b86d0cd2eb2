"""Recalled blocks take part in an answer as attention written out says, and leave the cache as it was."""

from typing import Any

import pytest
import torch
from support.lived_cache import feed
from support.reference_cache import _rotate
from support.toy_stream import TagMaker, ToyRotation, toy_inputs, toy_layout
from test_archive import archived, live
from torch import Tensor

from inf_stream.base.layout import CacheLayout
from inf_stream.base.tokens import TokenTags
from inf_stream.cache.archive import Archive, ArchiveSizes
from inf_stream.cache.evidence import EvidenceMeter
from inf_stream.cache.policies import make_policy
from inf_stream.cache.positions import segment_positions
from inf_stream.cache.sizes import CacheSizes, footprint
from inf_stream.cache.step import CacheStep
from inf_stream.cache.stream_cache import StreamCache

SCALING = 0.3
LAYOUTS = {
    "rank": {},
    "segments": {"segmented": True},
    "sliding": {"sliding_windows": (6, None)},
    "one head": {"query_heads": 2, "kv_heads": 1},
}


def lived(policy: str, layout: CacheLayout, pieces: int = 40, **sizes: Any) -> tuple[StreamCache, TagMaker]:
    cache, tags = archived(policy, layout, **sizes), TagMaker()
    live(cache, tags, 0, pieces)
    return cache, tags


def ask(cache: StreamCache, tags: TokenTags, seed: int, *, watched: bool = False) -> tuple[CacheStep, list[Tensor]]:
    """One step that is not committed yet."""
    step, out = cache.begin(tags, watched=watched), []
    for layer, (q, k, v) in enumerate(toy_inputs(cache.layout, len(tags), seed)):
        out.append(step.attend(layer, q, k, v, SCALING))
    return step, out


def by_hand(cache: StreamCache, tags: TokenTags, seed: int, layer: int) -> Tensor:
    """Attention of one layer over the recalled, the live and the new tokens, each at the position it should have."""
    layout, recall, archive = cache.layout, cache.recall, cache.archive
    assert recall is not None
    assert archive is not None
    reserved, used, new = CacheSizes(1, 1, 1, archive.sizes.recall_tokens).recall_slots, cache.slots.used, len(tags)
    q, k, v = toy_inputs(layout, new, seed)[layer]
    live_keys, live_values = cache.planes.raw_keys[layer, :, :used], cache.planes.values[layer, :, :used]
    sees_all = layout.sliding_windows[layer] is None
    past_keys = past_values = torch.zeros(layout.kv_heads, 0, layout.head_dim, dtype=layout.dtype)
    past_ranks = torch.zeros(3, 0, dtype=torch.int64)
    if sees_all:
        chosen = recall.chosen(layer)
        filled = archive.filled(chosen)
        past_keys, past_values = (x[:, filled] for x in archive.read(layer, chosen))
        past_ranks = (reserved - len(filled) + torch.arange(len(filled)))[filled].expand(3, -1)
        if layout.segmented:
            told = archive.segments(chosen)
            past_ranks = segment_positions(told[:1], told[1:, None])[:, 0]
            past_ranks = (past_ranks + reserved - 1 - past_ranks.max())[:, filled]
    out = []
    for head in range(layout.query_heads):
        own = head // (layout.query_heads // layout.kv_heads)
        ranks = torch.cat((past_ranks, live_ranks(cache, tags, layer, own if cache.rows > 1 else 0) + reserved), dim=1)
        cos, sin = (x[0] for x in ToyRotation(layout)(ranks[: layout.axes, None])[0])
        keys = _rotate(torch.cat((past_keys[own], live_keys[own], k[own])), cos, sin)
        values = torch.cat((past_values[own], live_values[own], v[own]))
        window = layout.sliding_windows[layer]
        age = torch.arange(len(keys) - new, len(keys))[:, None] - torch.arange(len(keys))[None]
        seen = (age >= 0) & (age < (window or len(keys) + 1))
        asked = _rotate(q[head], cos[-new:], sin[-new:])
        weights = (asked @ keys.T * SCALING).masked_fill(~seen, -torch.inf).softmax(-1)
        out.append(weights @ values)
    return torch.stack(out)


def live_ranks(cache: StreamCache, tags: TokenTags, layer: int, row: int) -> Tensor:
    """Positions of a row's live and new tokens, those in front left out, ``[3, tokens]``."""
    used = cache.slots.used
    if not cache.layout.segmented:
        return torch.arange(used + len(tags)).expand(3, -1)
    segment = torch.cat((cache.slots.planes["segment"][layer, row, :used], tags.segment))
    offsets = torch.cat((cache.slots.offsets[:, layer, row, :used], tags.offsets), dim=1)
    return segment_positions(segment[None], offsets[:, None])[:, 0]


def by_hand_now(cache: StreamCache, tags: TokenTags, seed: int) -> list[Tensor]:
    """`by_hand` of all layers, while what was said since lies behind the recalled tokens."""
    assert cache.recall is not None
    planes = {name: plane.clone() for name, plane in cache._kept_planes().items()}
    cache.recall.let_go(cache.planes, cache.slots.used)
    found = [by_hand(cache, tags, seed, layer) for layer in range(cache.layout.layers)]
    for name, plane in cache._kept_planes().items():
        plane.copy_(planes[name])
    return found


def snapshot(cache: StreamCache) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in cache.state().tensors.items() if "usual" not in name}


def assert_same(cache: StreamCache, before: dict[str, Tensor]) -> None:
    after = cache.state().tensors
    assert before.keys() == {name for name in after if "usual" not in name}
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("policy", ["inf-mllm", "streaming-llm", "h2o"])
def test_recalled_tokens_are_attended_to_in_time_order_before_all_others(policy: str, layout: dict) -> None:
    cache, tags = lived(policy, toy_layout(**layout))
    cache.open_recall()
    question = tags.text(5)
    step, told = ask(cache, question, 900)
    expected = [by_hand(cache, question, 900, layer) for layer in range(cache.layout.layers)]
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(told, expected, strict=True))
    cache.commit(step)
    cache.end_choice()
    assert cache.recall is not None
    assert cache.recall.tokens == 24
    chosen = {layer: cache.recall.chosen(layer).clone() for layer in range(2) if layout != LAYOUTS["sliding"] or layer}
    for number in range(3):
        token = tags.text(1)
        expected = by_hand_now(cache, token, 901 + number)
        step, told = ask(cache, token, 901 + number)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(told, expected, strict=True))
        cache.commit(step)
    assert all(torch.equal(cache.recall.chosen(layer), before) for layer, before in chosen.items())
    cache.close_recall()
    cache.check()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("policy", ["inf-mllm", "h2o", "last-frames"])
def test_an_aside_with_recall_leaves_the_cache_bit_for_bit(policy: str, layout: dict) -> None:
    cache, tags = lived(policy, toy_layout(**layout))
    for start in range(40, 60, 4):
        before = snapshot(cache)
        cache.set_mark()
        cache.open_recall()
        aside = TagMaker()
        aside.segment = tags.segment
        feed(cache, aside.text(4), 900)
        cache.end_choice(learn=False)
        feed(cache, aside.text(1), 901)
        assert cache.recall is not None
        cache.close_recall()
        cache.return_to_mark()
        assert_same(cache, before)
        live(cache, tags, start, 4)
    cache.check()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("policy", ["inf-mllm", "h2o", "streaming-llm"])
def test_what_is_said_with_recall_stays_in_its_place(policy: str, layout: dict) -> None:
    """Keys are stored the same whether blocks were recalled or not: only what they were computed from differs."""
    one, tags = lived(policy, toy_layout(**layout))
    other, same_tags = lived(policy, toy_layout(**layout))
    for cache, own in ((one, tags), (other, same_tags)):
        if cache is one:
            cache.open_recall()
        feed(cache, own.text(4), 900)
        cache.end_choice(learn=False)
        feed(cache, own.text(1), 901)
        if policy != "h2o":
            cache.close_recall()
    if policy == "h2o":  # what it accumulates is what recalled tokens leave over
        one.close_recall()
        assert not torch.equal(one._accumulated, other._accumulated)
        one._accumulated, other._accumulated = None, None
    assert_same(one, snapshot(other))
    one.check()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("policy", ["inf-mllm", "h2o", "tova"])
def test_an_eviction_in_the_middle_of_an_answer_moves_what_is_recalled(policy: str, layout: dict) -> None:
    cache, tags = lived(policy, toy_layout(**layout))
    cache.open_recall()
    feed(cache, tags.text(4), 900)
    cache.end_choice()
    evictions = cache.evictions
    for number in range(40):
        feed(cache, tags.text(1), 901 + number)
    assert cache.evictions > evictions + 2
    token = tags.text(1)
    assert cache.recall is not None
    expected = by_hand_now(cache, token, 999)
    _, told = ask(cache, token, 999)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(told, expected, strict=True))
    cache.close_recall()
    cache.check()


@pytest.mark.parametrize("segmented", [False, True], ids=["rank", "segments"])
def test_room_for_more_than_there_is_changes_nothing(segmented: bool) -> None:
    """Recalled tokens stand right before the live ones, however many positions are left free for them."""
    outs = []
    for recall_tokens in (64, 640):
        cache, tags = lived("inf-mllm", toy_layout(segmented=segmented), pieces=9, recall_tokens=recall_tokens)
        cache.open_recall()
        assert cache.recall is not None
        outs.append(ask(cache, tags.text(4), 900)[1])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*outs, strict=True))


def test_blocks_whose_places_are_taken_while_a_question_is_read_are_hidden() -> None:
    layout = toy_layout()
    small = 8 * Archive(layout, ArchiveSizes(1 << 20))._block_bytes(8)
    cache, tags = lived("streaming-llm", layout, host_bytes=small)
    cache.open_recall()
    recall = cache.recall
    assert recall is not None
    before = {number for ballot in recall.ballots for number in ballot._numbers.tolist()}
    for number in range(24):
        feed(cache, tags.text(8), 900 + number)
        assert cache.archive is not None
        numbers = cache.archive.numbers(recall.chosen(0))
        hidden = recall.hidden(0)
        seen = torch.ones(recall.tokens, dtype=torch.bool) if hidden is None else ~hidden
        shown = {int(n) for n, s in zip(numbers, seen.view(recall.blocks, -1).any(1), strict=True) if s}
        if cache._since_eviction:  # no block came since the layers chose
            assert shown <= before
    assert shown == set(), "all of them are gone"


def test_all_parts_of_a_long_question_are_heard() -> None:
    cache, tags = lived("inf-mllm", toy_layout())
    assert cache.archive is not None
    inputs = [toy_inputs(cache.layout, 5, seed) for seed in (900, 901)]
    cache.open_recall()
    for seed in (900, 901):
        feed(cache, tags.text(5), seed)
    for layer in range(2):
        mean = torch.cat([part[layer][0] for part in inputs], dim=1).float().mean(1)
        assert torch.allclose(cache.archive.usual.particular(layer), mean, atol=1e-6)


def test_with_nothing_archived_nothing_is_recalled() -> None:
    cache = archived("inf-mllm", toy_layout())
    cache.open_recall()
    assert cache.recall is None
    feed(cache, TagMaker().text(4), 1)
    cache.end_choice()
    cache.close_recall()
    cache.check()


def test_a_time_that_nothing_is_of_recalls_nothing() -> None:
    cache, _ = lived("inf-mllm", toy_layout())
    cache.open_recall((10**17, 10**18))
    assert cache.recall is None
    cache.open_recall((0, 3))
    assert cache.recall is not None
    assert 0 < cache.recall.tokens <= 24


def test_the_lower_third_of_the_layers_votes_and_the_others_follow() -> None:
    cache, tags = lived("inf-mllm", toy_layout(layers=7, sliding_windows=(None, 6, None, None, None, None, None)))
    differed = False
    for seed in range(900, 910):
        cache.set_mark()
        cache.open_recall()
        aside = TagMaker()
        aside.segment = tags.segment
        feed(cache, aside.text(4), seed)
        assert cache.recall is not None
        first, second, *rest = (cache.recall.chosen(layer).tolist() for layer in (0, 2, 3, 4, 5, 6))
        differed |= first != second
        assert all(one == second for one in rest)
        cache.close_recall()
        cache.return_to_mark()
    assert differed


def test_a_model_that_sees_only_the_latest_recalls_nothing() -> None:
    cache, tags = lived("inf-mllm", toy_layout(sliding_windows=(6, 6)))
    cache.open_recall()
    assert cache.recall is None
    feed(cache, tags.text(4), 900)
    cache.end_choice()
    cache.check()


def needle_cache(form: float) -> tuple[StreamCache, int, Tensor]:
    """A stream of keys of which one block answers to a direction that questions ask for beside their common form."""
    layout = toy_layout(layers=1, query_heads=2, kv_heads=1, head_dim=8)
    cache = archived("streaming-llm", layout, recall_tokens=32)
    random = torch.Generator().manual_seed(3)
    common, wanted = torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    common[0], wanted[1] = form, 1.0
    tags = TagMaker()
    for number in range(40):
        piece = tags.picture(2, 3)
        keys = torch.randn(1, 8, 8, generator=random, dtype=torch.float64) * 0.1
        keys[..., 0] += float(torch.rand(1, generator=random, dtype=torch.float64))  # some answer to any question
        if number == 11:
            keys = keys + wanted
        step = cache.begin(piece)
        step.attend(0, keys.expand(2, -1, -1), keys, keys, SCALING)
        cache.commit(step)
    for _ in range(4):
        question(cache, common.expand(2, 3, 8).clone(), tags)
    return cache, 11, (common + 0.3 * wanted).expand(2, 3, 8).clone()


def question(cache: StreamCache, queries: Tensor, tags: TagMaker) -> list[int]:
    """Frames that are recalled for these queries."""
    cache.set_mark()
    cache.open_recall()
    aside = TagMaker()
    aside.segment = tags.segment
    step = cache.begin(aside.text(3))
    zeros = torch.zeros(1, 3, 8, dtype=torch.float64)
    step.attend(0, queries, zeros, zeros, SCALING)
    cache.commit(step)
    cache.end_choice()
    assert cache.recall is not None
    assert cache.archive is not None
    frames = cache.archive.frames()[cache.recall.chosen(0)].tolist()
    cache.close_recall()
    cache.return_to_mark()
    return frames


def test_the_choice_rests_on_what_is_particular_to_a_question() -> None:
    cache, needle, asked = needle_cache(form=5.0)
    assert needle in question(cache, asked, TagMaker())
    assert cache.archive is not None
    cache.archive.usual._mean.zero_()  # the question as it is finds what answers to any question
    assert needle not in question(cache, asked, TagMaker())


@pytest.mark.parametrize("policy", ["inf-mllm", "h2o"])
def test_recalled_frames_count_as_evidence(policy: str) -> None:
    cache, tags = lived(policy, toy_layout(query_heads=2, kv_heads=2))
    meter = EvidenceMeter(cache)
    cache.open_recall()
    step, _ = ask(cache, tags.text(4), 900, watched=True)
    meter.add(step)
    recall, archive = cache.recall, cache.archive
    assert recall is not None
    assert archive is not None
    expected: dict[int, float] = {}
    for layer in range(2):
        q, _, _ = toy_inputs(cache.layout, 4, 900)[layer]
        start, stop = recall.start, recall.start + recall.tokens
        for head in range(2):
            cos, sin = cache.positions.of_new(step.tags, cache.slots.used)[0](layer)
            asked = _rotate(q[head], cos[0], sin[0])
            keys = cache.planes.rotated_keys[layer, head, : stop + 4]
            logits = asked @ keys.T * SCALING
            logits[:, stop:] = logits[:, stop:].masked_fill(torch.ones(4, 4, dtype=torch.bool).triu(1), -torch.inf)
            filled = archive.filled(recall.chosen(layer))
            logits[:, start:stop] = logits[:, start:stop].masked_fill(~filled, -torch.inf)
            weights = logits.softmax(-1)[:, start:stop].sum(0).view(-1, archive.block_tokens).sum(-1)
            weights = weights * cache.rows / 2  # rows of a layer that is scored as a whole are averaged
            for place, weight in zip(recall.chosen(layer).tolist(), weights.tolist(), strict=True):
                if archive.frames()[place] >= 0:
                    at = int(archive.times_ns()[place])
                    expected[at] = expected.get(at, 0.0) + weight
    told = recall.weights()
    assert told.keys() == expected.keys()
    assert all(told[at] == pytest.approx(weight, rel=1e-4) for at, weight in expected.items())
    assert {e.at_ns for e in meter.most(99)} >= set(expected)


@pytest.mark.parametrize("segmented", [False, True])
def test_bytes_with_recall_are_foretold(segmented: bool) -> None:
    layout = toy_layout(segmented=segmented)
    cache = archived("inf-mllm", layout)
    memory = footprint(layout, make_policy("inf-mllm", {"window": 4}), ToyRotation(layout))
    assert memory.total_bytes(CacheSizes(20, 8, 4, 24)) == cache.bytes()
