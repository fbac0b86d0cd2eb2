"""Times in questions, as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.engine.moments import read_span, warn_of_moment

NOW_S = 3600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What was shown at 00:40?", (35, 45)),
        ("At 12:30, what was on the table?", (745, 755)),
        ("What happened at 0:02?", (0, 7)),
        ("Who came in at 0:59:58?", (3593, 3600)),
        ("What happened between 0:10 and 1:20?", (10, 80)),
        ("Describe everything from 20:00 to 10:00.", (600, 1200)),
        ("Was there a dog before 2:00?", (0, 120)),
        ("What happened after 30:00?", (1800, 3600)),
        ("Did anybody leave since 59:00?", (3540, 3600)),
        ("What happened in the last five minutes?", (3300, 3600)),
        ("In the past 30 seconds, did it move?", (3570, 3600)),
        ("Anything new in the last minute?", (3540, 3600)),
        ("What was there in the first ten seconds?", (0, 10)),
        ("What did you see in the last half an hour?", (1800, 3600)),
        ("What was shown ten seconds ago?", (3585, 3595)),
        ("A few minutes ago, who was there?", (3402, 3438)),
        ("Who was here an hour ago?", (0, 360)),
        ("What did you see half a minute ago?", (3565, 3575)),
        ("What was shown at 40 seconds?", (35, 45)),
        ("What was shown at second 12?", (7, 17)),
        ("What happened at two minutes?", (115, 125)),
        ("What happened from 0:10-0:20?", (10, 20)),
        ("What happened after 1:00 but before 2:00?", (60, 120)),
        ("What happened after 2:00 but before 1:00?", None),
        ("twenty-five minutes ago", None),
        ("1 hour and 20 minutes ago", None),
        ("1,000 seconds ago", None),
        ("five m\u0131nutes ago", None),
        ("f\u0131ve minutes ago", None),
        # None of these names a time of the stream.
        ("What do you see?", None),
        ("How long ago did you see a dog?", None),
        ("Is the picture 16:9?", None),
        ("What is the score, 2:1?", None),
        ("What will be at 99:59?", None),
        ("Which page has 1:2:3:4:55 on it?", None),
        ("Are there three dogs?", None),
        ("", None),
    ],
)
def test_a_question_says_what_time_it_is_about(text: str, expected: tuple[int, int] | None) -> None:
    told = read_span(text, NOW_S * 10**9)
    assert told == (None if expected is None else (expected[0] * 10**9, expected[1] * 10**9))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("What will be at 99:59?", "has not reached; it is at 1:00:00"),
        ("What happened after 2:00:00?", "has not reached; it is at 1:00:00"),
        ("What happened between 1:10:00 and 1:20:00?", "has not reached"),
        ("What was shown at 4000 seconds?", "has not reached"),
        ("What was shown two hours ago?", "before the stream began; it is at 1:00:00"),
        ("What was shown at 59:58?", None),
        ("What was shown at 1:00:04?", None),  # near enough to be what is shown now
        ("What happened between 0:10 and 1:20:00?", None),
        ("What happened in the last two hours?", None),
        ("Is there a dog?", None),
    ],
)
def test_who_asks_about_a_time_that_is_not_there_is_told(text: str, said: str | None) -> None:
    told = warn_of_moment(text, NOW_S * 10**9)
    assert told is None if said is None else said in str(told)


@given(st.text(alphabet="0123456789: .lastfirstagominutesecondsbetweenandat", max_size=60), st.integers(0, 10**15))
def test_whatever_is_asked_the_span_lies_in_the_stream(text: str, now_ns: int) -> None:
    told = read_span(text, now_ns)
    assert told is None or 0 <= told[0] <= told[1] <= now_ns + 1
