"""The demo client of the Realtime protocol, and what all demo clients do as programs."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import link
import pytest
import realtime_client
import robot_client
import rtsp_watcher
from link import ClientError
from realtime_client import program
from support.demo_clients import Ran, run_client
from support.media import numbered_clip, picture, write_image
from support.servers import free_port
from support.threaded import SayingEngine, SayingMaker, threaded_server

from inf_stream.base.errors import BudgetError

CLIENTS = Path(__file__).parents[2] / "demos" / "clients"
PROGRAMS = {
    "realtime_client.py": ["What?", "--watch", "Dog?"],
    "robot_client.py": [],
    "rtsp_watcher.py": ["--watch", "Dog?"],
}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A second and a half, ten pictures a second."""
    return numbered_clip(tmp_path / "clip.mp4", 15, fps=10)


def converse(
    capsys: pytest.CaptureFixture[str], maker: SayingMaker, source: object, *words: object, **settings: object
) -> Ran:
    with threaded_server(maker, watch_interval_s=0.1, **settings) as server:
        return run_client(capsys, program, "--source", source, "--url", server.address, "--fps", 10, *words)


def test_it_asks_along_the_way_and_once_at_the_end(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    maker = SayingMaker(say=lambda engine, _question: f"{engine.frames} pictures")
    ran = converse(capsys, maker, clip, "How many?", "--every", 0.5)
    assert ran.status == 0, ran.err
    assert [line[:9] for line in ran.out] == ["[00:00] 6", "[00:01] 1", "[00:01] 1"]
    assert ran.out[-1].endswith(" 15 pictures")
    assert all(question.aside and question.text == "How many?" for question in maker.asked)
    assert re.fullmatch(r"streaming .*clip\.mp4 \(160 x 96, h264, 00:01\) to http://127.0.0.1:\d+\n", ran.err)


def test_a_question_at_the_very_end_is_not_asked_twice(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    maker = SayingMaker()
    assert len(converse(capsys, maker, clip, "How many?", "--every", 1.4).out) == 1
    assert len(maker.asked) == 1


def test_a_source_shorter_than_the_interval_is_asked_about(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    maker = SayingMaker()
    assert converse(capsys, maker, clip, "How many?").out == ["[00:01] Yes."]


def test_a_single_picture_is_asked_about(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_image(tmp_path / "photo.png", picture(1))
    assert converse(capsys, SayingMaker(), tmp_path / "photo.png", "What?").out == ["[00:00] Yes."]


def test_watches_alone(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    maker = SayingMaker(say=lambda _engine, question: "Yes." if question == "Dog?" else "No.")
    ran = converse(capsys, maker, clip, "--watch", "Cat?", "--watch", "Dog?")
    assert ran.status == 0
    assert len(ran.out) == 1
    assert re.fullmatch(r"\[00:0[01]\] ALERT, Dog\? Yes\.", ran.out[0])


def test_a_question_that_cannot_be_answered(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    def say(_engine: SayingEngine, _question: str) -> str:
        raise BudgetError("the question is too long")

    ran = converse(capsys, SayingMaker(say=say), clip, "How many?")
    assert ran.status == 0, ran.err
    (line,) = ran.out
    assert line.startswith("[00:01] no answer: ")
    assert "the question is too long" in line


def test_failures_are_one_line(capsys: pytest.CaptureFixture[str], clip: Path, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    ran = run_client(capsys, program, "What?", "--source", tmp_path / "none.mp4", "--url", nobody)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, [], 1)
    assert "none.mp4' cannot be opened" in ran.err
    ran = run_client(capsys, program, "What?", "--source", clip, "--url", nobody)
    assert (ran.status, ran.out) == (2, [])
    assert ran.err.splitlines()[-1].startswith("error: no server at http://127.0.0.1:")
    ran = converse(capsys, SayingMaker(), clip, "What?", "--key", "wrong", keys=("a-key-of-many-characters",))
    assert (ran.status, ran.out) == (2, [])
    assert ran.err.splitlines()[-1].endswith("refuses the key; give it with --key or in INF_STREAM_API_KEY")
    ran = converse(capsys, SayingMaker(), clip, "--watch", "a", "--watch", "b", watches=1)
    assert (ran.status, ran.err.splitlines()[-1]) == (2, "error: 'session.inf_stream.watches' has 2 entries; at most "
                                                         "1 are taken")  # fmt: skip


def test_a_server_that_goes_away(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    def say(_engine: SayingEngine, _question: str) -> str:
        server.break_connections()
        return "Yes."

    with threaded_server(SayingMaker(say=say)) as server:
        ran = run_client(
            capsys, program, "What?", "--source", clip, "--url", server.address, "--fps", 10, "--every", 0.5
        )
    assert ran.status == 2
    assert ran.err.splitlines()[-1] == "error: the connection to the server is lost"


def test_a_reader_that_leaves(capsys: pytest.CaptureFixture[str], clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with threaded_server(SayingMaker()) as server, open(writing, "w") as output:  # noqa: PTH123
        monkeypatch.setattr("sys.stdout", output)
        words = ["What?", "--source", str(clip), "--url", server.address]
        assert link.guarded(lambda: program(words)) == link.BROKEN_PIPE
        monkeypatch.undo()
    assert "error" not in capsys.readouterr().err


def test_nothing_to_ask_is_refused(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    with pytest.raises(SystemExit):
        program(["--source", str(clip)])
    assert "give a question or --watch" in capsys.readouterr().err


# ---- programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [realtime_client, robot_client, rtsp_watcher])
def test_every_flag_is_explained(capsys: pytest.CaptureFixture[str], module: Any) -> None:
    with pytest.raises(SystemExit):
        module.program(["--help"])
    flags = capsys.readouterr().out.partition("\noptions:\n")[2]
    for flag in ("--source", "--url", "--key"):
        assert flag in flags
    assert not re.findall(r"\n  -[^\n]*[A-Z](?=\n  -|\n*$)", flags), "a flag without a word about it"


def test_the_commands_in_the_readme_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(address: str, *_: object) -> None:
        sources.append(address)
        raise ClientError("as far as here")

    sources: list[str] = []
    readme = (CLIENTS.parents[1] / "README.md").read_text(encoding="utf-8")
    for name, words in re.findall(r"^python demos/clients/(\w+)\.py (.+?)(?: +#.*)?$", readme, re.MULTILINE):
        module = {"realtime_client": realtime_client, "robot_client": robot_client, "rtsp_watcher": rtsp_watcher}[name]
        monkeypatch.setattr(module, "Player", opened)
        with pytest.raises(ClientError, match="as far as here"):
            module.program(shlex.split(words))
    assert sources == ["party.mp4", "rtsp://camera.local/door", "camera:0"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_ends_it_quietly_and_its_session(name: str, tmp_path: Path) -> None:
    clip = numbered_clip(tmp_path / "clip.mp4", 600, fps=10)
    maker = SayingMaker(say=lambda _engine, _question: "No.")
    environment = os.environ | {"PYTHONPATH": str(CLIENTS.parents[1])}
    with threaded_server(maker, grace_s=1000.0) as server:
        words = [*PROGRAMS[name], "--source", str(clip), "--url", server.address]
        command = [sys.executable, str(CLIENTS / name), *words]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as client:
            try:
                while not maker.asked:
                    assert client.poll() is None, client.stderr and client.stderr.read()
                    time.sleep(0.02)
                client.send_signal(signal.SIGINT)
                _, errors = client.communicate(timeout=60)
            finally:
                client.kill()
        assert client.returncode == 130
        assert "Traceback" not in errors
        while server.server.hub.sessions:
            time.sleep(0.02)
