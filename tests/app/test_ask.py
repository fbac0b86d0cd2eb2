import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import pytest
from support.command_line import Ran, run
from support.media import numbered_clip

from inf_stream.engine.engine import Engine

SMALL = ("--budget", 64, "--max-tokens", 4, "--set", "cache.chunk_tokens=64")


def ask(capsys: pytest.CaptureFixture[str], model: Path, *words: object) -> Ran:
    return run(capsys, "ask", *words, "--model", model, "--device", "cpu", "--dtype", "float32", *SMALL)


def test_a_question_is_answered_at_the_end(capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path) -> None:
    ran = ask(capsys, seeing, clip, "What?")
    assert ran.status == 0
    assert ran.err == ""
    assert ran.out.startswith("[00:11] ")
    assert ran.out.count("\n") == 1


def test_at_asks_the_question_at_each_time(capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path) -> None:
    ran = ask(capsys, seeing, clip, "--at", "0:05", "--at", "2", "What?", "--json")
    assert [(a["at_s"], a["question"]) for a in ran.answers] == [(2, "What?"), (5, "What?")]
    first, second = ran.answers
    assert list(first) == ["type", "at_s", "question", "text", "stats", "evidence"]
    assert first["type"] == "answer"
    # tokens of frames 0 to 2 and of the first question; then of 3 to 5 more
    assert first["stats"]["frames"] == 3
    assert second["stats"]["frames"] == 6
    assert {e["at_s"] for e in first["evidence"]} <= {0, 1, 2}
    assert 0 < sum(e["share"] for e in first["evidence"]) < 1.001, "rounded"
    kinds = [a["type"] for a in ran.asides]
    assert kinds[-1] == "end"
    assert sum(a["count"] for a in ran.asides if a["type"] == "frames") == 6


def test_stats_hold_what_was_promised(capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path) -> None:
    stats = ask(capsys, seeing, clip, "What?", "--json").answers[0]["stats"]
    assert stats["tokens_seen"] > stats["tokens_kept"] > 0
    for key in ("cache_bytes", "process_bytes", "frames_per_s", "ttft_s"):
        assert stats[key] > 0
    shown = ask(capsys, seeing, clip, "What?", "--stats").err
    for word in ("tokens seen", "kept", "cache", "process", "frames/s", "first token after", "looked most at 00:"):
        assert word in shown


def test_questions_from_a_file_each_at_its_time(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path
) -> None:
    lines = [
        {"at_s": 7, "text": "Later?", "max_tokens": 1},
        {"at_s": 1, "text": "Early?"},
        {"at_s": 99, "text": "Late?"},
    ]
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    ran = ask(capsys, seeing, clip, "End?", "--questions", file, "--json")
    assert [(a["at_s"], a["question"]) for a in ran.answers] == [
        (1, "Early?"),
        (7, "Later?"),
        (11, "Late?"),
        (11, "End?"),
    ]
    assert ran.answers[1]["stats"]["answer_tokens"] == 1
    (warning,) = [a["message"] for a in ran.asides if a["type"] == "warning"]
    assert warning == "the stream ends at 00:11, before 01:39: asked at its end instead"
    shown = ask(capsys, seeing, clip, "--questions", file)
    assert "warning: the stream ends at 00:11" in shown.err
    assert re.findall(r"^\[(.*?)\] ", shown.out, re.MULTILINE) == ["00:01", "00:07", "00:11"]
    assert "? Early?" in shown.err


def test_a_folder_of_images_plays_one_a_frame(capsys: pytest.CaptureFixture[str], seeing: Path, pictures: Path) -> None:
    ran = ask(capsys, seeing, pictures, "What?", "--json")
    assert ran.answers[0]["stats"]["frames"] == 6
    assert ran.answers[0]["at_s"] == 5


def test_sampling_follows_fps(capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path) -> None:
    assert ask(capsys, seeing, clip, "What?", "--json", "--fps", 2).answers[0]["stats"]["frames"] == 24


def test_a_duration_and_a_loop(capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path) -> None:
    short = ask(capsys, seeing, clip, "What?", "--json", "--duration", 4).answers[0]
    assert (short["at_s"], short["stats"]["frames"]) == (3, 4)
    long = ask(capsys, seeing, clip, "What?", "--json", "--duration", 30, "--loop").answers[0]
    assert (long["at_s"], long["stats"]["frames"]) == (29, 30)


def test_the_configuration_file_is_heard_and_flags_go_first(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path
) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[cache]\npolicy = "streaming-llm"\nbudget_tokens = 48\n[policy]\nsinks = 2\n')
    stats = ask(capsys, seeing, clip, "What?", "--json", "--config", config).answers[0]["stats"]
    assert (stats["policy"], stats["budget_tokens"]) == ("streaming-llm", 64)
    stats = ask(capsys, seeing, clip, "What?", "--json", "--config", config, "--policy", "tova").answers[0]["stats"]
    assert stats["policy"] == "tova"


def test_the_memory_map_is_drawn(capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path) -> None:
    ran = ask(capsys, seeing, clip, "What?", "--memory-map", tmp_path / "m.png")
    assert ran.err == f"memory map: {tmp_path / 'm.png'}\n"
    picture = cv2.imread(str(tmp_path / "m.png"))
    assert picture is not None
    assert picture.std() > 5


def test_the_same_run_gives_the_same_answers(capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path) -> None:
    runs = [ask(capsys, seeing, clip, "What?", "--at", 3, "--at", 9, "--json") for _ in range(2)]
    texts = [[a["text"] for a in ran.answers] for ran in runs]
    assert texts[0] == texts[1]


def test_a_recording_gives_the_same_answers_without_the_video(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "recording"
    live = ask(capsys, seeing, clip, "What?", "--at", 3, "--at", 9, "--json", "--record", folder, "--max-tokens", 9)
    again = run(capsys, "ask", folder, "--json")
    told = [(a["at_s"], a["question"], a["text"], a["stats"]["tokens_seen"]) for a in live.answers]
    assert told == [(a["at_s"], a["question"], a["text"], a["stats"]["tokens_seen"]) for a in again.answers]
    assert len(told) == 2
    assert again.status == 0
    map_file = tmp_path / "m.png"
    assert run(capsys, "ask", folder, "--memory-map", map_file).out.count("[00:0") == 2
    assert map_file.is_file()


def test_a_recording_beside_a_chat_is_refused_with_the_way_to_replay_it(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path
) -> None:
    ask(capsys, seeing, clip, "What?", "--at", 1, "--record", tmp_path / "r")
    ran = run(capsys, "chat", "--video", tmp_path / "r")
    assert ran.status == 2
    assert f"is a recording; it is replayed by: inf-stream ask {tmp_path / 'r'}" in ran.err


def test_questions_may_come_through_a_pipe(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path
) -> None:
    """Which can be read once only."""
    pipe = tmp_path / "questions"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text('{"at_s": 1, "text": "What?"}'), daemon=True)
    writer.start()
    ran = run(capsys, "ask", clip, "--questions", pipe, "--model", seeing, "--json", "--max-tokens", 2)
    assert ran.status == 0, ran.err
    assert [a["question"] for a in ran.answers] == ["What?"]


def test_a_recording_without_a_question_says_so(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "recording"
    ask(capsys, seeing, clip, "What?", "--at", 9, "--json", "--record", folder, "--max-tokens", 3)
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(line for line in lines if "What?" not in line))
    ran = run(capsys, "ask", folder)
    assert (ran.status, ran.out) == (0, "")
    assert f"recording '{folder}' holds no question" in ran.err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("What?",), "QUESTION"),
        (("--at", "3"), "--at"),
        (("--questions", "q.jsonl"), "--questions"),
        (("--duration", "3"), "--duration"),
        (("--loop",), "--loop"),
        (("--record", "r"), "--record"),
    ],
)
def test_a_recording_brings_all_along(
    words: tuple[str, ...],
    name: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text('{"at_s": 1, "text": "a"}')
    header = {"format": "inf-stream recording", "version": 1, "about": {}}
    (tmp_path / "events.jsonl").write_text(json.dumps(header) + "\n")
    question = ("What?",) if name == "--at" else ()
    ran = run(capsys, "ask", tmp_path, *question, *words)
    assert ran.status == 2
    assert ("leave QUESTION out" if question else f"leave {name} out") in ran.err


def test_an_engine_that_breaks_is_not_hidden(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(Engine, "begin_answer", broken)
    with pytest.raises(ZeroDivisionError, match="of all things"):
        ask(capsys, seeing, clip, "What?")


# ---- Ctrl-C ----------------------------------------------------------------------------------------


def test_an_interrupt_ends_cleanly_and_still_draws_the_map(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Engine.ingest_frames

    def interrupting(self: Engine, frames: object) -> None:
        taken(self, frames)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Engine, "ingest_frames", interrupting)
    ran = ask(capsys, seeing, clip, "What?", "--loop", "--memory-map", tmp_path / "m.png")
    assert ran.status == 130
    assert ran.out == ""
    assert (tmp_path / "m.png").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stream_without_an_end_and_its_question_is_asked(
    seeing: Path, clip: Path, number: signal.Signals
) -> None:
    code = "import sys; from inf_stream.cli.main import main; sys.exit(main())"
    words = ["ask", str(clip), "What?", "--loop", "--json", "--model", str(seeing), "--budget", "64", "--threads", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words, "--max-tokens", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        told = json.loads(process.stderr.readline())
        assert told["type"] == "note"
        assert "the end of this stream is not known: the question is asked when it comes" in told["message"]
        assert json.loads(process.stderr.readline())["type"] == "frames"
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [json.loads(line)["stats"]["finished"] for line in out.splitlines()] == ["length"]
    assert json.loads(errors.splitlines()[-1])["type"] == "end"


def test_an_interrupt_stops_a_stream_with_an_end_at_once(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Engine.ingest_frames

    def interrupting(self: Engine, frames: object) -> None:
        taken(self, frames)  # type: ignore[arg-type]
        if self.stats()["frames"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Engine, "ingest_frames", interrupting)
    ran = ask(capsys, seeing, clip, "What?", "--loop", "--duration", 60, "--set", "source.queue_frames=1", "--json")
    assert ran.status == 130
    assert ran.out == ""


def test_a_pipe_is_a_stream_without_a_known_end(
    capsys: pytest.CaptureFixture[str], seeing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer never closes it; Ctrl-C does."""
    broadcast = numbered_clip(tmp_path / "clip.ts", 300).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    over = threading.Event()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), (tmp_path / "pipe").open("wb") as pipe:
            pipe.write(broadcast)
            pipe.flush()
            over.wait(60)

    writing = threading.Thread(target=write)
    writing.start()
    taken = Engine.ingest_frames

    def interrupting(self: Engine, frames: object) -> None:
        taken(self, frames)  # type: ignore[arg-type]
        if self.stats()["frames"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Engine, "ingest_frames", interrupting)
    try:
        ran = ask(capsys, seeing, tmp_path / "pipe", "What?", "--json")
    finally:
        over.set()
        writing.join()
    assert ran.status == 130
    assert len(ran.answers) == 1
    assert "the end of this stream is not known" in ran.err


def test_asides_leave_no_trace(capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path) -> None:
    one = ask(capsys, seeing, clip, "What?", "--aside", "--json").answers
    twice = ask(capsys, seeing, clip, "What?", "--at", 3, "--at", 11, "--aside", "--json").answers
    remembered = ask(capsys, seeing, clip, "What?", "--at", 3, "--at", 11, "--json").answers
    assert twice[1]["text"] == one[0]["text"]
    assert twice[1]["stats"]["tokens_seen"] == one[0]["stats"]["tokens_seen"] < remembered[1]["stats"]["tokens_seen"]


def test_a_file_says_of_each_question_whether_it_is_an_aside(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"at_s": 3, "text": "A?", "aside": true}\n{"at_s": 5, "text": "B?"}\n')
    stats = [a["stats"] for a in ask(capsys, seeing, clip, "--questions", file, "--json").answers]
    assert [s["answers"] for s in stats] == [0, 1]
    file.write_text('{"at_s": 3, "text": "A?", "aside": "yes"}\n')
    ran = ask(capsys, seeing, clip, "--questions", file)
    assert ran.status == 2
    assert '"aside" in' in ran.err
    assert "is 'yes'; true or false is expected" in ran.err


def test_asides_are_recorded_as_such(
    capsys: pytest.CaptureFixture[str], seeing: Path, clip: Path, tmp_path: Path
) -> None:
    words = (clip, "What?", "--at", 3, "--at", 11, "--json")
    first = ask(capsys, seeing, *words, "--aside", "--record", tmp_path / "r").answers
    again = run(capsys, "ask", tmp_path / "r", "--json").answers
    assert [(a["text"], a["stats"]["tokens_seen"]) for a in again] == [
        (a["text"], a["stats"]["tokens_seen"]) for a in first
    ]
    refused = run(capsys, "ask", tmp_path / "r", "--aside")
    assert refused.status == 2
    assert "leave --aside out" in refused.err
