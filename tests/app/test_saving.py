"""`--save` and `--resume`: a session that outlives the process, through the command line."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import Ran, run
from support.lived_engine import make_engine
from support.media import numbered_clip

from inf_stream.app import saving
from inf_stream.app.saving import Keeping, Past, Snapshots, kept
from inf_stream.base.clock import NS_PER_S
from inf_stream.base.config import settings_from_mapping
from inf_stream.base.errors import ConfigError, StateError
from inf_stream.base.events import Evidence, Frame, FrameArrived, Question, SourceNotice, TextArrived
from inf_stream.base.state import State, read_state, write_state
from inf_stream.base.state_facts import read_facts
from inf_stream.engine.protocol import AnswerStep
from inf_stream.sources import ResumedSource, Source, SourceEvent

PIXELS = np.zeros((1, 1, 3), np.uint8)
SMALL = ("--budget", 64, "--max-tokens", 4, "--set", "cache.chunk_tokens=64", "--device", "cpu", "--dtype", "float32")


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_clip(tmp_path_factory.mktemp("long") / "clip.mp4", 40, fps=2)


def ask(capsys: pytest.CaptureFixture[str], model: Path, *words: object) -> Ran:
    return run(capsys, "ask", *words, "--model", model, *SMALL, "--json")


def texts(ran: Ran) -> list[tuple[float, str]]:
    return [(a["at_s"], a["text"]) for a in ran.answers]


def test_a_session_goes_on_as_if_it_had_never_stopped(
    capsys: pytest.CaptureFixture[str], seeing: Path, long_clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.ifs"
    whole = ask(capsys, seeing, long_clip, "What?", "--at", 5, "--at", 15)
    first = ask(capsys, seeing, long_clip, "What?", "--at", 5, "--save", file)
    assert texts(first) == texts(whole)[:1]
    then = run(capsys, "ask", "--resume", file, long_clip, "What?", "--at", 15, "--json")
    assert texts(then) == texts(whole)[1:]
    told = [a["message"] for a in then.asides if a["type"] == "note"]
    assert "at 00:05, saved 20" in told[0]
    assert told[1].endswith("goes on from 00:05; nothing of it is lost")
    assert then.answers[0]["stats"]["frames"] == whole.answers[1]["stats"]["frames"] == 16


def test_a_saved_session_is_asked_about_what_it_saw(
    capsys: pytest.CaptureFixture[str], seeing: Path, long_clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.ifs"
    ask(capsys, seeing, long_clip, "What?", "--at", 5, "--save", file)
    before = file.read_bytes()
    one = run(capsys, "ask", "--resume", file, "And before?", "--json")
    assert [(a["at_s"], a["question"]) for a in one.answers] == [(5, "And before?")]
    assert one.answers[0]["stats"]["frames"] == 6
    assert file.read_bytes() == before
    again = run(capsys, "ask", "--resume", file, "And before?", "--json", "--save", file)
    assert texts(again) == texts(one)
    third = run(capsys, "ask", "--resume", file, "And before?", "--json")
    assert third.answers[0]["stats"]["answers"] == 3


def test_a_service_is_always_started_the_same_way(
    capsys: pytest.CaptureFixture[str], seeing: Path, long_clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.ifs"
    words = (long_clip, "What?", "--duration", 3, "--save", file, "--resume", file)
    frames = [ask(capsys, seeing, *words).answers[0]["stats"]["frames"] for _ in range(3)]
    assert frames == [3, 5, 7], "a duration counts from the last frame"


def test_a_stream_that_is_refused_takes_the_place_of_nothing(
    capsys: pytest.CaptureFixture[str], seeing: Path, long_clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.ifs"
    ran = run(capsys, "ask", long_clip, "What?", "--model", seeing, "--budget", 16, "--save", file)
    assert ran.status == 2
    assert not file.exists()


def test_another_video_follows_what_was_seen(
    capsys: pytest.CaptureFixture[str], seeing: Path, long_clip: Path, clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.ifs"
    ask(capsys, seeing, long_clip, "What?", "--at", 5, "--save", file)
    ran = run(capsys, "ask", "--resume", file, clip, "What?", "--json", "--duration", 4)
    assert "follows from 00:06 on" in ran.err
    assert ran.answers[0]["stats"]["frames"] == 6 + 4
    assert ran.answers[0]["at_s"] == 9


def test_a_conversation_is_taken_up_again(
    capsys: pytest.CaptureFixture[str], reading: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "s.ifs"

    def chat(*words: object, typed: str) -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode())))
        return run(capsys, "chat", *words, "--json")

    model = ("--model", reading, *SMALL)
    whole = chat(*model, typed="One?\nTwo?\n")
    first = chat(*model, "--save", file, typed="One?\n")
    then = chat("--resume", file, typed="Two?\n")
    assert [a["text"] for a in (*first.answers, *then.answers)] == [a["text"] for a in whole.answers]
    file.unlink()
    read = chat(*model, "--save", file, "--then", "So?", typed="a long story " * 9)
    more = chat("--resume", file, "--then", "So?", typed=" and its end")
    assert more.answers[0]["stats"]["tokens_seen"] > read.answers[0]["stats"]["tokens_seen"]


def test_a_killed_process_loses_what_came_after_the_last_snapshot(
    capsys: pytest.CaptureFixture[str], seeing: Path, long_clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.ifs"
    command = ["ask", long_clip, "What?", "--loop", "--duration", "9:00:00", "--save", file, "--save-every", "0.2"]
    words = [str(w) for w in (sys.executable, "-m", "inf_stream", *command, "--model", seeing, *SMALL)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not file.exists():
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < until, "no snapshot came"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    seen = read_facts(file)["engine"]["assembler"]["now_ns"]
    ran = run(capsys, "ask", "--resume", file, "What?", "--json")
    assert ran.status == 0
    assert ran.answers[0]["at_s"] == pytest.approx(seen / NS_PER_S, abs=1e-3)
    assert ran.answers[0]["stats"]["frames"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--resume", "gone.ifs", "What?"), "saved session 'gone.ifs' does not exist"),
        (("--resume", "text.ifs", "What?"), "is damaged"),
        (("clip.mp4", "What?", "--save", "no/s.ifs"), "folder 'no' does not exist"),
        (("clip.mp4", "What?", "--save-every", "5"), "add --save FILE"),
        (("clip.mp4", "What?", "--save", "s.ifs", "--save-every", "0"), "--save-every is 0; give more than 0 seconds"),
        (("--resume", "s.ifs", "What?", "--record", "r"), "leave --record or --resume out"),
        (
            ("clip.mp4", "What?", "--save", "new.ifs", "--archive", "4", "--set", "archive.disk_mib=5"),
            "leave out one of the two",
        ),
        (("clip.mp4", "What?", "--save", "text.ifs"), "go on with it by --resume text.ifs, or delete it first"),
        (("--resume", "s.ifs", "What?", "--budget", "96"), "has budget_tokens 64, this one 96"),
        (("--resume", "s.ifs", "clip.mp4"), "nothing is asked about 'clip.mp4'"),
        (("--resume", "s.ifs", "What?", "--loop"), "--loop needs a VIDEO"),
        (("--resume", "s.ifs", "What?", "--duration", "5"), "--duration needs a VIDEO"),
        (("What?",), "nothing is asked about 'What?'; write: inf-stream ask VIDEO QUESTION"),
        ((), "no VIDEO is named"),
    ],
)
def test_what_cannot_be_kept_or_resumed_is_refused(
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    seeing: Path,
    long_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.ifs").write_text("no session")
    (tmp_path / "clip.mp4").symlink_to(long_clip)
    if "s.ifs" in words and "--resume" in words:
        ask(capsys, seeing, long_clip, "What?", "--at", 2, "--save", "s.ifs")
    ran = run(capsys, "ask", *words)
    assert ran.status == 2
    assert message in ran.err
    assert ran.out == ""


def test_a_damaged_session_is_refused_whole(
    capsys: pytest.CaptureFixture[str], seeing: Path, long_clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "s.ifs"
    ask(capsys, seeing, long_clip, "What?", "--at", 2, "--save", file)
    content = bytearray(file.read_bytes())
    content[-100] ^= 8
    file.write_bytes(content)
    ran = run(capsys, "ask", "--resume", file, "What?")
    assert ran.status == 2
    assert "its checksum does not match its content; nothing of it was used" in ran.err


# ---- the parts ---------------------------------------------------------------------------------------


class Listed(Source):
    def __init__(self, events: list[SourceEvent], *, live: bool = False):
        self._events, self.live = iter(events), live

    @property
    def duration_ns(self) -> int | None:
        return 10 * NS_PER_S

    def describe(self) -> str:
        return "a list"

    def __next__(self) -> SourceEvent:
        return next(self._events)

    def close(self) -> None:
        self._events = iter(())


def frame(at_s: int, number: int) -> FrameArrived:
    return FrameArrived(Frame(PIXELS, at_s * NS_PER_S, number))


def played(source: Source) -> list[tuple[Any, ...]]:
    out: list[tuple[Any, ...]] = []
    for event in source:
        match event:
            case FrameArrived(one):
                out.append((one.at_ns // NS_PER_S, one.number))
            case TextArrived(text, at_ns) | SourceNotice(text, at_ns):
                out.append((at_ns // NS_PER_S, text))
    return out


def test_a_resumed_source_leaves_out_and_moves() -> None:
    events = [frame(0, 0), SourceNotice("!", NS_PER_S), frame(2, 1), TextArrived("a", 3 * NS_PER_S), frame(4, 2)]
    source = ResumedSource(Listed(events), skip_ns=2 * NS_PER_S, later_ns=100 * NS_PER_S, first_number=7)
    assert source.duration_ns == 110 * NS_PER_S
    assert played(source) == [(101, "!"), (103, "a"), (104, 7)]


def past(saved_s: float) -> Past:
    return Past(Path("s.ifs"), "a.mp4", 20 * NS_PER_S, 30, saved_s)


def test_where_a_stream_goes_on() -> None:
    events = [frame(0, 0), frame(20, 1), frame(21, 2)]
    again = past(0).behind(Listed(events), "a.mp4", loop=False)
    assert (played(again.source), again.begin_ns // NS_PER_S) == ([(21, 30)], 20)
    assert "nothing of it is lost" in again.told
    for address, loop in (("b.mp4", False), ("a.mp4", True)):
        later = past(0).behind(Listed(events), address, loop=loop)
        assert (played(later.source), later.begin_ns // NS_PER_S) == ([(21, 30), (41, 31), (42, 32)], 21)
        assert later.told == f"'{address}' follows from 00:21 on"


def test_a_live_stream_goes_on_when_it_does() -> None:
    """A duration counts from there, or a stream that was away for longer would end before it begins."""
    events = [frame(0, 0), frame(20, 1)]
    live = past(1000.0).behind(Listed(events, live=True), "a.mp4", loop=False, now_s=lambda: 1095.0)
    assert (played(live.source), live.begin_ns // NS_PER_S) == ([(115, 30), (135, 31)], 115)
    assert live.told == "'a.mp4' follows from 01:55 on; 95 s of it were not seen"


class FakeEngine:
    """As much of an engine as snapshots need."""

    frames_per_step, characters_per_step = 1, 1

    def __init__(self) -> None:
        self.is_answering = False
        self.steps = 0

    def ingest_text(self, text: str, at_ns: int) -> None:
        self.steps += 1

    def begin_answer(self, question: Question) -> None:
        self.steps += 1

    def step_answer(self) -> AnswerStep:
        return AnswerStep("")

    def stats(self) -> dict[str, float | int | str]:
        return {}

    def evidence(self) -> tuple[Evidence, ...]:
        return ()

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        self.steps += 1

    def end_answer(self) -> int:
        self.steps += 1
        return 3

    def state(self) -> State:
        return State(facts={"steps": self.steps})

    def restore(self, state: State) -> None:
        self.steps = state.count("steps")


def steps_in(file: Path) -> int:
    return int(json.loads(json.dumps(read_state(file).facts))["engine"]["steps"])


def snapshots(engine: FakeEngine, file: Path, told: list[str], clock: list[float]) -> Snapshots:
    keeping = Keeping(save=file, every_ns=10 * NS_PER_S)
    return Snapshots(engine, keeping, {}, told.append, clock=lambda: clock[0])


def test_snapshots_are_taken_when_they_are_due(tmp_path: Path) -> None:
    engine, clock, file = FakeEngine(), [0.0], tmp_path / "s.ifs"
    saved = snapshots(engine, file, [], clock)
    saved.ingest_text("a", 0)
    assert not file.exists()
    clock[0] = 10.0
    assert saved.end_answer() == 3
    saved._writing.join()  # type: ignore[union-attr]
    assert steps_in(file) == 2
    clock[0] = 19.0
    saved.ingest_frames([Frame(PIXELS, 0, 41)])
    assert steps_in(file) == 2
    saved.close()
    assert steps_in(file) == 3
    assert read_facts(file)["frame_numbers"] == 42


def test_a_snapshot_that_cannot_be_written_is_told_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, clock, told, file = FakeEngine(), [0.0], list[str](), tmp_path / "s.ifs"

    def full(*_: object) -> int:
        raise StateError("session cannot be saved: full")

    saved = snapshots(engine, file, told, clock)
    monkeypatch.setattr(saving, "write_state", full)
    clock[0] = 11.0
    saved.ingest_text("a", 0)
    saved._writing.join()  # type: ignore[union-attr]
    assert told == ["warning: session cannot be saved: full; the session goes on"]
    with pytest.raises(StateError, match="full"):
        saved.close()
    monkeypatch.setattr(saving, "write_state", write_state)
    clock[0] = 22.0
    saved.ingest_text("b", 0)
    saved.close()
    assert steps_in(file) == 2


def test_an_engine_that_broke_in_an_answer_leaves_the_last_snapshot(tmp_path: Path) -> None:
    engine, file = FakeEngine(), tmp_path / "s.ifs"
    saved = snapshots(engine, file, [], [0.0])
    saved.close()
    assert not file.exists(), "nothing came"
    saved.end_answer()
    saved.close()
    engine.steps, engine.is_answering = 9, True
    saved.close()
    assert steps_in(file) == 1


def test_an_archive_on_disk_is_not_copied_each_time(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"archive\.disk_mib is 5: too much .*; leave out one of the two"):
        Keeping(save=tmp_path / "s.ifs").check(None, disk_mib=5)
    Keeping().check(None, disk_mib=5)


def test_who_keeps_nothing_runs_the_engine_itself() -> None:
    engine = make_engine("llama")
    with kept(engine, Keeping(), None, settings_from_mapping({}), None, print) as running:
        assert running is engine
