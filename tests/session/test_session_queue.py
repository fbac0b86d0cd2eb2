import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.session_engine import frame

import inf_stream.session.queue
from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SessionError
from inf_stream.session.limits import SessionLimits
from inf_stream.session.queue import FrameQueue, QueueRule, TextPiece, TextQueue, cut_text


def numbers(queue: FrameQueue) -> list[int]:
    return [f.number for f in queue.take(len(queue))]


def filled(rule: QueueRule, capacity: int = 3) -> FrameQueue:
    queue = FrameQueue(capacity, rule)
    for number in range(capacity):
        assert queue.put(frame(number), 10 + number) is None
    return queue


def test_wait_refuses_what_does_not_fit_and_stays_as_it_was() -> None:
    queue = filled(QueueRule.WAIT)
    with pytest.raises(SessionError, match=r"frame 3 came while 3 frames wait.*hold it back"):
        queue.put(frame(3), 13)
    assert not queue.dropped
    assert numbers(queue) == [0, 1, 2]


def test_drop_oldest_keeps_the_newest() -> None:
    queue = filled(QueueRule.DROP_OLDEST)
    left_out = queue.put(frame(3), 13)
    assert left_out is not None
    assert left_out.number == 0
    assert queue.arrivals() == [11, 12, 13]
    assert queue.dropped == {QueueRule.DROP_OLDEST: 1}
    assert numbers(queue) == [1, 2, 3]


def test_drop_latest_keeps_what_waits() -> None:
    queue = filled(QueueRule.DROP_LATEST)
    newest = frame(3)
    assert queue.put(newest, 13) is newest
    assert queue.dropped == {QueueRule.DROP_LATEST: 1}
    assert numbers(queue) == [0, 1, 2]


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_queue_holds_at_least_one_frame(capacity: int) -> None:
    with pytest.raises(SessionError, match="at least 1"):
        FrameQueue(capacity, QueueRule.WAIT)


@given(
    st.sampled_from(list(QueueRule)),
    st.integers(1, 5),
    st.lists(st.one_of(st.none(), st.integers(1, 4)), max_size=60),
)
def test_every_frame_leaves_once_and_in_order(rule: QueueRule, capacity: int, script: list[int | None]) -> None:
    queue = FrameQueue(capacity, rule)
    put = refused = 0
    taken: list[int] = []
    dropped: list[int] = []
    for most in script:
        if most is not None:
            taken += [f.number for f in queue.take(most)]
        elif rule is QueueRule.WAIT and queue.is_full:
            refused += 1
        else:
            left_out = queue.put(frame(put), put)
            put += 1
            if left_out is not None:
                dropped.append(left_out.number)
        assert len(queue) <= capacity
        assert queue.oldest_arrival(put) == min(queue.arrivals(), default=put)
        assert queue.count_before(put) == len(queue)
    taken += numbers(queue)
    assert taken == sorted(taken)
    assert sorted(taken + dropped) == list(range(put))
    assert sum(queue.dropped.values()) == len(dropped)


def test_text_queue_counts_characters_and_refuses_more() -> None:
    queue = TextQueue(5)
    queue.put(TextPiece("abc", 1, 7))
    assert (queue.characters, queue.oldest_arrival(99), queue.arrivals()) == (3, 7, [7])
    with pytest.raises(SessionError, match=r"3 characters came while 3 of at most 5 wait.*smaller pieces"):
        queue.put(TextPiece("def", 2, 8))
    queue.put(TextPiece("de", 2, 8))
    assert queue.take().text == "abc"
    assert (len(queue), queue.characters) == (1, 2)
    queue.take()
    assert queue.oldest_arrival(99) == 99


@given(st.text(alphabet="ab \n", max_size=60), st.integers(1, 9))
def test_cut_text_loses_nothing(text: str, most: int) -> None:
    pieces = list(cut_text(text, most))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= most for piece in pieces)


def test_cut_text_cuts_words_only_when_it_must() -> None:
    assert list(cut_text("abcdefgh ij", 4)) == ["abcd", "efgh", " ij"]
    assert doctest.testmod(inf_stream.session.queue).failed == 0


@pytest.mark.parametrize(
    ("named", "live", "rule"),
    [
        ("auto", False, QueueRule.WAIT),
        ("auto", True, QueueRule.DROP_OLDEST),
        ("wait", True, QueueRule.WAIT),
        ("drop-latest", False, QueueRule.DROP_LATEST),
    ],
)
def test_limits_from_settings(named: str, live: bool, rule: QueueRule) -> None:
    settings = SourceSettings(queue_frames=5, queue_rule=named, queue_questions=6)
    limits = SessionLimits.from_settings(settings, live=live)
    assert limits == SessionLimits(queue_frames=5, rule=rule, queue_questions=6, full_steps=not live)
