"""Stream time and frame rates on clocks that tests turn."""

import pytest

from inf_stream.base.errors import SessionError, StateError
from inf_stream.base.state import State
from inf_stream.server.sessions.pace import RateLimit, StreamClock

S = 1_000_000_000


def test_stream_time_is_wall_time_until_a_client_says_otherwise() -> None:
    clock = StreamClock(100 * S)
    assert clock.stamp(103 * S, None) == 3 * S
    assert clock.stamp(104 * S, 60_000.0) == 60 * S
    assert clock.stamp(106 * S, None) == 62 * S
    assert clock.stamp(107 * S, 1_000) == 62 * S, "it never runs backwards"
    assert clock.now(108 * S) == 63 * S


def test_to_look_at_the_clock_does_not_move_the_stream() -> None:
    clock = StreamClock(0)
    assert clock.now(5 * S) == 5 * S
    assert clock.stamp(6 * S, 0.0) == 0
    assert clock.now(8 * S) == 2 * S
    assert clock.stamp(9 * S, 1_000.0) == S


def test_a_restored_clock_goes_on_by_the_wall_or_where_its_client_left_off() -> None:
    clock = StreamClock(100 * S)
    clock.stamp(103 * S, None)
    saved = clock.state(104 * S)
    assert clock.state(104 * S) == saved, "to look changes nothing"
    by_wall = StreamClock(0)
    by_wall.restore(saved, 7 * S, 30 * S)
    assert by_wall.now(8 * S) == (4 + 30 + 1) * S
    clock.stamp(105 * S, 60_000.0)
    saved = clock.state(109 * S)
    by_client = StreamClock(0)
    by_client.restore(saved, 7 * S, 30 * S)
    assert by_client.now(8 * S) == 61 * S
    assert by_client.stamp(9 * S, 61_500.0) == 61_500_000_000
    assert by_client.stamp(10 * S, 0.0) == 61_500_000_000, "it never runs backwards"
    for broken in ({"is_told": 1}, {"latest_ns": -1}, {"latest_ns": None}):
        with pytest.raises(StateError):
            StreamClock(0).restore(State(facts=saved.facts | broken), 0, 0)


@pytest.mark.parametrize("timestamp_ms", [-1.0, float("nan"), float("inf"), 1e300])
def test_absurd_times_are_refused(timestamp_ms: float) -> None:
    with pytest.raises(SessionError, match="milliseconds since the stream began"):
        StreamClock(0).stamp(0, timestamp_ms)


def test_a_rate_is_kept_over_time() -> None:
    rate = RateLimit(2.0)
    assert [rate.allows(0) for _ in range(3)] == [True, True, False]
    assert not rate.allows(S // 2 - 1)
    assert rate.allows(S // 2 + 1)
    assert [rate.allows(100 * S) for _ in range(3)] == [True, True, False]
    slow = RateLimit(0.1)
    assert slow.allows(0)
    assert not slow.allows(9 * S)
    assert slow.allows(11 * S)
