"""Timestamps of all kinds become times that start at 0 and never fall."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from inf_stream.sources.timeline import HoleWatch, Timeline

MS = Fraction(1, 1000)
TENTH_NS = 100_000_000


def stamped_ms(
    pts: list[int | None], *, start: int | None = None, duration_ms: int | None = None, base: Fraction = MS
) -> list[float]:
    duration_ns = None if duration_ms is None else duration_ms * 1_000_000
    timeline = Timeline(base, start, TENTH_NS, duration_ns)
    return [timeline.stamp(p) / 1e6 for p in pts]


def test_first_frame_is_zero_without_a_declared_start():
    assert stamped_ms([5000, 5040, 5500]) == [0, 40, 500]


def test_declared_start_is_zero():
    assert stamped_ms([5200, 5300], start=5000) == [200, 300]


def test_declared_start_after_the_first_frame_is_not_believed():
    assert stamped_ms([5200, 5300], start=6000) == [0, 100]


def test_negative_timestamps():
    assert stamped_ms([-80, 0, 40]) == [0, 80, 120]


def test_missing_timestamps_follow_at_the_nominal_interval():
    assert stamped_ms([None, None, 500, None, 700]) == [0, 100, 200, 300, 400]


def test_frames_out_of_order_repeat_the_last_time():
    assert stamped_ms([0, 200, 100, 300]) == [0, 200, 200, 300]


def test_clock_that_starts_over_goes_on():
    assert stamped_ms([0, 5000, 0, 40, 80]) == [0, 5000, 5100, 5140, 5180]


def test_time_far_beyond_the_end_is_damage():
    assert stamped_ms([0, 100, 95_443_717, 300], duration_ms=10_000) == [0, 100, 200, 300]


def test_unknown_length_believes_long_gaps():
    assert stamped_ms([0, 3_600_000]) == [0, 3_600_000]


def test_stream_longer_than_its_header_says_keeps_its_times():
    pts = list(range(0, 200_000, 1000))
    assert stamped_ms(list(pts), duration_ms=10_000) == pts


def test_ticks_that_are_no_whole_nanoseconds_do_not_add_up_errors():
    base = Fraction(1, 90_000)
    assert stamped_ms([0, 90_000 * 3600 * 24], base=base) == [0, 24 * 3600 * 1000]


@given(st.lists(st.none() | st.integers(-(2**40), 2**40)), st.none() | st.integers(-(2**33), 2**33))
def test_times_never_fall_whatever_comes(pts: list[int | None], start: int | None):
    times = stamped_ms(pts, start=start)
    assert times == sorted(times)
    assert not times or times[0] >= 0


def test_hole_in_a_steady_rate():
    watch = HoleWatch()
    assert not any(watch.is_hole(40) for _ in range(30))
    assert not watch.is_hole(80)
    assert watch.is_hole(1000)
    assert not watch.is_hole(40)


def test_variable_rate_has_no_holes():
    watch = HoleWatch()
    assert not any(watch.is_hole(interval) for interval in [40, 40, 900, 40, 2000, 33, 5000] * 20)


def test_a_rate_is_steady_after_ten_frames():
    watch = HoleWatch()
    assert not any(watch.is_hole(100) for _ in range(11))
    assert watch.is_hole(400)
