"""What was recalled stays until the next question, if that is wished: attended to, moved about, left out and saved."""

from typing import Any

import pytest
import torch
from support.lived_cache import feed
from support.toy_stream import TagMaker, toy_layout
from test_recall import LAYOUTS, assert_same, lived, snapshot
from torch import Tensor

from inf_stream.base.errors import StateError
from inf_stream.base.state import State
from inf_stream.cache.archive import Recall
from inf_stream.cache.stream_cache import StreamCache

POLICIES = ["inf-mllm", "h2o", "streaming-llm"]


def answered(policy: str, layout: dict, *, keep: bool, close: bool = True) -> tuple[StreamCache, TagMaker]:
    """A cache after a stream and a question."""
    cache, tags = lived(policy, toy_layout(**layout), keep_recalled=keep)
    cache.open_recall()
    feed(cache, tags.text(4), 900)
    cache.end_choice()
    feed(cache, tags.text(1), 901)
    if close:
        cache.close_recall(may_stay=True)
    return cache, tags


def goes_on(cache: StreamCache, tags: TagMaker, first: int, count: int = 12) -> list[Tensor]:
    out: list[Tensor] = []
    for number in range(first, first + count):
        out += feed(cache, tags.picture(2, 3) if number % 3 == 1 else tags.text(1 + number % 4), number)
    return out


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_it_takes_part_in_what_follows_as_in_the_answer(policy: str, layout: dict) -> None:
    kept, tags = answered(policy, layout, keep=True)
    twin, twin_tags = answered(policy, layout, keep=True, close=False)
    gone, gone_tags = answered(policy, layout, keep=False)
    assert isinstance(twin.recall, Recall)
    assert kept.recall is not None
    assert gone.recall is None
    evictions = kept.evictions
    told = goes_on(kept, tags, 1000)
    assert kept.evictions > evictions + 1
    assert equal(told, goes_on(twin, twin_tags, 1000)), "as if the answer were still open"
    assert not equal(told, goes_on(gone, gone_tags, 1000)), "what stays is seen"
    kept.check()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_next_question_calls_back_others(policy: str, layout: dict) -> None:
    cache, tags = answered(policy, layout, keep=True)
    goes_on(cache, tags, 1000)
    before = cache.recall
    cache.open_recall()
    assert isinstance(cache.recall, Recall)
    assert cache.recall is not before
    assert cache.recall.start == cache.used_tokens
    feed(cache, tags.text(4), 950)
    cache.end_choice()
    cache.close_recall(may_stay=True)
    assert cache.recall is not None
    cache.close_recall()
    assert cache.recall is None
    cache.check()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_an_aside_does_not_see_it_and_leaves_it_bit_for_bit(policy: str, layout: dict) -> None:
    cache, tags = answered(policy, layout, keep=True)
    plain, plain_tags = answered(policy, layout, keep=True)
    for first in (1000, 1100):
        assert equal(goes_on(cache, tags, first, 5), goes_on(plain, plain_tags, first, 5))
        before = snapshot(cache)
        cache.set_mark()
        assert cache.recall is None
        cache.open_recall()
        aside = TagMaker()
        aside.segment = tags.segment
        feed(cache, aside.text(4), 900)
        cache.end_choice(learn=False)
        cache.close_recall()
        cache.return_to_mark()
        assert_same(cache, before)
    assert equal(goes_on(cache, tags, 1200), goes_on(plain, plain_tags, 1200))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_it_is_saved_with_the_session(policy: str, layout: dict) -> None:
    cache, tags = answered(policy, layout, keep=True)
    goes_on(cache, tags, 1000, 5)
    other, _ = lived(policy, toy_layout(**layout), pieces=0, keep_recalled=True)
    other.restore(cache.state().copy())
    assert other.recall is not None
    assert_same(other, snapshot(cache))
    other_tags = TagMaker()
    other_tags.__dict__.update(tags.__dict__)
    assert equal(goes_on(cache, tags, 1100), goes_on(other, other_tags, 1100))
    cache.close_recall()
    other.close_recall()
    assert_same(other, snapshot(cache))


@pytest.mark.parametrize("nonsense", [{"start": 10_000}, {"tokens": 0}, {"tokens": 10_000}, {"start": -1}])
def test_nonsense_is_refused(nonsense: dict[str, Any]) -> None:
    cache, _ = answered("inf-mllm", {}, keep=True)
    state = cache.state().copy()
    facts = state.facts | {"recalled": state.facts["recalled"] | nonsense}
    other, _ = lived("inf-mllm", toy_layout(), pieces=0, keep_recalled=True)
    with pytest.raises(StateError, match="cannot be used"):
        other.restore(State(state.tensors, facts))
