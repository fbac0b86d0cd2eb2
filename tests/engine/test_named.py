"""What is known of moments by name: from what it is known, of what time, how much of it, and what is kept."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.base.errors import StateError
from inf_stream.base.events import Question
from inf_stream.base.state import State
from inf_stream.engine.named import MOST_CHARACTERS, MOST_TEXTS, NamedMoments

S = 1_000_000_000
NOW_S = 1000


def noted(*texts: tuple[str, int]) -> NamedMoments:
    named = NamedMoments()
    for text, at_s in texts:
        named.note(text, at_s * S, at_s * S)
    return named


def heard(
    question: str, answer: str, *, at_s: int = 100, seen_s: int = 98, aside: bool = False, expect: str | None = None
) -> NamedMoments:
    named = NamedMoments()
    named.hear(Question("q", question, at_s * S, aside=aside, expect=expect), answer, seen_s * S, at_s * S)
    return named


def span(named: NamedMoments, text: str, now_s: int = NOW_S) -> tuple[float, float] | None:
    found = named.read_span(text, now_s * S)
    return None if found is None else (found[0] / S, found[1] / S)


GARDEN = (
    ("A dog runs.", 100),
    ("A woman is in the garden.", 200),
    ("The dogs are back.", 300),
    ("The bell rang.", 400),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What happened before the bell rang?", (0, 405)),
        ("What happened before the dog?", (0, 305)),
        ("What happened after the dog came?", (95, 1000)),
        ("Who was there when the dog was there?", (95, 305)),
        ("What happened after the woman left and before the bell?", (195, 405)),
        ("What happened after the woman and before the dragon?", (195, 1000)),
        ("Who was there when the woman was in the garden?", (195, 205)),
        # Not known, or not all of it in one text.
        ("What happened before the dragon?", None),
        ("What happened before the dog rang the bell?", None),
        ("What happened before the do?", None),
        # No time between the two.
        ("What happened after the bell and before the woman?", None),
        # Times go before names, also those that are to come.
        ("What was there at 00:40 before the dog?", (35, 45)),
        ("What was there at 99:59 before the dog?", None),
        ("What did you see in the last minute when the dog came?", (940, 1000)),
        # Neither.
        ("Have you seen the dog before?", None),
        ("What do you see?", None),
    ],
)
def test_a_name_narrows_to_the_widest_time_it_can_mean(text: str, expected: tuple[int, int] | None) -> None:
    assert span(noted(*GARDEN), text) == expected


def test_a_span_ends_where_the_stream_does() -> None:
    named = noted(("A dog.", 2), ("A cat.", 99))
    assert span(named, "Who was there when the dog came?", 100) == (0, 7)
    assert span(named, "Who was there when the cat came?", 100) == (94, 100)


@given(st.lists(st.tuples(st.sampled_from(["dog", "a cat", "dog and cat"]), st.integers(0, 99))), st.integers(99, 120))
def test_no_mention_is_left_out(texts: list[tuple[str, int]], now_s: int) -> None:
    """A span has all mentions in it, with what is before the last of them, or behind the first."""
    named = noted(*texts)
    mentions = [at_s for text, at_s in texts if "dog" in text]
    for side, from_s, to_s in (
        ("before", 0, max(mentions, default=0)),
        ("after", min(mentions, default=0), now_s),
        ("when", min(mentions, default=0), max(mentions, default=0)),
    ):
        found = span(named, f"What happened {side} the dog came?", now_s)
        if not mentions:
            assert found is None
        else:
            assert found is not None
            assert 0 <= found[0] <= from_s <= to_s <= found[1] <= now_s


# ---- from what it is known ---------------------------------------------------------------------------

DOG = "Who was there when the dog came?"


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        # Of the present: from the latest frame to the question.
        ("What do you see?", "A dog.", (93, 105)),
        ("Is there a dog?", "Yes.", (93, 105)),
        ("Is there a dog or a cat?", "A dog.", (93, 105)),
        # A time in the answer, then one in the question.
        ("When did a dog appear?", "00:18.", (13, 23)),
        ("Did a dog appear?", "Yes, at 00:18.", (13, 23)),
        ("What was shown?", "00:10 A cat. 00:30 A dog.", (5, 35)),
        ("What was shown at 00:30?", "A dog.", (20, 40)),
        ("Did a dog appear in the last minute?", "Yes.", (35, 105)),
        ("What do you see?", "At 59:59 a dog.", (93, 105)),
        # No time at all: any until then.
        ("What happened?", "A dog barked.", (0, 105)),
        ("When did it rain?", "When the dog was there.", (0, 105)),
        ("What do you know of the time before the rain?", "A dog.", (0, 105)),
        # What does not say that there was a dog.
        ("Did a dog appear?", "Yes.", None),
        ("Is there a dog?", "No.", None),
        ("Is there a dog?", "A cat.", None),
        ("When did a dog appear?", "I have not seen that.", None),
        ("When did a dog appear?", "A while ago.", None),
        ("What do you see?", "There is no dog. A cat.", None),
        ("Was there a dog at 00:18?", "No, not at 00:18.", None),
        ("Is there a dog?", "", None),
        ("Look for a dog. Is there a cat?", "Yes.", None),
    ],
)
def test_an_answer_speaks_of_the_time_that_it_can_tell(
    question: str, answer: str, expected: tuple[int, int] | None
) -> None:
    assert span(heard(question, answer), DOG) == expected


@pytest.mark.parametrize(
    ("question", "expect", "answer", "expected"),
    [
        ("Is there a dog?", "yes", "Yes", (93, 105)),
        ("a dog?", "yes", "yes, a brown one", (93, 105)),
        ("Tell me when a dog appears", "yes", "Yes.", (93, 105)),
        ("What is new?", "", "A dog came.", (93, 105)),
        ("Did a dog appear?", "yes", "Yes.", None),
        ("Is there a dog?", "yes", "No.", None),
        ("Is there a dog?", "yes", "A dog, yes.", None),
        ("Is there a dog?", "", "No.", None),
        ("Is there a dog?", "", "A cat.", None),
        ("Is the dog gone?", "no", "No.", None),
        ("What do you see?", None, "A dog.", None),
    ],
)
def test_of_asides_only_what_a_standing_question_expects_is_known(
    question: str, expect: str | None, answer: str, expected: tuple[int, int] | None
) -> None:
    assert span(heard(question, answer, aside=True, expect=expect), DOG) == expected


def test_all_hits_of_a_standing_question_are_one_moment_from_the_first_to_the_last() -> None:
    named = NamedMoments()
    for at_s in range(100, 160, 2):
        named.hear(Question("w", "Is there a dog?", at_s * S, aside=True, expect="yes"), "Yes", at_s * S, at_s * S)
    assert len(named) == 1
    assert span(named, DOG) == (95, 163)


# ---- bounds, and what is kept ------------------------------------------------------------------------


def test_it_is_bounded_and_the_longest_unmentioned_goes_first() -> None:
    named = noted(("the dog", 1), ("the cat", 2))
    for number in range(MOST_TEXTS - 2):
        named.note(f"thing{number}", 3 * S, 3 * S)
    named.note("a dog", 4 * S, 4 * S)
    assert len(named) == MOST_TEXTS
    named.note("one thing more", 5 * S, 5 * S)
    assert len(named) == MOST_TEXTS
    assert span(named, "Who was there when the cat came?") is None
    assert span(named, DOG) == (0, 9)


def test_a_long_text_is_cut_between_words() -> None:
    text = " ".join(f"word{number}" for number in range(200)) + " " + "x" * 1000
    named = noted((text, 7))
    known = named.state().facts["known"]
    assert max(len(words) for words, _, _ in known) <= MOST_CHARACTERS
    assert {f"word{number}" for number in range(200)} < {word for words, _, _ in known for word in words.split()}


def test_where_nothing_is_called_back_nothing_is_kept() -> None:
    named = NamedMoments(0)
    named.note("a dog", 0, 0)
    assert len(named) == 0
    assert span(named, DOG) is None


def test_what_was_restored_knows_the_same_and_forgets_the_same_first() -> None:
    named, again = noted(*GARDEN), NamedMoments(5)
    again.restore(State(facts=json.loads(json.dumps(named.state().facts))))
    for asked in (DOG, "What happened before the bell?", "What happened after the woman left?"):
        assert span(again, asked) == span(named, asked) is not None
    again.note("one", 0, 0)
    again.note("a thing", 0, 0)
    again.note("a plan", 0, 0)
    assert [words for words, _, _ in again.state().facts["known"]][:1] == ["garden woman"]


@pytest.mark.parametrize(
    "known",
    [
        None,
        [["a", 0, 0]] * 6,
        ["dog"],
        [["dog", 0]],
        [["dog", 0, "1"]],
        [["dog", True, 1]],
        [[7, 0, 1]],
        [["dog", 2, 1]],
        [["dog", -1, 1]],
        [["", 0, 1]],
        [["x" * (MOST_CHARACTERS + 1), 0, 1]],
    ],
)
def test_what_no_memory_gives_is_refused(known: Any) -> None:
    with pytest.raises(StateError):
        NamedMoments(5).restore(State(facts={"known": known}))
