"""Streamed text: nothing lost, nothing longer than asked, nothing read before it is needed."""

import io
import os
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.playing import Seen

from inf_stream.base.errors import SourceError
from inf_stream.base.events import SourceNotice, TextArrived
from inf_stream.sources import open_text
from inf_stream.sources.text import Utf8Decoder, pieces

TEXT = st.text(st.sampled_from("ab \n\tä漢🎈\u2003"), max_size=200)


def cut_by_definition(text: str, characters: int) -> list[str]:
    """The same pieces, from the whole text at once."""
    found = []
    while len(text) > characters:
        spaces = [i for i in range(1, characters + 1) if text[i].isspace()]
        at = spaces[-1] if spaces else characters
        found.append(text[:at])
        text = text[at:]
    return [*found, text] if text else found


@given(TEXT, st.integers(1, 40), st.lists(st.integers(0, 200), max_size=5))
def test_pieces_do_not_depend_on_how_the_text_arrives(text: str, characters: int, cuts: list[int]):
    edges = [0, *sorted(cuts), len(text)]
    parts = [text[a:b] for a, b in pairwise(edges)]
    assert list(pieces(parts, characters)) == cut_by_definition(text, characters)


@given(TEXT, st.integers(1, 40))
def test_pieces_joined_are_the_text(text: str, characters: int):
    found = Seen(open_text(io.BytesIO(text.encode()), characters)).texts
    assert "".join(found) == text
    assert all(0 < len(piece) <= characters for piece in found)


def test_pieces_end_before_whitespace():
    assert list(pieces(["the quick brown fox"], 9)) == ["the quick", " brown", " fox"]


def test_word_longer_than_a_piece_is_cut():
    assert list(pieces(["incomprehensibilities"], 10)) == ["incomprehe", "nsibilitie", "s"]


def test_path_and_facts(tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text("once upon a time\r\nthere", newline="")
    for address in (path, str(path)):
        with open_text(address, 100) as source:
            assert source.describe() == f"text of {path}"
            assert not source.live
            assert source.duration_ns is None
            assert Seen(source).texts == ["once upon a time\r\nthere"]


def test_empty_text_has_no_pieces():
    assert Seen(open_text(io.BytesIO(b""))).events == []


def test_text_file_object():
    assert Seen(open_text(io.StringIO("hello world"), 8)).texts == ["hello", " world"]


def test_file_objects_stay_open(tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text("hello")
    with path.open("rb") as file:
        Seen(open_text(file))
        assert not file.closed


def test_times_are_since_the_first_piece():
    ticks = iter([700, 800, 1000])
    seen = Seen(open_text(io.BytesIO(b"aa bb cc"), 3, now_ns=lambda: next(ticks)))
    assert [e.at_ns for e in seen.events] == [0, 100, 300]


# ---- bytes that are not UTF-8 ----------------------------------------------------------------------


def test_bytes_that_are_not_utf8_are_replaced_with_one_notice():
    seen = Seen(open_text(io.BytesIO(b"good \xff bad \xfe\xfd end"), 6))
    assert "".join(seen.texts) == "good \ufffd bad \ufffd\ufffd end"
    assert len(seen.notices) == 1
    assert "from byte 5 on" in seen.notices[0]
    assert isinstance(seen.events[0], SourceNotice)


def test_text_that_ends_within_a_character():
    seen = Seen(open_text(io.BytesIO("aä".encode()[:-1]), 6))
    assert seen.texts == ["a\ufffd"]
    assert len(seen.notices) == 1


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_decoding_in_parts_equals_decoding_at_once(data: bytes, cuts: list[int]):
    decoder = Utf8Decoder()
    edges = [0, *sorted(cuts), len(data)]
    parts = [data[a:b] for a, b in pairwise(edges)]
    text = "".join(decoder.decode(part) for part in parts if part) + decoder.decode(b"")
    assert text == data.decode("utf-8", "replace")
    damaged_at = first_damage(data)
    assert decoder.damaged_at == damaged_at
    assert [decoder.new_damage(), decoder.new_damage()] == [damaged_at is not None, False]


def first_damage(data: bytes) -> int | None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None


def test_other_encodings_are_survived():
    seen = Seen(open_text(io.BytesIO("ein Über-Text".encode("utf-16")), 100))
    assert len(seen.notices) == 1


# ---- laziness --------------------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """A file without end that counts what was read of it."""

    def __init__(self) -> None:
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.bytes_read += size
        return b"word " * (size // 5)


def test_endless_text_is_read_as_it_is_needed():
    endless = Endless()
    source = open_text(endless, 100)
    taken = [next(source) for _ in range(2000)]
    assert all(isinstance(e, TextArrived) and len(e.text) <= 100 for e in taken)
    assert endless.bytes_read < 2000 * 100 + (1 << 17)


def test_close_stops_and_lets_go_of_the_file(tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text("hello world")
    source = open_text(path, 5)
    next(source)
    source.close()
    assert list(source) == []
    with pytest.raises(ValueError, match="closed"):
        source._file.read()


def test_close_before_reading_lets_go_of_the_file(tmp_path: Path):
    path = tmp_path / "book.txt"
    path.write_text("hello world")
    source = open_text(path, 5)
    source.close()
    assert list(source) == []
    assert source._file.closed


# ---- pipes -----------------------------------------------------------------------------------------


def test_pipe_is_read_while_it_is_written():
    reading, writing = os.pipe()
    with open(reading, "rb") as file, open_text(file, 5) as source:  # noqa: PTH123
        os.write(writing, b"aaaa bbbb ")
        assert next(source) == TextArrived("aaaa", 0)
        os.write(writing, b"cccc")
        os.close(writing)
        assert Seen(source).texts == [" bbbb", " cccc"]


def test_close_ends_a_read_that_waits_for_a_pipe():
    reading, writing = os.pipe()
    ended = threading.Event()
    with open(reading, "rb") as file:  # noqa: PTH123
        source = open_text(file)
        waiter = threading.Thread(target=lambda: (Seen(source), ended.set()))
        waiter.start()
        source.close()
        assert ended.wait(10)
        waiter.join()
        os.close(writing)
        pump = source._pump
        assert pump is None or pump.join(10)


def test_standard_input_can_be_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"hello")), "utf-8"))
    assert Seen(open_text(sys.stdin.buffer)).texts == ["hello"]


# ---- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_bad_bytes_of_standard_input_are_replaced_however_python_opened_it(errors: str):
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"caf\xe9\r\nau lait")), "utf-8", errors)
    seen = Seen(open_text(stdin))
    assert "".join(seen.texts) == "caf\ufffd\r\nau lait"
    assert "from byte 3 on" in seen.notices[0]


def test_text_opened_in_another_encoding_keeps_it():
    assert Seen(open_text(io.TextIOWrapper(io.BytesIO(b"caf\xe9"), "latin-1"))).texts == ["caf\u00e9"]


def test_text_that_is_not_in_its_encoding_is_refused():
    with pytest.raises(SourceError, match="cannot be read any further"):
        Seen(open_text(io.TextIOWrapper(io.BytesIO(b"caf\xe9"), "ascii")))


def test_missing_text(tmp_path: Path):
    with pytest.raises(SourceError, match="cannot be opened: No such file"):
        open_text(tmp_path / "nowhere.txt")


def test_folder_is_no_text(tmp_path: Path):
    with pytest.raises(SourceError, match="cannot be opened: Is a directory"):
        open_text(tmp_path)


def test_name_with_a_zero_byte():
    with pytest.raises(SourceError, match="cannot be opened"):
        open_text("a\0b")


def test_read_that_fails_in_the_middle():
    class Broken(Endless):
        def read(self, size: int = -1) -> bytes:
            if self.bytes_read:
                raise OSError(5, "Input/output error")
            return super().read(size)

    source = open_text(Broken(), 1 << 15)
    assert isinstance(next(source), TextArrived)
    with pytest.raises(SourceError, match="cannot be read any further: Input/output error"):
        list(source)
