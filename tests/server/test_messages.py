"""JSON from strangers."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.server.protocols.messages import (
    DEEPEST,
    MOST_VALUES,
    MessageError,
    as_count,
    as_flag,
    as_list,
    as_number,
    as_object,
    as_text,
    parse_object,
    required,
)


def nested(depth: int, kind: str = "[") -> str:
    """An object with that many things inside each other, itself included."""
    inner = depth - 1
    return '{"a":' + ("[" * inner + "]" * inner if kind == "[" else '{"a":' * inner + "1" + "}" * inner) + "}"


def test_an_object_is_read() -> None:
    assert parse_object('{"a": [1, 2.5, "x", null, true]}') == {"a": [1, 2.5, "x", None, True]}
    assert parse_object(b'{"a": "\xc3\xa9"}') == {"a": "é"}
    assert parse_object(nested(DEEPEST)) is not None
    many = [0] * (MOST_VALUES - 1)
    for text in (json.dumps({"a": many}), json.dumps({"a": many}).encode()):
        assert parse_object(text) == {"a": many}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        ('{"a": 1} {"b": 2}', "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"\x00\x01", "is not JSON"),
        ("[]", "a list"),
        ('"text"', "a text"),
        ("5", "a number"),
        ("null", "null"),
        ("true", "true or false"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "beyond all measure"),
        ('{"a": [-1e999]}', "beyond all measure"),
        ('{"a": ' + "9" * 5000 + "}", "number that is too long"),
        (r'{"a": "\ud800"}', "half a character"),
        (r'{"a": [{"\udc00": 1}]}', "half a character"),
        (nested(DEEPEST + 1), "nested"),
        (nested(DEEPEST + 1, "{"), "nested"),
        ("[" * 50_000, "nested"),
        ('{"a":' * 50_000, "nested"),
        ('{"a": [' + "1," * MOST_VALUES + "1]}", "65538 commas and opening brackets; at most 65536"),
        (b'{"a": [' + b"{}," * MOST_VALUES + b"1]}", "commas and opening brackets"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str | bytes, words: str) -> None:
    with pytest.raises(MessageError, match=words) as refused:
        parse_object(text)
    assert refused.value.code == "invalid_json"
    assert len(str(refused.value)) < 200


@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps)))
def test_nothing_else_is_ever_raised(data: str | bytes) -> None:
    with contextlib.suppress(MessageError):
        assert isinstance(parse_object(data), dict)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (lambda v: as_text(v, "p", most=3), ["", "abc", "é"], ["abcd", 5, None, [], True]),
        (lambda v: as_number(v, "p", 0, 5), [0, 5, 2.5], [-1, 5.1, True, "1", None, 10**400, float("nan")]),
        (lambda v: as_count(v, "p", 1, 5), [1, 5], [0, 6, 1.0, True, "1", 10**400]),
        (lambda v: as_flag(v, "p"), [True, False], [0, 1, "true", None]),
        (lambda v: as_list(v, "p", most=2), [[], [1, 2]], [[1, 2, 3], {}, "ab", None]),
        (lambda v: as_object(v, "p"), [{}, {"a": 1}], [[], "a", None]),
    ],
)
def test_fields_are_what_they_should_be(check: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert check(value) == value
    for value in bad:
        with pytest.raises(MessageError) as refused:
            check(value)
        assert refused.value.param == "p"
        assert len(str(refused.value)) < 300, "an error does not send everything back"


def test_a_missing_field_is_named_with_its_place() -> None:
    assert required({"a": 0}, "a") == 0
    for values in ({}, {"a": None}):
        with pytest.raises(MessageError, match=r"'x\.a' is missing"):
            required(values, "a", "x")
