import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import Ran, run

from inf_stream.engine.engine import Engine

SMALL = ("--device", "cpu", "--dtype", "float32", "--budget", 64, "--max-tokens", 4, "--set", "cache.chunk_tokens=64")


class Piped:
    """Standard input that is a pipe."""

    def __init__(self, text: str):
        self.buffer = io.BytesIO(text.encode())
        self._lines = io.StringIO(text)

    def isatty(self) -> bool:
        return False

    def readline(self, limit: int) -> str:
        return self._lines.readline(limit)


def chat(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str, model: Path, *words: object
) -> Ran:
    monkeypatch.setattr(sys, "stdin", Piped(typed))
    return run(capsys, "chat", "--model", model, *SMALL, *words)


# ---- a text that is piped in -----------------------------------------------------------------------


def test_piped_text_is_the_stream_and_then_come_the_questions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path
) -> None:
    book = "The sea is wide. " * 200
    ran = chat(capsys, monkeypatch, book, reading, "--then", "Who?", "--then", "Where?", "--json")
    assert ran.status == 0
    assert [(a["at_s"], a["question"]) for a in ran.answers] == [(0, "Who?"), (0, "Where?")]
    stats = ran.answers[0]["stats"]
    assert stats["characters"] == len(book)
    assert stats["tokens_seen"] >= len(book)
    assert stats["tokens_kept"] < 200
    assert sum(a["characters"] for a in ran.asides if a["type"] == "text") == len(book)
    assert max(a["characters"] for a in ran.asides if a["type"] == "text") <= 4 * 64


def test_piped_text_for_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path, tmp_path: Path
) -> None:
    words = ("--then", "Who?", "--stats", "--memory-map", tmp_path / "m.png")
    ran = chat(capsys, monkeypatch, "The sea is wide. " * 100, reading, *words)
    assert ran.out.startswith("[1,700 characters] ")
    assert "characters/s" in ran.err
    assert "memory map" in ran.err
    assert (tmp_path / "m.png").is_file()


def test_piped_text_can_be_recorded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path, tmp_path: Path
) -> None:
    words = ("--then", "Who?", "--json", "--record", tmp_path / "r")
    ran = chat(capsys, monkeypatch, "The sea is wide. " * 50, reading, *words)
    again = run(capsys, "ask", tmp_path / "r", "--json")
    assert [a["text"] for a in again.answers] == [a["text"] for a in ran.answers] != []
    assert not [aside for aside in again.asides if aside["type"] == "warning"]

    events = tmp_path / "r" / "events.jsonl"
    events.write_bytes(b"".join(events.read_bytes().splitlines(keepends=True)[:-1]))  # as after kill -9
    cut_off = run(capsys, "ask", tmp_path / "r", "--json")
    assert [a["text"] for a in cut_off.answers] == [a["text"] for a in ran.answers]
    (warning,) = [aside["message"] for aside in cut_off.asides if aside["type"] == "warning"]
    assert "ends without its end mark" in warning


def test_a_pipe_that_holds_nothing_is_answered_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path
) -> None:
    ran = chat(capsys, monkeypatch, "", reading, "--then", "Who?")
    assert ran.status == 0
    assert "nothing was piped in" in ran.err


def test_then_without_a_pipe_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path
) -> None:
    class Terminal(Piped):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(""))
    ran = run(capsys, "chat", "--model", reading, "--then", "Who?")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "cat book.txt | inf-stream chat --then" in ran.err


def test_an_interrupt_ends_a_text_without_an_end_and_the_question_is_asked(reading: Path) -> None:
    words = ["chat", "--then", "Who?", "--json", "--model", reading, *SMALL, "--threads", 1]
    with subprocess.Popen(
        [sys.executable, "-m", "inf_stream", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"The sea is wide. " * 200)
        process.stdin.flush()
        assert b"asked at its end, or when you press Ctrl-C" in process.stderr.readline()
        assert json.loads(process.stderr.readline())["type"] == "text"
        process.send_signal(signal.SIGINT)
        answers = process.stdout.read() if process.stdout is not None else b""
        assert process.wait(60) == 130
    assert [json.loads(line)["question"] for line in answers.splitlines()] == ["Who?"]


# ---- lines as questions ----------------------------------------------------------------------------


def test_piped_lines_are_questions_asked_one_after_the_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path
) -> None:
    ran = chat(capsys, monkeypatch, "Who?\n\n  \nWhere?\n", reading, "--json")
    assert ran.status == 0
    assert [a["question"] for a in ran.answers] == ["Who?", "Where?"]
    assert ran.answers[0]["stats"]["tokens_seen"] < ran.answers[1]["stats"]["tokens_seen"]
    assert "each line is a question" in ran.asides[0]["message"]


def test_quit_leaves_what_follows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path
) -> None:
    ran = chat(capsys, monkeypatch, "Who?\n/quit\nWhere?\n", reading, "--json")
    assert (ran.status, [a["question"] for a in ran.answers]) == (0, ["Who?"])


def test_orders(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = "Who?\n/stats\n/map m.png\n/map no/m.png\n/map\n/cancel\n/help\n/sing\n"
    ran = chat(capsys, monkeypatch, typed, reading)
    assert ran.out.count("\n") >= 1
    assert not ran.out.startswith("[")
    lines = ran.err.splitlines()[1:]
    assert "tokens seen" in lines[0]
    assert lines[1] == "memory map: m.png"
    assert "does not exist" in lines[2]
    assert lines[3] == "memory map: memory-map.png"
    assert lines[4] == "nothing is being answered"
    assert lines[5].startswith("/stats shows numbers")
    assert lines[6].startswith("'/sing' is not an order; /stats")
    assert (tmp_path / "m.png").is_file()


def test_an_aside_of_a_chat_is_not_remembered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reading: Path
) -> None:
    with_aside = chat(capsys, monkeypatch, "Who?\n/aside Where?\n/aside\nWhen?\n", reading, "--json")
    without = chat(capsys, monkeypatch, "Who?\nWhen?\n", reading, "--json")
    assert [a["question"] for a in with_aside.answers] == ["Who?", "Where?", "When?"]
    assert with_aside.answers[2]["text"] == without.answers[1]["text"]
    assert with_aside.answers[2]["stats"]["tokens_seen"] == without.answers[1]["stats"]["tokens_seen"]
    assert "/aside needs a QUESTION behind it" in with_aside.err


def test_a_video_runs_beside(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seeing: Path, pictures: Path
) -> None:
    class Patient(Piped):
        """Types once the video has been seen."""

        def readline(self, limit: int) -> str:
            return super().readline(limit) if seen.wait(60) else ""

    seen = threading.Event()
    taken = Engine.ingest_frames

    def watching(self: Engine, frames: object) -> None:
        taken(self, frames)  # type: ignore[arg-type]
        if self.stats()["frames"] == 6:
            seen.set()

    monkeypatch.setattr(Engine, "ingest_frames", watching)
    monkeypatch.setattr(sys, "stdin", Patient("What?\n"))
    ran = run(capsys, "chat", "--model", seeing, "--video", pictures, "--fps", 100, "--json", *SMALL)
    assert ran.status == 0
    assert ran.answers[0]["stats"]["frames"] == 6
    assert 0 < ran.answers[0]["at_s"] <= 0.05


class Silent(Piped):
    """Somebody who types nothing until it is `over`."""

    def __init__(self, over: threading.Event):
        super().__init__("")
        self._over = over

    def readline(self, limit: int) -> str:
        self._over.wait(60)
        return ""


def test_a_video_that_breaks_off_does_not_end_the_conversation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seeing: Path, pictures: Path
) -> None:
    from inf_stream.base.errors import SourceError
    from inf_stream.sources.images import ImagesSource

    def broken(self: ImagesSource) -> None:
        raise SourceError("the cable was pulled")

    monkeypatch.setattr(ImagesSource, "__next__", broken)
    ran = chat(capsys, monkeypatch, "What?\n", seeing, "--video", pictures)
    assert ran.status == 0
    assert ran.out != ""


def test_a_bug_in_the_video_reaches_the_user(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seeing: Path, pictures: Path
) -> None:
    from inf_stream.sources.images import ImagesSource

    def broken(self: ImagesSource) -> None:
        raise ZeroDivisionError("of all things")

    over = threading.Event()
    monkeypatch.setattr(ImagesSource, "__next__", broken)
    monkeypatch.setattr(sys, "stdin", Silent(over))
    with pytest.raises(ZeroDivisionError, match="of all things"):
        run(capsys, "chat", "--model", seeing, "--video", pictures, *SMALL)
    assert not over.is_set()
    over.set()


def test_the_first_frame_that_does_not_fit_ends_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seeing: Path, pictures: Path
) -> None:
    over = threading.Event()
    monkeypatch.setattr(sys, "stdin", Silent(over))
    words = ("--video", pictures, "--fps", 100, "--budget", 32, "--set", "policy.sinks=20")
    ran = run(capsys, "chat", "--model", seeing, *SMALL, *words)
    over.set()
    assert ran.status == 2
    assert "a frame has" in ran.err.splitlines()[-1]


# ---- at a real terminal ----------------------------------------------------------------------------


class Terminal:
    """`inf-stream chat` on a pseudo-terminal."""

    def __init__(self, *words: object):
        self._master, slave = pty.openpty()
        code = "import sys; from inf_stream.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "chat", *map(str, words)]
        environment = os.environ | {"TERM": "dumb"}
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def type(self, line: str) -> None:
        os.write(self._master, f"{line}\n".encode())

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> str:
        """Read until the pattern has come; what was read is used up."""
        deadline_s = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.seen)) is None:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline_s - time.monotonic()))
            assert ready, f"no '{pattern}' in: {self.seen}"
            self.seen += os.read(self._master, 4096).decode(errors="replace")
        used, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return used

    def status(self) -> int:
        return self._process.wait(timeout=60)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.fixture
def terminal(reading: Path) -> Iterator[Terminal]:
    made = Terminal("--model", reading, "--budget", 64, "--max-tokens", 60000, "--threads", 1, "--set", "answer.seed=1")
    yield made
    made.close()


def test_a_conversation_at_a_terminal(terminal: Terminal) -> None:
    terminal.wait_for("ask anything; /stats")
    terminal.wait_for("> ")
    terminal.type("Who?")
    terminal.wait_for("Who\\?\r\n.")
    terminal.interrupt()
    terminal.wait_for(r"\[cancelled\]")
    terminal.wait_for("> ")
    terminal.type("/stats")
    terminal.wait_for("tokens seen")
    terminal.wait_for("> ")
    terminal.type("Where?")
    terminal.wait_for("Where\\?\r\n.")
    terminal.type("/cancel")
    terminal.wait_for(r"\[cancelled\]")
    terminal.wait_for("> ")
    terminal.interrupt()
    terminal.wait_for("\r\n")
    assert terminal.status() == 130
