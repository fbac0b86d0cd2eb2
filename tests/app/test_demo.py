from pathlib import Path

import pytest
from support.command_line import run

from inf_stream.app import demo
from inf_stream.app.demo import STOPS, DemoStream, Stop, book
from inf_stream.base.events import QuestionAsked, TextArrived


def test_the_book_is_shipped_clean() -> None:
    text = book()
    assert text.startswith("CHAPTER 1. Loomings.\n\nCall me Ishmael.")
    assert text.count("CHAPTER ") == 14
    assert text.isascii()
    assert 120_000 < len(text) < 160_000
    assert "Gutenberg" not in text


def test_every_stop_is_found_behind_the_one_before() -> None:
    text = book()
    places = []
    for stop in STOPS:
        assert text.count(stop.after) == 1
        places.append(text.index(stop.after))
    assert places == sorted(places)


def test_the_stream_is_the_whole_book_with_questions_in_their_places() -> None:
    stream = DemoStream("one two three four", [Stop("two", "A?"), Stop("three", "B?")])
    events = list(stream)
    stream.close()
    told = [e.text if isinstance(e, TextArrived) else e.question.text for e in events if not isinstance(e, str)]
    assert told == ["one two", "A?", " three", "B?", " four"]
    assert all(e.in_order for e in events if isinstance(e, QuestionAsked))
    read = "".join(e.text for e in DemoStream(book(), STOPS) if isinstance(e, TextArrived))
    assert read == book()


@pytest.mark.weights
def test_the_demo_answers_about_the_page_just_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2_file: Path
) -> None:
    start = book()[:4000]
    monkeypatch.setattr(demo, "book", lambda: start)
    monkeypatch.setattr(demo, "STOPS", STOPS[:1])
    ran = run(capsys, "demo", "--memory-map", tmp_path / "m.png", "--threads", 1)
    assert ran.status == 0
    assert "Ishmael" in ran.out
    assert "This is a small text model" in ran.out
    assert "MiB never grew" in ran.out
    assert "236 tokens seen" in ran.err
    assert (tmp_path / "m.png").is_file()
