from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.command_line import run

from inf_stream.app import demo
from inf_stream.app.demo import CLIP, CLIP_QUESTIONS, STOPS, BookStream, Stop, book
from inf_stream.base.config import SourceSettings
from inf_stream.base.events import FrameArrived, QuestionAsked, TextArrived
from inf_stream.sources import open_source


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
    stream = BookStream("one two three four", [Stop("two", "A?"), Stop("three", "B?")])
    events = list(stream)
    stream.close()
    told = [e.text if isinstance(e, TextArrived) else e.question.text for e in events if not isinstance(e, str)]
    assert told == ["one two", "A?", " three", "B?", " four"]
    assert all(e.in_order for e in events if isinstance(e, QuestionAsked))
    read = "".join(e.text for e in BookStream(book(), STOPS) if isinstance(e, TextArrived))
    assert read == book()


def test_the_clip_is_shipped_and_long_enough_for_its_questions() -> None:
    path = Path(str(files("inf_stream.app") / "data" / CLIP))
    assert path.stat().st_size < 3e6
    with open_source(str(path), SourceSettings()) as source:
        frames = [e.frame for e in source if isinstance(e, FrameArrived)]
    assert len(frames) == 60
    times = [q.at_ns for q in CLIP_QUESTIONS if q.at_ns is not None]
    assert times == sorted(times)
    assert times[-1] <= frames[-1].at_ns
    assert CLIP in (path.parent / "SOURCES.md").read_text(encoding="utf-8")


@pytest.mark.weights
def test_the_demo_watches_a_clip(capsys: pytest.CaptureFixture[str], tmp_path: Path, smollm2_file: Path) -> None:
    ran = run(capsys, "demo", "--memory-map", tmp_path / "m.png", "--threads", 1)
    assert ran.status == 0
    answers = [line for line in ran.out.splitlines() if line.startswith("[")]
    assert len(answers) == len(CLIP_QUESTIONS)
    assert "60 seconds of video" in ran.out
    assert "MiB never grew" in ran.out
    assert (tmp_path / "m.png").is_file()


@pytest.mark.weights
def test_the_model_of_the_demo_sees_what_a_picture_holds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, smollm2_file: Path
) -> None:
    """Through everything the runtime does with a picture: size, order of colours, scale, time text, turns."""
    picture = np.full((256, 256, 3), 128, np.uint8)
    red_bgr = (40, 40, 214)
    cv2.circle(picture, (150, 110), 34, red_bgr, -1, cv2.LINE_AA)
    cv2.imwrite(str(tmp_path / "one.png"), picture)
    ran = run(capsys, "ask", tmp_path, "What do you see?", "--threads", 1)
    assert ran.out == "[00:00] A red circle.\n"


@pytest.mark.weights
def test_the_demo_reads_a_book_to_a_model_that_sees_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2_file: Path
) -> None:
    start = book()[:4000]
    monkeypatch.setattr(demo, "book", lambda: start)
    monkeypatch.setattr(demo, "STOPS", STOPS[:1])
    ran = run(capsys, "demo", "--model", "smollm2-135m", "--memory-map", tmp_path / "m.png", "--threads", 1)
    assert ran.status == 0
    assert "Ishmael" in ran.out
    assert "which reads text only" in ran.out
    assert "MiB never grew" in ran.out
    assert "236 tokens seen" in ran.err
    assert (tmp_path / "m.png").is_file()
