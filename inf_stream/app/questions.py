"""What is asked and when: one question at some stream times, and files of questions."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inf_stream.base.clock import nanoseconds, parse_clock
from inf_stream.base.config import nearest
from inf_stream.base.errors import ConfigError
from inf_stream.base.files import is_unicode, read_text

MOST_CHARACTERS = 1 << 20
"""Longest question; the cache budget allows far less."""
_MOST_FILE_BYTES = 1 << 26
_LAST_S = 1e9
_KEYS = ("at_s", "text", "max_tokens", "aside")


@dataclass(frozen=True)
class PlannedQuestion:
    """A question with the stream time it is asked at; `at_ns` of None asks at the end of the stream."""

    text: str
    at_ns: int | None = None
    max_tokens: int | None = None
    aside: bool = False


def plan_questions(
    question: str | None, at: Sequence[str], file: Path | None, *, aside: bool = False
) -> tuple[PlannedQuestion, ...]:
    """All questions of a run, by stream time, those for the end last.

    The question is asked at each time in `at`, or at the end if there is none; the file's questions are added. With
    `aside` all of them are.

    Raises:
        ConfigError: nothing is asked, a time or the file is malformed, or `at` comes without a question.
    """
    if at and question is None:
        raise ConfigError(f"--at {at[0]} says when, but no question is given; add a QUESTION, or use --questions FILE")
    planned = list(load_questions(file)) if file is not None else []
    if question is not None:
        text = _checked_text(question, "the question")
        times: list[int | None] = [_time(one) for one in at]
        planned += [PlannedQuestion(text, time) for time in times or [None]]
    if aside:
        planned = [dataclasses.replace(one, aside=True) for one in planned]
    return tuple(sorted(planned, key=lambda q: math.inf if q.at_ns is None else q.at_ns))


def parse_duration(text: str | None, flag: str = "--duration") -> int | None:
    """The time a flag was given, in nanoseconds.

    Raises:
        ConfigError: it is not a time, or zero.
    """
    if text is None:
        return None
    try:
        duration_ns = parse_clock(text)
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from error
    if duration_ns == 0:
        raise ConfigError(f"{flag} is {text}; give more than 0 seconds")
    return duration_ns


def load_questions(path: Path) -> tuple[PlannedQuestion, ...]:
    """Read a file with one JSON object a line: `{"at_s": 750, "text": "What happened?"}`.

    `at_s` is a number of seconds or a text such as "12:30"; `max_tokens` may limit the answer, and `aside` may be true.
    Empty lines are skipped.

    Raises:
        ConfigError: the file cannot be read or is empty, or a line is malformed; the line is named.
    """
    lines = read_text(path, "questions file", _MOST_FILE_BYTES).split("\n")
    found = [_from_line(line, f"{path} line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ConfigError(f"""questions file '{path}' is empty; write lines like {{"at_s": 750, "text": "..."}}""")
    return tuple(found)


def _from_line(line: str, where: str) -> PlannedQuestion:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON: {error}; one object a line is expected") from error
    if not isinstance(values, dict):
        kind = "list" if isinstance(values, list) else type(values).__name__
        raise ConfigError(f"""{where} holds a {kind}; an object like {{"at_s": 750, "text": "..."}} is expected""")
    for key in values:
        if key not in _KEYS:
            raise ConfigError(f"{where} has the unknown key '{key}'{nearest(key, list(_KEYS))}")
    for key in _KEYS[:2]:
        if key not in values:
            raise ConfigError(f"""{where} has no "{key}"; "at_s" and "text" are needed""")
    return PlannedQuestion(
        _checked_text(values["text"], f'"text" in {where}'),
        _at_ns(values["at_s"], where),
        _limit(values.get("max_tokens"), where),
        _aside(values.get("aside", False), where),
    )


def _at_ns(value: Any, where: str) -> int:
    if isinstance(value, str):
        return _time(value, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_S:
        raise ConfigError(f'"at_s" in {where} is {_short(value)}; seconds from 0 to {_LAST_S:.0f} are expected')
    return nanoseconds(value)


def _limit(value: Any, where: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 16):
        raise ConfigError(f'"max_tokens" in {where} is {_short(value)}; 1 to {1 << 16} are allowed')
    return value


def _aside(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f'"aside" in {where} is {_short(value)}; true or false is expected')
    return value


def _checked_text(text: Any, what: str) -> str:
    if not isinstance(text, str):
        raise ConfigError(f"{what} is {_short(text)}; a text is expected")
    if not text.strip():
        raise ConfigError(f"{what} is empty; write what you want to know")
    if not is_unicode(text):
        raise ConfigError(f"{what} is {_short(text)}, which holds bytes that are no text; write it in UTF-8")
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{what} has {len(text)} characters; at most {MOST_CHARACTERS}, shorten it")
    return text.strip()


def _time(text: str, where: str = "--at") -> int:
    try:
        return parse_clock(text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _short(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= 40 else f"{written[:37]}..."
