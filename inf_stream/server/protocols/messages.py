"""JSON from strangers: read within limits, and taken apart field by field with errors that name the field."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from inf_stream.base.config import shown
from inf_stream.base.errors import InfStreamError
from inf_stream.base.files import is_unicode

DEEPEST = 32
"""Objects and lists inside each other."""
MOST_VALUES = 1 << 16
"""Commas and opening brackets of one message, those in texts among them.

Small values take long to read, not long ones: 8 MiB of nested lists would hold up all sessions for seconds.
"""


class MessageError(InfStreamError):
    """A message cannot be taken as it is; `code` is for programs, `param` names the field."""

    def __init__(self, message: str, *, code: str = "invalid_value", param: str | None = None):
        super().__init__(message)
        self.code, self.param = code, param


def parse_object(text: str | bytes) -> dict[str, Any]:
    """The one JSON object that `text` is.

    Raises:
        MessageError: it is something else, is nested too deeply, or holds too many values, numbers JSON does not have,
            or text that is no Unicode.
    """
    _require_few_values(text)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise MessageError(f"the message is not JSON: {_reason(error)}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise MessageError(f"the message is {_kind(value)}; one JSON object is expected", code="invalid_json")
    _require_sane(value)
    return value


def required(values: Mapping[str, Any], key: str, where: str = "") -> Any:
    """The value of a field.

    Raises:
        MessageError: there is none.
    """
    if values.get(key) is None:
        raise MessageError(
            f"'{_path(where, key)}' is missing", code="missing_required_parameter", param=_path(where, key)
        )
    return values[key]


def as_text(value: Any, param: str, *, most: int) -> str:
    """A text of at most that many characters.

    Raises:
        MessageError: it is no text, or too long.
    """
    if not isinstance(value, str):
        raise _wrong(value, param, "a text", code="invalid_type")
    if len(value) > most:
        raise MessageError(
            f"'{param}' has {len(value)} characters; at most {most} are taken: shorten it",
            code="string_above_max_length",
            param=param,
        )
    return value


def as_number(value: Any, param: str, low: float, high: float) -> float:
    """A number within limits, both included.

    Raises:
        MessageError: it is none, or out of them.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, param, "a number", code="invalid_type")
    if not low <= value <= high:
        raise _wrong(value, param, f"{low:g} to {high:g}")
    return float(value)


def as_count(value: Any, param: str, low: int, high: int) -> int:
    """A whole number within limits, both included.

    Raises:
        MessageError: it is none, or out of them.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, param, "a whole number", code="invalid_type")
    if not low <= value <= high:
        raise _wrong(value, param, f"{low} to {high}")
    return value


def as_flag(value: Any, param: str) -> bool:
    """True or false.

    Raises:
        MessageError: it is neither.
    """
    if not isinstance(value, bool):
        raise _wrong(value, param, "true or false", code="invalid_type")
    return value


def as_object(value: Any, param: str) -> dict[str, Any]:
    """An object.

    Raises:
        MessageError: it is none.
    """
    if not isinstance(value, dict):
        raise _wrong(value, param, "an object", code="invalid_type")
    return value


def as_list(value: Any, param: str, *, most: int) -> list[Any]:
    """A list of at most that many things.

    Raises:
        MessageError: it is none, or longer.
    """
    if not isinstance(value, list):
        raise _wrong(value, param, "a list", code="invalid_type")
    if len(value) > most:
        raise MessageError(f"'{param}' has {len(value)} entries; at most {most} are taken", param=param)
    return value


def as_choice(value: Any, param: str, choices: Sequence[str]) -> str:
    """One of some words.

    Raises:
        MessageError: it is another.
    """
    if not isinstance(value, str) or value not in choices:
        raise _wrong(value, param, " or ".join(f"'{choice}'" for choice in choices))
    return value


def _wrong(value: Any, param: str, wanted: str, *, code: str = "invalid_value") -> MessageError:
    what = _kind(value) if isinstance(value, dict | list) else shown(value)
    return MessageError(f"'{param}' is {what}; {wanted} is expected", code=code, param=param)


def _path(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8"
    return "it holds a number that is too long"


def _refuse_constant(name: str) -> float:
    raise MessageError(f"the message holds {name}, which is no JSON", code="invalid_json")


def _too_deep() -> MessageError:
    return MessageError(f"the message is nested more than {DEEPEST} deep; flatten it", code="invalid_json")


def _require_few_values(text: str | bytes) -> None:
    count = sum(text.count(sign) if isinstance(text, str) else text.count(sign.encode()) for sign in ",[{")
    if count > MOST_VALUES:
        raise MessageError(
            f"the message has {count} commas and opening brackets; at most {MOST_VALUES} are taken: send less at once",
            code="invalid_json",
        )


def _require_sane(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for one in level:
            for part in (*one.keys(), *one.values()) if isinstance(one, dict) else one:
                if isinstance(part, dict | list):
                    inner.append(part)
                else:
                    _require_sane_value(part)
        level = inner
        if not level:
            return
    raise _too_deep()


def _require_sane_value(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise MessageError("the message holds a number beyond all measure", code="invalid_json")
    if isinstance(value, str) and not value.isascii() and not is_unicode(value):
        raise MessageError(
            "the message holds half a character (a lone surrogate); send whole ones", code="invalid_json"
        )
