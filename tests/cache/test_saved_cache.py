"""A cache that was restored goes on as if it had never stopped, bit for bit; one that does not fit is refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.lived_cache import make_cache, stream
from support.toy_stream import TagMaker, toy_inputs, toy_layout
from torch import Tensor

from inf_stream.base.errors import StateError
from inf_stream.base.state import State
from inf_stream.cache.policies import POLICIES


@pytest.mark.parametrize("segmented", [False, True], ids=["rank", "segments"])
@pytest.mark.parametrize("pieces", [1, 2, 17, 40])
@pytest.mark.parametrize("policy", list(POLICIES))
def test_a_restored_cache_goes_on_bit_for_bit(policy: str, pieces: int, segmented: bool) -> None:
    layout = toy_layout(segmented=segmented, sliding_windows=(None, 6))
    one, tags = make_cache(policy, layout), TagMaker()
    stream(one, tags, 0, pieces)
    saved = one.state().on_cpu()
    told = stream(one, tags, pieces, 12)

    again, same_tags = make_cache(policy, layout), TagMaker()
    stream(make_cache(policy, layout), same_tags, 0, pieces)
    again.restore(saved)
    again.check()
    assert all(torch.equal(a, b) for a, b in zip(told, stream(again, same_tags, pieces, 12), strict=True))
    assert torch.equal(one.slots.view().index, again.slots.view().index)
    assert torch.equal(one.kept_times_ns(), again.kept_times_ns())
    for name in ("newest_frames", "opening_tokens", "tokens_seen"):
        assert getattr(one.slots.view(), name) == getattr(again.slots.view(), name)
    assert one.evictions == again.evictions


def saved_state(policy: str = "h2o") -> State:
    cache = make_cache(policy, toy_layout())
    stream(cache, TagMaker(), 0, 9)
    return cache.state().on_cpu()


def set_fact(*path: str, to: Any) -> Callable[[State], None]:
    def change(state: State) -> None:
        facts = state.facts
        for name in path[:-1]:
            facts = facts[name]
        facts[path[-1]] = to

    return change


def set_tensor(name: str, to: Callable[[Tensor], Tensor]) -> Callable[[State], None]:
    def change(state: State) -> None:
        state.tensors[name] = to(state.tensors[name])

    return change


@pytest.mark.parametrize(
    ("policy", "change", "message"),
    [
        ("h2o", set_fact("evictions", to=-1), "has -1 as 'evictions'"),
        ("h2o", set_fact("evictions", to=True), "has no int called 'evictions'"),
        ("h2o", set_fact("slots", to=None), "has no dict called 'slots'"),
        ("h2o", set_fact("slots", "used", to=10_000), "holds 10000 tokens; the cache has"),
        ("h2o", set_fact("slots", "newest_frames", to=[[1]]), "something else than pairs of numbers"),
        ("h2o", lambda s: s.tensors.pop("slots.index"), "has none as 'index'"),
        ("h2o", set_tensor("slots.offsets", lambda t: t.int()), "torch.int32 as 'offsets'"),
        ("h2o", set_tensor("slots.index", lambda t: t.flip(-1)), "cannot be: token indices must rise"),
        ("h2o", set_tensor("raw_keys", lambda t: t[:1]), "as 'raw_keys'"),
        ("h2o", set_tensor("values", lambda t: t.float()), "torch.float32 as 'values'"),
        ("h2o", set_tensor("accumulated", lambda t: t[..., 1:]), "as 'accumulated'"),
        ("h2o", set_tensor("cursor.next", lambda t: t[1:]), "as 'next'"),
        ("inf-mllm", set_tensor("window.ring", lambda t: t[:, :, 1:]), "as 'ring'"),
        ("inf-mllm", set_fact("window", "valid", to=99), "retrieval window that does not fit"),
        ("inf-mllm", set_fact("window", "scaling", to=[1.0]), "retrieval window that does not fit"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(policy: str, change: Callable[[State], None], message: str) -> None:
    state = saved_state(policy)
    change(state)
    with pytest.raises(StateError, match=re.escape(message)):
        make_cache(policy, toy_layout()).restore(state)


def test_an_unbounded_cache_grows_to_hold_what_was_saved() -> None:
    layout = toy_layout()
    one, tags = make_cache("full", layout), TagMaker()
    stream(one, tags, 0, 60)
    again = make_cache("full", layout)
    assert one.used_tokens > again.capacity_tokens
    again.restore(one.state().on_cpu())
    again.check()
    assert again.used_tokens == one.used_tokens


def test_an_open_step_is_not_saved() -> None:
    layout = toy_layout()
    cache, tags = make_cache("inf-mllm", layout), TagMaker()
    stream(cache, tags, 0, 5)
    before = cache.state().on_cpu()
    step = cache.begin(tags.text(3))
    step.attend(0, *toy_inputs(layout, 3, 5)[0], 0.3)
    after = cache.state().on_cpu()
    assert {k for k in before.tensors if not torch.equal(before.tensors[k], after.tensors[k])} <= {"window.ring"}
    assert before.facts == after.facts
