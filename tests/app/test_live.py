import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from support.command_line import Ran, run

from inf_stream.app import ask, chat, videos
from inf_stream.base.clock import NS_PER_S
from inf_stream.base.events import Frame, FrameArrived
from inf_stream.engine.engine import Engine
from inf_stream.engine.protocol import AnswerStep
from inf_stream.sources import Source, SourceEvent

SMALL = ("--device", "cpu", "--dtype", "float32", "--budget", 64, "--max-tokens", 4, "--set", "cache.chunk_tokens=64")


class Camera(Source):
    """Gives `frames` frames and then nothing until it is closed."""

    live = True

    def __init__(self, frames: int):
        self._frames, self._next = frames, 0
        self._closed = threading.Event()

    def describe(self) -> str:
        return "the camera"

    def __next__(self) -> SourceEvent:
        if self._next == self._frames:
            self._closed.wait(60)
        if self._closed.is_set():
            raise StopIteration
        frame = Frame(np.zeros((24, 24, 3), np.uint8), self._next * NS_PER_S, self._next)
        self._next += 1
        return FrameArrived(frame)

    def close(self) -> None:
        self._closed.set()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "open_source", lambda *_: Camera(3))


def watch(capsys: pytest.CaptureFixture[str], seeing: Path, *words: object) -> Ran:
    return run(capsys, "ask", "camera:0", "What?", "--model", seeing, *SMALL, *words)


def test_an_interrupt_ends_a_live_stream_and_its_question_is_answered(
    capsys: pytest.CaptureFixture[str], seeing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Engine.ingest_frames

    def watching(self: Engine, frames: object) -> None:
        taken(self, frames)  # type: ignore[arg-type]
        if self.stats()["frames"] == 3:
            interrupt()

    monkeypatch.setattr(Engine, "ingest_frames", watching)
    ran = watch(capsys, seeing, "--json")
    assert ran.status == 130
    assert [(a["at_s"], a["stats"]["frames"]) for a in ran.answers] == [(2, 3)]
    notes = [a["message"] for a in ran.asides if a["type"] == "note"]
    assert notes == [
        "the end of this stream is not known: the question is asked when it comes, or when you press Ctrl-C; "
        "--at TIME or --duration TIME asks it earlier",
        "ending the stream; press Ctrl-C again to stop at once",
    ]


def test_an_interrupt_of_the_last_answer_stops_it_at_once(
    capsys: pytest.CaptureFixture[str], seeing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no stream left to end."""
    decoded: list[int] = []

    def decoding(self: Engine) -> AnswerStep:
        decoded.append(1)
        if len(decoded) == 2:
            interrupt()
        return AnswerStep("x")

    monkeypatch.setattr(Engine, "step_answer", decoding)
    ran = watch(capsys, seeing, "--json", "--duration", "2.5", "--set", "source.connect_timeout_s=0.1")
    assert ran.status == 130
    assert [a["stats"]["finished"] for a in ran.answers] == ["cancelled"]
    assert "press Ctrl-C again" not in ran.err


def test_a_second_interrupt_stops_at_once(
    capsys: pytest.CaptureFixture[str], seeing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Engine.ingest_frames
    stopping = threading.Event()

    def watching(self: Engine, frames: object) -> None:
        taken(self, frames)  # type: ignore[arg-type]
        if self.stats()["frames"] == 3:
            interrupt()

    def decoding(self: Engine) -> AnswerStep:
        if not stopping.is_set():
            stopping.set()
            interrupt()
        return AnswerStep("x")

    monkeypatch.setattr(Engine, "ingest_frames", watching)
    monkeypatch.setattr(Engine, "step_answer", decoding)
    ran = watch(capsys, seeing, "--json")
    assert ran.status == 130
    assert [a["stats"]["finished"] for a in ran.answers] == ["cancelled"]


def test_a_duration_ends_a_camera_that_has_fallen_silent(capsys: pytest.CaptureFixture[str], seeing: Path) -> None:
    ran = watch(capsys, seeing, "--json", "--duration", "2.5", "--set", "source.connect_timeout_s=0.1")
    assert ran.status == 0
    assert [a["at_s"] for a in ran.answers] == [2]
    assert not [a for a in ran.asides if a["type"] == "note"]


def test_a_live_question_with_a_time_goes_first_and_needs_no_note(
    capsys: pytest.CaptureFixture[str], seeing: Path
) -> None:
    ran = watch(capsys, seeing, "--at", "1", "--json")
    assert ran.status == 0
    assert [a["at_s"] for a in ran.answers] == [1]
    assert not [a for a in ran.asides if a["type"] == "note"]


def test_a_loop_of_something_live_is_refused(capsys: pytest.CaptureFixture[str], seeing: Path) -> None:
    ran = watch(capsys, seeing, "--loop")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "is live and cannot be repeated" in ran.err


def test_an_interrupt_leaves_a_chat_beside_a_camera(
    capsys: pytest.CaptureFixture[str], seeing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    class Silent:
        def isatty(self) -> bool:
            return True

        def readline(self, limit: int) -> str:
            over.wait(60)
            return ""

    taken = Engine.ingest_frames

    def watching(self: Engine, frames: object) -> None:
        taken(self, frames)  # type: ignore[arg-type]
        interrupt()

    monkeypatch.setattr(Engine, "ingest_frames", watching)
    monkeypatch.setattr(chat.sys, "stdin", Silent())
    ran = run(capsys, "chat", "--video", "camera:0", "--model", seeing, *SMALL)
    over.set()
    assert ran.status == 130
    assert "ask anything" in ran.err
    assert "> " in ran.err


def test_a_model_found_blind_only_when_loaded_is_refused(
    capsys: pytest.CaptureFixture[str], reading: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "check_model", lambda *_, **__: None)
    ran = watch(capsys, reading, "--record", tmp_path / "r")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "reads text only and cannot see video" in ran.err
    assert not (tmp_path / "r").exists(), "so that the next try may record there"
