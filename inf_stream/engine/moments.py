"""Reads from a question which part of the stream it is about, where its words say so."""

import re

from inf_stream.base.clock import format_clock, nanoseconds

AROUND_S = 5.0
"""Around a single moment, what counts as that moment, each way."""

_WORDS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "forty-five": 45, "fifty": 50, "sixty": 60,
    "half a": 0.5, "half an": 0.5, "couple": 2, "a couple of": 2, "few": 3, "a few": 3,
}  # fmt: skip
_UNITS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}

_CLOCK = r"(?<![\d:.])(?:(\d{1,3}):)?(\d{1,3}):([0-5]\d)(?:\.\d+)?(?![\d:])"
_AMOUNT = rf"(\d+(?:\.\d+)?|{'|'.join(sorted(map(re.escape, _WORDS), key=len, reverse=True))})"
_UNIT = r"(seconds?|secs?|s|minutes?|mins?|m|hours?|h)\b"
_LENGTH = rf"(?:{_AMOUNT}[ -])?{_UNIT}"

_FLAGS = re.IGNORECASE | re.ASCII
_BETWEEN = re.compile(rf"{_CLOCK}\s*(?:and|to|until|till|[-\u2013])\s*{_CLOCK}", _FLAGS)
_SIDE = re.compile(rf"\b(before|until|till|by|after|since|from)\s+{_CLOCK}", _FLAGS)
_BEGINS = ("after", "since", "from")
_MOMENT = re.compile(_CLOCK, _FLAGS)
_LAST = re.compile(rf"\b(?:the|these)\s+(?:last|past|previous)\s+{_LENGTH}", _FLAGS)
_FIRST = re.compile(rf"\bthe\s+first\s+{_LENGTH}", _FLAGS)
# A number that goes on to the left ("twenty-five", "1,000", "an hour and ten") is not read by its end alone.
_AGO = re.compile(rf"(?<![\w,.-])(?<!and ){_AMOUNT}\s+{_UNIT}\s+ago\b", _FLAGS)
_AFTER_START = re.compile(rf"\bat\s+(?:second\s+(\d+(?:\.\d+)?)\b|{_AMOUNT}\s+{_UNIT}(?!\s+ago))", _FLAGS)


def read_span(text: str, now_ns: int) -> tuple[int, int] | None:
    """From when to when in the stream, in ns, a question asks; None if it names no time, or one that is to come.

    Understood are clock times ("at 12:30", "after 1:02:03", "between 0:10 and 0:20"), lengths ("in the last five
    minutes", "the first minute", "ten seconds ago") and seconds from the start ("at 40 seconds"); all in English.
    """
    found = _read_span_s(text, now_ns / 1e9)
    if found is None:
        return None
    from_s, to_s = max(found[0], 0.0), min(found[1], now_ns / 1e9)
    return (nanoseconds(from_s), nanoseconds(to_s)) if from_s <= to_s else None


def names_time(text: str, now_ns: int) -> bool:
    """Whether a question names a time as `read_span` understands it, be it one that is to come."""
    return _read_span_s(text, now_ns / 1e9) is not None


def read_clocks_ns(text: str) -> list[int]:
    """The clock times in a text, in ns of stream time."""
    return [nanoseconds(_clock_s(match.groups())) for match in _MOMENT.finditer(text)]


def warn_of_moment(text: str, now_ns: int) -> str | None:
    """What to tell who asks about a time that the stream, at `now_ns`, does not have; None if there is nothing."""
    found, now = _read_span_s(text, now_ns / 1e9), format_clock(now_ns)
    if found is None:
        return None
    from_s, to_s = found
    if from_s > now_ns / 1e9:
        return f"the question is about a time that the stream has not reached; it is at {now}"
    if to_s < 0:
        return f"the question is about a time before the stream began; it is at {now}"
    return None


def _read_span_s(text: str, now_s: float) -> tuple[float, float] | None:
    if match := _BETWEEN.search(text):
        one, other = _clock_s(match.groups()[:3]), _clock_s(match.groups()[3:])
        return min(one, other), max(one, other)
    if sides := list(_SIDE.finditer(text)):
        begins = [_clock_s(side.groups()[1:]) for side in sides if side[1].lower() in _BEGINS]
        ends = [_clock_s(side.groups()[1:]) for side in sides if side[1].lower() not in _BEGINS]
        return max(begins, default=0.0), min(ends, default=now_s)
    if match := _MOMENT.search(text):
        return _around(_clock_s(match.groups()))
    if match := _LAST.search(text):
        return now_s - _length_s(match[1], match[2]), now_s
    if match := _FIRST.search(text):
        return 0.0, _length_s(match[1], match[2])
    if match := _AGO.search(text):
        length = _length_s(match[1], match[2])
        return _around(now_s - length, max(AROUND_S, length / 10))
    if match := _AFTER_START.search(text):
        return _around(float(match[1]) if match[1] else _length_s(match[2], match[3]))
    return None


def _around(moment_s: float, reach_s: float = AROUND_S) -> tuple[float, float]:
    return moment_s - reach_s, moment_s + reach_s


def _clock_s(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds = (int(part or 0) for part in parts)
    return 3600.0 * hours + 60.0 * minutes + seconds


def _length_s(amount: str | None, unit: str) -> float:
    count = 1.0 if amount is None else _WORDS.get(amount.lower()) or float(amount)
    return count * _UNITS[unit.lower() if len(unit) == 1 else unit.lower().rstrip("s")]
