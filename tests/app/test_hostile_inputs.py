"""Input that is out to break the command line rather than merely wrong."""

import io
import json
import sys
from pathlib import Path

import pytest
from support.command_line import run

from inf_stream.app.questions import MOST_CHARACTERS, load_questions
from inf_stream.base.config import load_settings, settings_from_mapping
from inf_stream.base.errors import ConfigError
from inf_stream.models.weights.checkpoint import local_path

DIGITS = "9" * 5000


def questions(folder: Path, data: bytes) -> Path:
    path = folder / "q.jsonl"
    path.write_bytes(data)
    return path


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    ran = run(capsys, *words)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
    return ran.err


# ---- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_byte_order_mark_and_any_line_ends_are_read(tmp_path: Path, end: bytes) -> None:
    lines = [b"\xef\xbb\xbf" + b'{"at_s": 1, "text": "a"}', b'{"at_s": 2, "text": "b"}', b""]
    assert [q.text for q in load_questions(questions(tmp_path, end.join(lines)))] == ["a", "b"]


def test_a_line_separator_within_a_question_ends_no_line(tmp_path: Path) -> None:
    data = json.dumps({"at_s": 1, "text": "a\u2028b\x85c"}, ensure_ascii=False).encode()
    assert load_questions(questions(tmp_path, data))[0].text == "a\u2028b\x85c"


def test_a_lone_surrogate_in_a_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 1 is 'a \\ud800', which holds bytes that are no text"):
        load_questions(questions(tmp_path, b'{"at_s": 1, "text": "a \\ud800"}'))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
@pytest.mark.parametrize(("flag", "limit"), [("--questions", 1 << 26), ("--config", 1 << 20)])
def test_an_endless_file_is_refused(capsys: pytest.CaptureFixture[str], flag: str, limit: int) -> None:
    assert f"'/dev/zero' has more than {limit} bytes" in refused(capsys, "ask", "a.mp4", "What?", flag, "/dev/zero")


@pytest.mark.parametrize("text", [f"a = {DIGITS}", "a = " + "[" * 100_000])
def test_toml_that_breaks_its_reader_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_settings(path)


def test_a_configuration_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbf[cache]\r\nbudget_tokens = 99\r\n")
    assert load_settings(path).cache.budget_tokens == 99


# ---- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [DIGITS, "0x" + "f" * 5000, "[" * 100_000, "[0x" + "f" * 5000 + "]", "9\nb = 2"])
@pytest.mark.parametrize("key", ["cache.budget_tokens", "source.fps", "policy.sinks"])
def test_no_value_of_set_breaks_its_reader(
    capsys: pytest.CaptureFixture[str], pictures: Path, key: str, value: str
) -> None:
    assert key in refused(capsys, "ask", pictures, "What?", "--set", f"{key}={value}")


def test_settings_that_are_no_unicode_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.system_prompt is '\\udcff', which holds bytes that are no text"):
        settings_from_mapping({"model": {"system_prompt": "\udcff"}})


def test_a_question_that_is_no_unicode_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "the question is 'a\\udcff', which holds" in refused(capsys, "ask", "a.mp4", "a\udcff")


@pytest.mark.parametrize("name", ["a" * 5000, "~nobody-of-that-name/model"])
def test_a_model_name_that_no_file_could_have_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert "cannot be looked up" in refused(capsys, "chat", "--model", name)


def test_a_video_name_that_no_file_could_have_is_refused(capsys: pytest.CaptureFixture[str], seeing: Path) -> None:
    assert "cannot be opened" in refused(capsys, "ask", "a" * 5000, "What?", "--model", seeing)


def test_a_model_that_is_a_path_is_that_path(tmp_path: Path) -> None:
    assert local_path(str(tmp_path)) == tmp_path


def test_a_time_text_cannot_fill_the_memory(capsys: pytest.CaptureFixture[str], seeing: Path, pictures: Path) -> None:
    words = ("--time-format", "{seconds:999999999}", "--model", seeing)
    assert "widths up to 999" in refused(capsys, "ask", pictures, "What?", *words)


# ---- standard streams ------------------------------------------------------------------------------


def chat(capsys: pytest.CaptureFixture[str], model: Path) -> str:
    ran = run(capsys, "chat", "--model", model, "--budget", 64, "--max-tokens", 2, "--json")
    assert ran.status == 0
    return ran.out + ran.err


def test_bytes_that_are_no_text_do_not_hang_a_conversation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff?\nWho?\n"), encoding="utf-8"))
    assert '"question": "\ufffd?"' in chat(capsys, reading)


def test_a_line_without_end_is_refused_and_the_next_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * (3 * MOST_CHARACTERS) + "\nWho?\n"))
    shown = chat(capsys, reading)
    assert f"more than {MOST_CHARACTERS} characters; shorten it" in shown
    assert shown.count('"type": "answer"') == 1


def test_a_closed_standard_input_is_an_empty_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert '"type": "answer"' not in chat(capsys, reading)
    sys.stdin.close()
