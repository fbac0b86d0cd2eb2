import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.app.questions import MOST_CHARACTERS, PlannedQuestion, load_questions, plan_questions
from inf_stream.base.clock import NS_PER_S
from inf_stream.base.errors import ConfigError


def file_of(folder: Path, *lines: Any) -> Path:
    path = folder / "q.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_question_alone_is_asked_at_the_end() -> None:
    assert plan_questions("What?", (), None) == (PlannedQuestion("What?"),)


def test_a_question_is_asked_at_each_time_in_order() -> None:
    planned = plan_questions(" What? ", ("1:30", "0:10"), None)
    assert planned == (PlannedQuestion("What?", 10 * NS_PER_S), PlannedQuestion("What?", 90 * NS_PER_S))


def test_nothing_asked_is_no_plan() -> None:
    assert plan_questions(None, (), None) == ()


def test_a_file_and_a_question_join_with_the_question_last(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"at_s": 5, "text": "b"}, "", {"at_s": "0:02", "text": "a", "max_tokens": 4})
    planned = plan_questions("end?", (), path)
    assert planned == (
        PlannedQuestion("a", 2 * NS_PER_S, 4),
        PlannedQuestion("b", 5 * NS_PER_S),
        PlannedQuestion("end?"),
    )


def test_at_without_a_question_is_refused() -> None:
    with pytest.raises(ConfigError, match="--at 5 says when, but no question is given"):
        plan_questions(None, ("5",), None)


@pytest.mark.parametrize("at", ["x", "-5", "1:99", ""])
def test_a_malformed_time_names_its_flag(at: str) -> None:
    with pytest.raises(ConfigError, match="--at: time"):
        plan_questions("q", (at,), None)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_question_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the question is empty"):
        plan_questions(text, (), None)


def test_a_huge_question_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"at most {MOST_CHARACTERS}, shorten it"):
        plan_questions("x" * (MOST_CHARACTERS + 1), (), None)


GOOD = {"at_s": 1, "text": "ok"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{at_s: 1}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([GOOD], "holds a list"),
        (3, "holds a int"),
        ({"text": "a"}, 'has no "at_s"'),
        ({"at_s": 1}, 'has no "text"'),
        ({"at_s": -1, "text": "a"}, '"at_s" in .* is -1; seconds from 0'),
        ('{"at_s": NaN, "text": "a"}', '"at_s" in .* is nan'),
        ({"at_s": 1e12, "text": "a"}, "seconds from 0"),
        ({"at_s": True, "text": "a"}, "is True; seconds"),
        ({"at_s": None, "text": "a"}, "is None; seconds"),
        ({"at_s": "soon", "text": "a"}, "time 'soon' is not understood"),
        ({"at_s": 1, "text": 5}, '"text" in .* is 5; a text is expected'),
        ({"at_s": 1, "text": ["x" * 100]}, "a text is expected"),
        ({"at_s": 1, "text": " "}, "is empty"),
        ({"at_s": 1, "text": "a", "max_token": 3}, "unknown key 'max_token'; did you mean 'max_tokens'"),
        ({"at_s": 1, "text": "a", "max_tokens": 0}, "1 to 65536 are allowed"),
        ({"at_s": 1, "text": "a", "max_tokens": "9"}, "1 to 65536 are allowed"),
        ({"at_s": 1, "text": "a", "max_tokens": True}, "1 to 65536 are allowed"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(line: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_questions(file_of(tmp_path, GOOD, line))
    assert "line 2" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_questions(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_questions(tmp_path)
    with pytest.raises(ConfigError, match="is empty; write lines like"):
        load_questions(file_of(tmp_path, "", " "))
    binary = tmp_path / "b.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_questions(binary)


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 29)
    with pytest.raises(ConfigError, match="has more than 67108864 bytes"):
        load_questions(path)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.text(min_size=1).filter(str.strip)), min_size=1, max_size=8))
def test_what_is_written_as_json_is_read_back(lines: list[tuple[float, str]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = load_questions(file_of(Path(folder), *({"at_s": s, "text": t} for s, t in lines)))
    assert [q.text for q in found] == [t.strip() for _, t in lines]
    assert [q.at_ns for q in found] == [round(s * NS_PER_S) for s, _ in lines]
