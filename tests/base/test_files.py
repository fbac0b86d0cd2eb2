from pathlib import Path

import pytest

from inf_stream.base.errors import ConfigError
from inf_stream.base.files import is_unicode, read_text


def test_text_without_the_mark_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read_text(tmp_path / "a.txt", "notes", 100) == "one\ntwo\nthree\n"


def test_a_file_may_be_just_as_long_as_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("12345")
    assert read_text(path, "notes", 5) == "12345"
    with pytest.raises(ConfigError, match=r"^notes '.*a.txt' has more than 4 bytes; give a shorter file$"):
        read_text(path, "notes", 4)


@pytest.mark.parametrize(("name", "message"), [("no.txt", "No such file"), (".", "Is a directory")])
def test_what_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^notes '.*' cannot be read: {message}"):
        read_text(tmp_path / name, "notes", 100)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_text(tmp_path / "a.txt", "notes", 100)


@pytest.mark.parametrize(("text", "can_be_written"), [("Grüße 🌊", True), ("", True), ("\udcff", False)])
def test_lone_surrogates_cannot_be_written(text: str, can_be_written: bool) -> None:
    assert is_unicode(text) is can_be_written
