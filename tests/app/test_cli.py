import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from support.command_line import run

import inf_stream.__main__ as program
import inf_stream.app
from inf_stream.cli.main import main

CLIP = str(Path(inf_stream.app.__file__).parent / "data" / "places.mp4")
COMMAND = [sys.executable, "-c", "import sys; from inf_stream.cli.main import main; sys.exit(main())"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], ["ask ", "doctor "]),
        (["--help"], ["ask ", "doctor "]),
        (["help"], ["ask ", "doctor "]),
        (["help", "chat"], ["--then"]),
        (["chat", "--help"], ["--then"]),
        (["demo", "--help"], ["--device"]),
        (
            ["ask", "--help"],
            ["examples:", "--at", "--questions", "--json", "--stats", "--model", "--policy", "--budget"],
        ),
        (["ask", "--help"], ["--fps", "--config", "--memory-map"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_help_names_what_there_is(words: list[str], wanted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in wanted)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"inf-stream {version('inf-stream')}\n"


def imported_by(words: list[str], libraries: set[str]) -> str:
    """Which of `libraries` a command that succeeds imports, run as a program of its own."""
    code = (
        "import sys, contextlib\nfrom inf_stream.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): assert main({words!r}) == 0\n"
        f"print(sorted({libraries!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr.strip()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["ask", "--help"], ["serve", "--help"]], ids=" ".join)
def test_help_needs_no_heavy_library(words: list[str]) -> None:
    assert imported_by(words, {"torch", "transformers", "numpy", "av", "cv2", "rich", "matplotlib"}) == "[]"


@pytest.mark.parametrize("words", [["models"], ["models", "--policies"], ["models", "--json"]], ids=" ".join)
def test_lists_are_shown_without_loading_what_is_listed(words: list[str]) -> None:
    assert imported_by(words, {"torch", "transformers", "numpy", "av", "cv2"}) == "[]"


def test_the_console_script_is_this_function() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="inf-stream")
    assert script.load() is program.main


def test_an_interrupt_while_the_program_is_loading_is_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "inf_stream.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "inf_stream.cli.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert program.main() == 130


def test_the_package_can_be_run() -> None:
    done = subprocess.run([sys.executable, "-m", "inf_stream", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("inf-stream ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ask"], "no VIDEO is named"),
        (["ask", CLIP], "nothing is asked"),
        (["ask", "gone.mp4", "x"], "'gone.mp4' cannot be opened"),
        (["ask", __file__, "x"], "cannot be opened"),
        (["ask", CLIP, "x", "--at", "abc"], "--at: time 'abc' is not understood"),
        (["ask", CLIP, "x", "--duration", "-5"], "--duration"),
        (["ask", CLIP, "--questions", "gone.jsonl"], "'gone.jsonl'"),
        (["ask", CLIP, "x", "--memory-map", "gone/m.png"], "folder 'gone' does not exist"),
        (["ask", CLIP, "x", "--save", "gone/s"], "folder 'gone' does not exist"),
        (["ask", CLIP, "x", "--model", "smollm2-135m"], "cannot see video"),
        (["ask", CLIP, "x", "--model", "./gone"], "model './gone' does not exist"),
        (["ask", "--resume", "gone", "x"], "saved session 'gone' does not exist"),
        (["chat", "--video", "gone.mp4"], "'gone.mp4' cannot be opened"),
        (["chat", "--video", CLIP, "--duration", "abc"], "--duration"),
        (["chat", "--loop"], "--loop needs --video"),
        (["chat", "--model", "smollm"], "did you mean 'smollm2-135m'?"),
        (["demo", "--memory-map", "gone/m.png"], "folder 'gone' does not exist"),
        (["serve", "--keys-file", "gone"], "server.keys_file"),
        (["serve", "--set", "server.image_addresses=a.example"], "write folders as https://"),
        (["serve", "--port", "0", "--model", "smollm2-135m"], "cannot see video"),
    ],
    ids=lambda value: " ".join(Path(word).name for word in value) if isinstance(value, list) else "",
)
def test_what_is_wrong_on_the_command_line_is_refused_before_torch_is_loaded(words: list[str], said: str) -> None:
    code = (
        "import sys\nfrom inf_stream.cli.main import main\n"
        f"status = main({words!r})\n"
        "heavy = {'torch', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("inf-stream: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_help_of_the_demo_tells_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "kept per layer after each eviction [default: 768]" in shown
    assert "configuration file" not in shown


def test_a_message_of_many_lines_is_shown_as_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run(capsys, "ask", "a\nb.mp4", "What?", "--model", "a\nb")
    assert ran.status == 2
    assert ran.err.count("\n") == 1


def test_an_interrupt_is_status_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from inf_stream.app import doctor

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "gather", interrupted)
    assert run(capsys, "doctor") == run(capsys, "doctor", "--json")
    assert run(capsys, "doctor").status == 130
    assert run(capsys, "doctor").err == ""


@pytest.fixture
def pipe_without_a_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def status_and_errors(
    words: Sequence[object], out: int, errors: int = subprocess.PIPE, **environment: str
) -> tuple[int, str | None]:
    """Run a command line as a program of its own, with buffered streams as on a user's machine."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | environment
    command = [*COMMAND, *map(str, words)]
    done = subprocess.run(command, stdout=out, stderr=errors, text=True, check=False, env=buffered)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "words",
    [["--version"], ["--help"], ["models"], ["models", "--json"], ["doctor"]],
    ids=" ".join,
)
def test_a_reader_that_goes_away_ends_a_command_quietly(words: list[str], pipe_without_a_reader: int) -> None:
    assert status_and_errors(words, pipe_without_a_reader) == (141, "")


@pytest.mark.parametrize("words", [["ask"], ["doctor"]], ids=" ".join)
def test_a_reader_of_both_streams_that_goes_away_ends_a_command_quietly(
    words: list[str], pipe_without_a_reader: int
) -> None:
    assert status_and_errors(words, pipe_without_a_reader, pipe_without_a_reader)[0] == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device of a full disk is Linux's")
@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", [["models"], ["models", "--json"], ["ask"]], ids=" ".join)
def test_a_full_disk_is_told_in_one_line(
    words: list[str], environment: dict[str, str], seeing: Path, pictures: Path
) -> None:
    if words == ["ask"]:
        words = [*words, str(pictures), "What?", "--model", str(seeing), "--budget", "64", "--max-tokens", "4"]
    with Path("/dev/full").open("wb") as full:
        status, errors = status_and_errors(words, full.fileno(), **environment)
    assert status == 1
    assert str(errors).splitlines()[-1] == "inf-stream: standard output cannot be written: No space left on device"
    assert "Traceback" not in str(errors)


@pytest.mark.parametrize("style", [(), ("--json",)], ids=["text", "json"])
def test_a_reader_that_goes_away_ends_a_session_quietly(
    style: tuple[str, ...], pipe_without_a_reader: int, seeing: Path, pictures: Path
) -> None:
    words = ["ask", pictures, "What?", "--model", seeing, "--budget", 64, "--max-tokens", 4, "--device", "cpu", *style]
    status, errors = status_and_errors(words, pipe_without_a_reader)
    assert status == 141
    assert "Traceback" not in str(errors)
    assert "Exception ignored" not in str(errors)


def test_models_for_people_and_for_scripts(capsys: pytest.CaptureFixture[str], smollm2_file: Path) -> None:
    shown = run(capsys, "models").out
    for word in ("smollm2-135m", "Qwen3-VL", "video and text", "GGUF", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"):
        assert word in shown
    found = json.loads(run(capsys, "models", "--json").out)
    assert found["builtin"]["smollm2-135m"]["present"] is True
    assert found["families"]["Llama"] == {"takes": "text", "model_types": ["llama"]}
    assert found["families"]["Qwen3-VL"]["takes"] == "video and text"


def test_policies_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "models", "--policies").out
    for word in ("inf-mllm", "--set policy.bias_slope=", "tova", "no options", "last-frames"):
        assert word in shown
    found = json.loads(run(capsys, "models", "--policies", "--json").out)
    assert found["streaming-llm"]["options"]["sinks"]["default"] == 4
    assert found["tova"]["options"] == {}


def test_doctor_for_people_and_for_scripts(capsys: pytest.CaptureFixture[str], smollm2_file: Path) -> None:
    ran = run(capsys, "doctor")
    assert ran.status == 0
    assert "torch" in ran.out
    found = json.loads(run(capsys, "doctor", "--json").out)
    assert (found["type"], found["ok"]) == ("doctor", True)
