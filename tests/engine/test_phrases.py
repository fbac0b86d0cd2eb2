"""Events in questions, as people name them, and the same words in other meanings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.engine.phrases import (
    MOST_EVENTS,
    NamedEvent,
    affirmed_in,
    asked_in,
    content_words,
    is_about_now,
    is_never_past,
    read_events,
)


def event(side: str, *words: str) -> NamedEvent:
    return NamedEvent(side in ("after", "when"), side in ("before", "when"), frozenset(words))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What happened before the dog?", [event("before", "dog")]),
        ("What was on the table after the woman left?", [event("after", "woman")]),
        ("Who was there when the bell rang?", [event("when", "bell", "rang")]),
        ("When the bell rang, who was there?", [event("when", "bell", "rang")]),
        ("Before the dog came, was it raining?", [event("before", "dog")]),
        ("What was shown until the DOGS appeared", [event("before", "dog")]),
        ("Who came in since a woman was there?", [event("after", "woman")]),
        ("What was said during the match?", [event("when", "match")]),
        ("What was said while the glasses were empty?", [event("when", "glasse", "empty")]),
        ("What happened after you saw the dog?", [event("after", "dog")]),
        ("What happened after the dog's arrival?", [event("after", "dog", "arrival")]),
        ("Who was there after the man in the red coat left?", [event("after", "man", "red", "coat")]),
        ("What did she do right before the cat appeared?", [event("before", "cat")]),
        ("Where did she go after the phone rang?", [event("after", "phone", "rang")]),
        ("Answer briefly. What was there before the dog?", [event("before", "dog")]),
        (
            "What happened after the woman left and before the dog came?",
            [event("after", "woman"), event("before", "dog")],
        ),
        ("Describe what happened before the dog, and why.", [event("before", "dog")]),
    ],
)
def test_a_question_names_events(text: str, expected: list[NamedEvent]) -> None:
    assert read_events(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "before",
        "Have you seen him before?",
        "Was the dog there before?",
        "before you answer, look for the dog",
        "Before answering, think: was there a dog?",
        "After all, was there a dog?",
        "After all that, was it there?",
        "What was there after that?",
        "What was there since then?",
        "What was there after a while?",
        "What was there after a minute?",
        "What was there after ten seconds?",
        "What was there before 10?",
        "Was there a dog the day before yesterday?",
        "Was it there for a while, the dog?",
        "What happened before long?",
        "The dog came one after another, did it?",
        # These ask when, or are about anything that is said of it.
        "When did the dog appear?",
        "When exactly did the dog, the brown one, appear?",
        "When the dog appeared?",
        "Do you remember when the dog came?",
        "Tell me when the dog came.",
        "What was the time when the dog came?",
        # Places, persons and names.
        "Who stood before the house?",
        "Who looked after the dog?",
        "Whom was the dog named after?",
        "What was in the before picture?",
        # Both sides, or one each in two questions.
        "Was the man there before or after the dog?",
        "Was the man there before the dog or after the cat?",
        "What happened before, and after, and during the match? And before and after the dog?",
        "What happened before the dog? And what after the cat?",
        "What happened before the dog? Who was in the garden?",
        "Tell what happened before the dog. Tell what happened after the cat.",
        # About the present, which needs no memory of a time.
        "What is there, now that it is after the match?",
        "Is there a dog before the house?",
        "What do you see after the door?",
    ],
)
def test_the_same_words_in_another_meaning_name_nothing(text: str) -> None:
    assert read_events(text) == []


@given(st.text(alphabet="beforwhnduigatsl ?.,;\n'-", max_size=80))
def test_whatever_is_asked_an_event_has_words_and_a_side(text: str) -> None:
    for named in read_events(text):
        assert named.words
        assert named.begins or named.ends


def test_a_text_speaks_of_its_content_words() -> None:
    assert content_words("The DOGS were in the Garden; it's a Stra\u00dfe.") == {"dog", "garden", "strasse"}
    assert content_words("Yes, it was there.") == frozenset()


@pytest.mark.parametrize(
    ("text", "now", "never_past"),
    [
        ("What do you see?", True, True),
        ("Is there a dog?", True, True),
        ("What's there?", True, True),
        ("A dog?", False, True),
        ("Tell me when a dog appears", False, True),
        ("Did a dog appear?", False, False),
        ("What happened?", False, False),
        ("Do you know who came in?", False, False),
        ("Is it true that it has barked?", False, False),
    ],
)
def test_verbs_say_what_a_question_is_about(text: str, now: bool, never_past: bool) -> None:
    assert (is_about_now(text), is_never_past(text)) == (now, never_past)


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("A dog.", "A dog."),
        ("No.", ""),
        ("I have not seen that.", ""),
        ("There's nothing\nI don\u2019t know!", ""),
        ("No. A cat is there.", "A cat is there."),
        ("A dog.  It isn't a cat. A horse?", "A dog. A horse?"),
        ("", ""),
    ],
)
def test_what_an_answer_denies_is_left_out(answer: str, left: str) -> None:
    assert affirmed_in(answer) == left


def test_of_a_long_question_the_sentence_counts_that_asks() -> None:
    assert asked_in("Look for cats. Is there a dog? Be brief.") == "Is there a dog?"
    assert asked_in("Look for cats.\nTell of the dog") == "Tell of the dog"
    assert asked_in(" ") == ""


def test_a_question_that_names_very_many_events_names_none() -> None:
    most = " ".join(f"before thing{n}" for n in range(MOST_EVENTS))
    assert len(read_events(f"What was there {most}?")) == MOST_EVENTS
    assert read_events(f"What was there {most} before it barked?") == []
