"""Messages on their way: in order, bounded, and sent again to who comes back."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.base.errors import SessionError, StateError
from inf_stream.server.connections import outbox as module
from inf_stream.server.connections.outbox import Outbox


def taken(box: Outbox) -> list[str]:
    texts = []
    while (text := box.take()) is not None:
        texts.append(text)
    return texts


def test_messages_leave_in_order_and_can_be_sent_again() -> None:
    box = Outbox(4)
    assert (box.last_number, box.last_sent, box.waiting) == (0, 0, 0)
    for text in "abc":
        box.put(text)
    assert (box.last_number, box.waiting) == (3, 3)
    assert taken(box) == ["a", "b", "c"]
    box.rewind(1)
    assert taken(box) == ["b", "c"]
    box.rewind(3)
    assert taken(box) == []
    box.rewind(0)
    assert taken(box) == ["a", "b", "c"]


def test_sent_messages_make_room_and_waiting_ones_do_not() -> None:
    box = Outbox(3)
    for text in "abc":
        box.put(text)
        box.take()
    box.put("d")
    with pytest.raises(SessionError, match="messages 2 to 4 are held"):
        box.rewind(0)
    box.rewind(1)
    assert not box.overflowed
    box.put("e")
    assert box.overflowed, "b was not sent again yet and would be lost"
    box.put("f")
    assert box.waiting <= 4
    with pytest.raises(SessionError):
        box.rewind(3)


@pytest.mark.parametrize("seen", [-1, 4, 10**9])
def test_what_was_never_sent_cannot_have_been_seen(seen: int) -> None:
    box = Outbox(9)
    for text in "abc":
        box.put(text)
    with pytest.raises(SessionError, match="open a new session"):
        box.rewind(seen)


def test_long_messages_count_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    box = Outbox(100)
    box.put("12345678")
    box.take()
    box.put("1234")
    assert not box.overflowed
    with pytest.raises(SessionError):
        box.rewind(0)
    box.put("12345678")
    assert box.overflowed


@given(st.lists(st.sampled_from(["put", "take", "lose"]), max_size=80), st.integers(1, 6))
def test_a_client_that_comes_back_has_seen_everything_once(deeds: list[str], most: int) -> None:
    box, sent, seen = Outbox(most), 0, 0
    for deed in deeds:
        if deed == "put":
            sent += 1
            box.put(str(sent))
        elif deed == "take":
            text = box.take()
            if text is not None and not box.overflowed:
                assert int(text) == seen + 1
                seen += 1
        else:
            try:
                box.rewind(seen)
            except SessionError:
                assert box.overflowed or sent - seen > most - 1
                return
        if box.overflowed:
            assert sent - seen > most
            return
        assert box.waiting == sent - seen


def copied(box: Outbox, *, all_sent: bool = False) -> Outbox:
    again = Outbox(9)
    again.restore(box.state("hand-le", all_sent=all_sent), "other")
    return again


def test_a_restored_box_sends_what_the_first_one_held() -> None:
    box = Outbox(3)
    for text in ('{"a": "hand-le"}', "b", "hand-le\\u0000", "d"):
        box.put(text)
        if text != "d":
            box.take()
    again = copied(box)
    assert (again.last_number, again.last_sent, again.waiting) == (4, 3, 1)
    assert taken(again) == ["d"]
    again.rewind(1)
    assert taken(again) == ["b", "other\\u0000", "d"], "the secret is the new one's"
    with pytest.raises(SessionError):
        again.rewind(0)
    again.put("e")
    assert (again.last_number, taken(again)) == (5, ["e"])
    assert copied(box, all_sent=True).waiting == 0
    assert b"hand-le" not in box.state("hand-le", all_sent=True).tensors["texts"].numpy().tobytes()
    nothing = copied(Outbox(3))
    assert (nothing.last_number, nothing.waiting, taken(nothing)) == (0, 0, [])


def test_after_a_leap_numbers_begin_behind_whatever_may_have_been_sent() -> None:
    box = Outbox(3)
    for text in "ab":
        box.put(text)
    box.leap(1000)
    box.leap(10)
    assert box.last_number == 1000
    box.rewind(7)
    assert (box.waiting, box.last_sent) == (0, 2)
    box.put("c")
    assert (box.last_number, taken(box)) == (1001, ["c"])
    box.rewind(1)
    assert taken(box) == ["b", "c"]
    box.put("d")
    assert copied(box).last_number == 1002
    box.rewind(1000)
    assert taken(box) == ["c", "d"]
    with pytest.raises(SessionError):
        box.rewind(0)


@pytest.mark.parametrize(
    "broken",
    [{"last": 1}, {"forgotten": 1}, {"sent": 3}, {"last": -1}, {"sent": None}, {"numbers": [1]}, {"numbers": [2, 1]}],
)
def test_what_no_box_held_is_refused(broken: dict[str, Any]) -> None:
    box = Outbox(3)
    for text in "ab":
        box.put(text)
    state = box.state("?", all_sent=False)
    if "numbers" in broken:
        state.tensors["numbers"] = torch.tensor(broken.pop("numbers"))
    state.facts |= broken
    with pytest.raises(StateError):
        Outbox(3).restore(state, "?")
