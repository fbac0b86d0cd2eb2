"""The sampling grid against its definition, written out frame by frame."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from inf_stream.base.clock import NS_PER_S
from inf_stream.sources.sampling import GridSampler, frame_rate, grid_ns

RATES = st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 7.5, 23.976, 29.97, 30.0, 240.0])


def taken_by_definition(times_ns: list[int], rate: Fraction) -> list[int]:
    """For each grid point in turn: the first frame at or after it, unless that frame was taken already."""
    taken: list[int] = []
    point = 0
    while True:
        found = next((t for t in times_ns if Fraction(t, NS_PER_S) >= point / rate), None)
        if found is None:
            return taken
        if found not in taken:
            taken.append(found)
        point += 1


@given(st.lists(st.integers(0, 20 * NS_PER_S), max_size=30, unique=True), RATES)
def test_takes_first_frame_at_or_after_each_grid_point(times: list[int], fps: float):
    times.sort()
    sampler = GridSampler(fps)
    assert [t for t in times if sampler.takes(t)] == taken_by_definition(times, frame_rate(fps))


@given(RATES, st.integers(0, 10**9))
def test_grid_points_are_taken_themselves(fps: float, first: int):
    sampler = GridSampler(fps)
    assert all(sampler.takes(grid_ns(index, frame_rate(fps))) for index in range(first, first + 5))


def test_grid_does_not_wander_in_a_year_of_stream():
    year_s = 365 * 24 * 3600
    assert grid_ns(year_s * 30_000, Fraction(30_000, 1001)) == 1001 * year_s * NS_PER_S
    assert grid_ns(year_s, frame_rate(1.0)) == year_s * NS_PER_S


def test_equal_times_are_one_frame():
    sampler = GridSampler(1.0)
    assert [sampler.takes(t) for t in (0, 0, NS_PER_S, NS_PER_S)] == [True, False, True, False]


def test_timestamps_in_milliseconds_lose_no_frame_at_the_rate_of_the_clip():
    times = [round(i * 1000 / 29.97) * 1_000_000 for i in range(3000)]
    sampler = GridSampler(29.97, slack_ns=500_000)
    assert sum(sampler.takes(t) for t in times) == 3000
