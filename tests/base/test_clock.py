"""Stream time as people write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.base.clock import NS_PER_S, format_clock, nanoseconds, parse_clock, seconds
from inf_stream.base.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "whole_s"),
    [
        ("12:30", 750),
        ("1:02:03", 3723),
        ("90", 90),
        ("90.5", 90.5),
        (" 0:05 ", 5),
        ("0", 0),
        ("75:00", 4500),
        ("0:00:00.250", 0.25),
        ("100:00:00", 360_000),
    ],
)
def test_reads(text: str, whole_s: float) -> None:
    assert parse_clock(text) == nanoseconds(whole_s)


@pytest.mark.parametrize(
    "text",
    ["", "noon", "1:2:3:4", "-5", "12:", ":30", "12:345", "1e3", "nan", "12:30 pm", "9" * 400, "9" * 5000 + ":00"],
)
def test_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="is not understood; write it as mm:ss"):
        parse_clock(text)


@pytest.mark.parametrize("text", ["12:60", "1:60:00", "1:00:75"])
def test_refuses_minutes_and_seconds_above_59(text: str) -> None:
    with pytest.raises(ConfigError, match="minutes or seconds above 59"):
        parse_clock(text)


@pytest.mark.parametrize(
    ("at_ns", "text"),
    [
        (0, "00:00"),
        (-1, "00:00"),
        (NS_PER_S - 1, "00:00"),
        (59 * NS_PER_S, "00:59"),
        (750 * NS_PER_S, "12:30"),
        (3600 * NS_PER_S, "1:00:00"),
        (360_000 * NS_PER_S, "100:00:00"),
    ],
)
def test_writes(at_ns: int, text: str) -> None:
    assert format_clock(at_ns) == text


@given(st.integers(0, 10**6))
def test_what_is_written_is_read_back(whole_s: int) -> None:
    assert parse_clock(format_clock(whole_s * NS_PER_S)) == whole_s * NS_PER_S


@given(st.integers(0, 10**12))
def test_seconds_and_nanoseconds_are_inverse(at_us: int) -> None:
    assert nanoseconds(seconds(at_us * 1000)) == at_us * 1000
