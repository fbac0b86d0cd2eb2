"""Policies as pure functions: each against its rule written out, and the errors of making one."""

import pytest
import torch

from inf_stream.base.errors import ConfigError
from inf_stream.cache.policies import POLICIES, Evidence, make_policy
from inf_stream.cache.policies.base import keep_best, newest_frames_first_index
from inf_stream.cache.slots import SlotView


def view(index: list[int], *, frames: tuple[tuple[int, int], ...] = (), opening: int = 0, layers: int = 1) -> SlotView:
    plane = torch.tensor(index).expand(layers, 1, -1)
    return SlotView(plane, torch.full_like(plane, -1), index[-1] + 1, frames, opening)


def evidence(received: list[list[float]], window: int = 2) -> Evidence:
    table = torch.tensor(received, dtype=torch.float32)[:, None]
    visible = torch.full((table.shape[-1],), window)
    visible[-window:] = torch.arange(window, 0, -1)
    return Evidence(table, visible)


def test_inf_mllm_keeps_sinks_relevant_and_recent() -> None:
    policy = make_policy("inf-mllm", {"window": 2, "sinks": 1, "recent_share": 0.4, "bias_slope": 0.0})
    received = [[0, 5, 1, 9, 2, 2, 2, 2], [0, 1, 9, 1, 8, 2, 2, 2]]
    kept = policy.plan(view(list(range(8)), layers=2), evidence(received), 5)
    assert kept[0, 0].tolist() == [0, 1, 3, 6, 7]
    assert kept[1, 0].tolist() == [0, 2, 4, 6, 7]


def test_inf_mllm_normalises_by_the_queries_that_see_a_token() -> None:
    policy = make_policy(
        "inf-mllm", {"window": 2, "sinks": 0, "recent_share": 0.0, "bias_slope": 0.0, "recent_frames": 0}
    )
    # The newest is seen by one query only: 2.0 / 1 beats 3.0 / 2.
    kept = policy.plan(view([0, 1, 2, 3]), evidence([[3.0, 9.0, 1.0, 2.0]]), 2)
    assert kept[0, 0].tolist() == [1, 3]


def test_the_bias_prefers_the_younger_of_equals_and_more_with_its_slope() -> None:
    received = [[6.0, 4.0, 4.0, 4.0, 4.0, 4.0]]
    options = {"window": 1, "sinks": 0, "recent_share": 0.0}
    freezing = make_policy("inf-mllm", {**options, "bias_slope": 0.0}).plan(
        view(list(range(6))), evidence(received, 1), 3
    )
    moving = make_policy("inf-mllm", {**options, "bias_slope": 1.0}).plan(
        view(list(range(6))), evidence(received, 1), 3
    )
    assert freezing[0, 0].tolist() == [0, 4, 5]
    assert moving[0, 0].tolist() == [3, 4, 5]


def test_bias_is_linear_in_age_rank_and_scaled_by_the_mean() -> None:
    policy = make_policy("inf-mllm", {"window": 1, "bias_slope": 2.0})
    scores = policy.biased_scores(view([0, 1, 2, 3]), evidence([[1.0, 3.0, 2.0, 2.0]], 1))[0, 0]
    torch.testing.assert_close(scores, torch.tensor([1 - 4 * 3 / 4, 3 - 4 * 2 / 4, 2 - 4 * 1 / 4, 2.0]))


def test_pooling_and_value_weights() -> None:
    pooled = make_policy("inf-mllm", {"window": 1, "bias_slope": 0.0, "pooled_tokens": 3})
    torch.testing.assert_close(
        pooled.scores(evidence([[3.0, 0.0, 0.0, 6.0]], 1))[0, 0], torch.tensor([1.5, 1.0, 2.0, 3.0])
    )
    weighted = make_policy("inf-mllm", {"window": 1, "bias_slope": 0.0, "value_weighted": True})
    both = Evidence(torch.ones(1, 1, 3), torch.ones(3, dtype=torch.int64), torch.tensor([[[1.0, 2.0, 3.0]]]))
    torch.testing.assert_close(weighted.scores(both)[0, 0], torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(ConfigError, match="pooled_tokens is 4; an odd number"):
        make_policy("inf-mllm", {"pooled_tokens": 4})


def test_streaming_llm_and_sliding_window() -> None:
    slots = view([0, 1, 2, 3, 40, 41, 42, 43], layers=2)
    assert make_policy("streaming-llm", {"sinks": 2}).plan(slots, Evidence(), 5)[1, 0].tolist() == [0, 1, 5, 6, 7]
    assert make_policy("sliding-window", {}).plan(slots, Evidence(), 3)[0, 0].tolist() == [5, 6, 7]


def test_h2o_keeps_heavy_hitters_for_ever_and_recents() -> None:
    policy = make_policy("h2o", {"recent_share": 0.5})
    received = Evidence(received=torch.tensor([[[9.0, 1, 8, 1, 1, 1, 0, 0]]]))
    assert policy.plan(view(list(range(8))), received, 4)[0, 0].tolist() == [0, 2, 6, 7]


def test_tova_keeps_what_the_newest_query_sees_and_itself() -> None:
    received = [[5.0, 1.0, 3.0, 4.0, 0.0]]
    assert make_policy("tova", {}).plan(view(list(range(5))), evidence(received, 1), 3)[0, 0].tolist() == [0, 3, 4]


def test_last_frames_keeps_the_opening_and_what_follows_the_oldest_of_them() -> None:
    policy = make_policy("last-frames", {"frames": 2})
    slots = view(list(range(12)), frames=((3, 5), (4, 8)), opening=2)
    assert policy.plan(slots, Evidence(), 10)[0, 0].tolist() == [0, 1, 5, 6, 7, 8, 9, 10, 11]
    # Only the newest fits.
    assert policy.plan(slots, Evidence(), 7)[0, 0].tolist() == [0, 1, 8, 9, 10, 11]
    # No frame yet, or none that fits: the latest tokens.
    assert policy.plan(slots, Evidence(), 5)[0, 0].tolist() == [0, 1, 9, 10, 11]


def test_full_keeps_all() -> None:
    assert make_policy("full", {}).plan(view([0, 1, 2]), Evidence(), 1)[0, 0].tolist() == [0, 1, 2]


def test_of_equals_the_newer_stays() -> None:
    assert keep_best(torch.zeros(1, 1, 6), 2)[0, 0].tolist() == [4, 5]


def test_no_frames_protect_nothing() -> None:
    slots = view(list(range(6)), frames=((0, 2),))
    assert newest_frames_first_index(slots, 0, 10) == 6
    assert newest_frames_first_index(slots, 1, 10) == 2


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown cache policy 'inf-mlm'; did you mean 'inf-mllm'"):
        make_policy("inf-mlm", {})
    with pytest.raises(ConfigError, match="unknown key 'bias_slop' in policy; did you mean 'bias_slope'"):
        make_policy("inf-mllm", {"bias_slop": 1})


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_says_what_it_does(name: str) -> None:
    policy = make_policy(name, {})
    assert policy.name == name
    assert len(policy.summary) > 20
