"""Messages on their way: in order, bounded, and sent again to who comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.base.errors import SessionError
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
