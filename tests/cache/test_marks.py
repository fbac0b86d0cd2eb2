"""Tokens that leave no trace: after `return_to_mark` a cache is what it was, and goes on as if nothing had come."""

import pytest
import torch
from support.lived_cache import feed, make_cache, stream
from support.toy_stream import TagMaker, toy_layout

from inf_stream.cache.policies import POLICIES


@pytest.mark.parametrize("segmented", [False, True], ids=["rank", "segments"])
@pytest.mark.parametrize("policy", list(POLICIES))
def test_a_marked_cache_returns_bit_for_bit(policy: str, segmented: bool) -> None:
    layout = toy_layout(segmented=segmented, sliding_windows=(None, 6))
    one, other = make_cache(policy, layout), make_cache(policy, layout)
    tags, same_tags = TagMaker(), TagMaker()
    for start in range(0, 24, 4):
        told, expected = stream(one, tags, start, 4), stream(other, same_tags, start, 4)
        assert all(torch.equal(a, b) for a, b in zip(told, expected, strict=True))
        before, evictions = one.state().on_cpu(), one.evictions
        one.set_mark()
        aside = TagMaker()
        aside.segment = tags.segment
        for size in (5, 1, 1):
            feed(one, aside.text(size), 900 + size)
        assert one.evictions == evictions, "nothing is evicted meanwhile"
        one.return_to_mark()
        after = one.state().on_cpu()
        assert after.facts == before.facts
        assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
        one.check()


def test_there_is_always_room_for_a_chunk() -> None:
    cache, tags = make_cache("inf-mllm", toy_layout()), TagMaker()
    for number in range(60):
        feed(cache, tags.text(1 + number % 8), number)
        assert cache.room_tokens >= cache.chunk_tokens


def test_a_step_that_failed_behind_a_mark_is_forgotten_with_it() -> None:
    cache, tags = make_cache("inf-mllm", toy_layout()), TagMaker()
    stream(cache, tags, 0, 5)
    before = cache.state().on_cpu()
    cache.set_mark()
    cache.begin(TagMaker().text(3))
    cache.return_to_mark()
    after = cache.state().on_cpu()
    assert after.facts == before.facts
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())


def test_marks_are_set_one_at_a_time() -> None:
    cache = make_cache("inf-mllm", toy_layout())
    with pytest.raises(AssertionError, match="a mark was set"):
        cache.return_to_mark()
    cache.set_mark()
    with pytest.raises(AssertionError, match="one mark at a time"):
        cache.set_mark()


def test_a_frame_cannot_be_taken_back() -> None:
    cache, tags = make_cache("inf-mllm", toy_layout()), TagMaker()
    stream(cache, tags, 0, 2)
    cache.set_mark()
    feed(cache, tags.picture(1, 2), 7)
    with pytest.raises(AssertionError, match="no frame came meanwhile"):
        cache.return_to_mark()
