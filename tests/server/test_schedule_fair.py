"""Fair turns: urgent lanes first, everybody in turn, nobody for ever last."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from inf_stream.server.sessions.schedule import FairSchedule


def taken(schedule: FairSchedule[str], most: int = 100) -> list[str]:
    jobs = [schedule.take() for _ in range(min(most, len(schedule)))]
    assert all(job is not None for job in jobs)
    return [job for job in jobs if job is not None]


def test_lanes_take_turns_and_each_keeps_its_order() -> None:
    schedule: FairSchedule[str] = FairSchedule()
    for job in ("a1", "a2", "a3", "b1", "b2", "c1"):
        schedule.add(job[0], job, urgent=False)
    assert taken(schedule) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert schedule.take() is None


def test_urgent_lanes_go_first_but_not_for_ever() -> None:
    schedule: FairSchedule[str] = FairSchedule(patience=2)
    for job in ("f1", "f2", "g1"):
        schedule.add(job[0], job, urgent=False)
    for job in ("q1", "q2", "q3", "q4", "q5"):
        schedule.add("q", job, urgent=True)
    assert taken(schedule) == ["q1", "q2", "f1", "q3", "q4", "g1", "q5", "f2"]


def test_a_lane_becomes_urgent_with_all_that_waits_in_it() -> None:
    schedule: FairSchedule[str] = FairSchedule()
    for job in ("a1", "b1", "b2"):
        schedule.add(job[0], job, urgent=False)
    schedule.set_urgent("b", True)
    schedule.set_urgent("unknown", True)
    assert taken(schedule) == ["b1", "b2", "a1"]
    schedule.add("b", "b3", urgent=True)
    schedule.add("a", "a2", urgent=True)
    schedule.set_urgent("b", False)
    assert taken(schedule) == ["a2", "b3"]


def test_ordinary_jobs_are_held_back_for_an_urgent_lane_but_not_for_ever() -> None:
    schedule: FairSchedule[str] = FairSchedule(patience=2)
    schedule.add("f", "f1", urgent=False)
    schedule.add("f", "f2", urgent=False)
    assert schedule.take(hold=True) is None
    for job in ("q1", "q2", "q3"):
        schedule.add("q", job, urgent=True)
        assert schedule.take(hold=True) == (job if job != "q3" else "f1")
    assert schedule.take(hold=True) == "q3"
    assert schedule.take(hold=True) is None
    assert schedule.take() == "f2"


def test_jobs_that_join_are_taken_beside_the_turns_of_others() -> None:
    schedule: FairSchedule[str] = FairSchedule(patience=2)
    for job in ("a1", "a2", "b1", "c1", "c2"):
        schedule.add(job[0], job, urgent=job[0] != "c")
    assert schedule.peek() == "a"
    assert schedule.take() == "a1"
    assert schedule.take_with(lambda lane: lane in ("b", "c"), 5) == ["b1", "c1"]
    assert not schedule.waits("b")
    assert schedule.waits("c")
    assert schedule.take_with(lambda lane: True, 0) == []
    assert schedule.take_with(lambda lane: False, 5) == []
    assert taken(schedule) == ["a2", "c2"]
    assert schedule.peek() is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60), st.integers(1, 4))
def test_nothing_is_lost_and_nobody_starves(jobs: list[tuple[int, bool]], patience: int) -> None:
    """Every session has one job at a time and comes back with the next as soon as it is done."""
    schedule: FairSchedule[tuple[int, int]] = FairSchedule(patience)
    waits = dict(jobs)
    for lane, urgent in waits.items():
        schedule.add(lane, (lane, 0), urgent=urgent)
    order: list[int] = []
    for turn in range(200):
        job = schedule.take()
        assert job is not None
        order.append(job[0])
        schedule.add(job[0], (job[0], turn), urgent=waits[job[0]])
    ordinary = [lane for lane, urgent in waits.items() if not urgent]
    most = (patience + 1) * max(1, len(ordinary)) if len(ordinary) < len(waits) else len(waits)
    for lane in ordinary:
        turns = [at for at, taken_lane in enumerate(order) if taken_lane == lane]
        assert max(b - a for a, b in zip([-1, *turns], turns, strict=False)) <= most
    urgent_lanes = [lane for lane, urgent in waits.items() if urgent]
    for lane in urgent_lanes:
        turns = [at for at, taken_lane in enumerate(order) if taken_lane == lane]
        assert max(b - a for a, b in itertools.pairwise(turns)) <= len(urgent_lanes) * 2
