"""Everything a user can get wrong at the command line: one line on standard error, exit status 2, nothing else."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from support.command_line import run, save_tiny
from support.media import cut_short, numbered_clip, picture, write_audio, write_clip, write_wave

from inf_stream.app import outputs

Words: TypeAlias = "Callable[[Path], list[object]]"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good clip, good models, and much that is broken."""
    root = tmp_path_factory.mktemp("world")
    numbered_clip(root / "clip.mp4", 20)
    save_tiny(root / "sees", "smolvlm")
    save_tiny(root / "blind", "llama")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("this is not a video\n" * 200)
    (root / "book.txt").write_text("Call me Ishmael.\n" * 200)
    write_audio(root / "sound.mp4")
    write_wave(root / "sound.wav")
    cut_short(numbered_clip(root / "cut.mp4", 20), 0.02)
    (root / "nothing").mkdir()
    (root / "words").mkdir()
    (root / "words" / "a.txt").write_text("a")
    (root / "pictures").mkdir()
    (root / "pictures" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (root / "noweights").mkdir()
    shutil.copy(root / "sees" / "config.json", root / "noweights")
    (root / "damaged.gguf").write_bytes(b"GGUF" + bytes(100))
    shutil.copytree(root / "sees", root / "damaged")
    cut_short(root / "damaged" / "model.safetensors", 0.5)
    (root / "recording").mkdir()
    (root / "recording" / "events.jsonl").write_text("not a header\n")
    (root / "later").mkdir()
    header = {"format": "inf-stream recording", "version": 99, "about": {}}
    (root / "later" / "events.jsonl").write_text(json.dumps(header) + "\n")
    (root / "other").mkdir()
    header = {"format": "inf-stream recording", "version": 1, "about": {"settings": {"cash": {}}}}
    (root / "other" / "events.jsonl").write_text(json.dumps(header) + "\n")
    _questions(root)
    _configurations(root)
    return root


def _questions(root: Path) -> None:
    good = '{"at_s": 1, "text": "What?"}\n'
    for name, text in {
        "notjson": "what?\n",
        "nokey": '{"at_s": 1}\n',
        "notime": '{"text": "What?"}\n',
        "negative": '{"at_s": -4, "text": "What?"}\n',
        "list": '[{"at_s": 1, "text": "What?"}]\n',
        "number": '{"at_s": 1, "text": 7}\n',
        "typo": '{"at_s": 1, "txt": "What?"}\n',
        "none": "",
    }.items():
        (root / f"{name}.jsonl").write_text((good + text) if text else "")
    (root / "binary.jsonl").write_bytes(b"\xff\xfe")


def _configurations(root: Path) -> None:
    for name, text in {
        "broken": "[cache\nbudget_tokens = 1",
        "unknown": "[cache]\nbudjet_tokens = 99\n",
        "section": "[cahce]\nbudget_tokens = 99\n",
        "type": '[cache]\nbudget_tokens = "many"\n',
        "range": "[source]\nfps = 0.0\n",
        "flat": "cache = 5\n",
    }.items():
        (root / f"{name}.toml").write_text(text)


def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(*words: str, video: str = "clip.mp4", model: str = "sees", question: str = "What?") -> Words:
    """`ask`; words that start with @ are paths in the world."""

    def made(root: Path) -> list[object]:
        address = video if ":" in video or video.startswith("/dev") else root / video
        said = [root / w[1:] if w.startswith("@") else w for w in words]
        return ["ask", address, question, "--model", root / model, *said]

    return made


QUICK = ("--set", "source.connect_timeout_s=2", "--set", "source.reconnects=0")

CASES: dict[str, tuple[Words, tuple[str, ...]]] = {
    # ---- the video
    "missing file": (ask(video="gone.mp4"), ("gone.mp4' cannot be opened: No such file", "give a video file")),
    "empty file": (ask(video="empty.mp4"), ("empty.mp4' is empty (0 bytes)", "give a video file")),
    "text named mp4": (ask(video="text.mp4"), ("text.mp4'",)),
    "a text file": (ask(video="book.txt"), ("book.txt'",)),
    "sound in a video container": (
        ask(video="sound.mp4"),
        ("sound.mp4' holds no video, only audio; give",),
    ),
    "a sound file": (ask(video="sound.wav"), ("sound.wav' holds no video, only audio; give a file with pictures",)),
    "a file cut off in its header": (ask(video="cut.mp4"), ("cut.mp4'",)),
    "an empty folder": (ask(video="nothing"), ("nothing'", "image")),
    "a folder without images": (ask(video="words"), ("words'", "image")),
    "a folder whose only image is broken": (ask(video="pictures"), ("pictures",)),
    "an unknown scheme": (ask(video="htpp://example.com/a.mp4"), ("'htpp://'", "did you mean 'http'?")),
    "a dead rtsp port": (
        lambda root: ask(*QUICK, video=f"rtsp://127.0.0.1:{closed_port()}/door")(root),
        ("rtsp://127.0.0.1",),
    ),
    "a dead http port": (
        lambda root: ask(*QUICK, video=f"http://127.0.0.1:{closed_port()}/a.mp4")(root),
        ("http://127.0.0.1",),
    ),
    "a camera that is not there": (ask(video="camera:99"), ("camera:99",)),
    "a device that is not there": (ask(video="/dev/video99"), ("video99",)),
    "a camera without a number": (ask(video="camera:front"), ("camera 'front' is not a number", "write camera:0")),
    # ---- times and questions
    "a time that is none": (ask("--at", "noon"), ("--at: time 'noon' is not understood", "mm:ss")),
    "a negative time": (ask("--at", "-5"), ("--at: time '-5' is not understood", "mm:ss")),
    "sixty-one seconds in a minute": (ask("--at", "1:61"), ("--at: time '1:61' has minutes or seconds above 59",)),
    "a time but no question": (
        lambda root: ["ask", root / "clip.mp4", "--at", "1", "--model", root / "sees"],
        ("--at 1 says when, but no question is given", "--questions FILE"),
    ),
    "no question at all": (
        lambda root: ["ask", root / "clip.mp4"],
        ("nothing is asked about", "write: inf-stream ask VIDEO QUESTION"),
    ),
    "an empty question": (ask(question=" "), ("the question is empty; write what you want to know",)),
    "a question longer than half of the cache": (
        ask("--budget", "256", question="What? " * 100),
        ("tokens; at most 128, half of the cache budget",),
    ),
    "a question of two megabytes": (ask(question="x" * (1 << 21)), ("2097152 characters; at most 1048576",)),
    "a missing questions file": (ask("--questions", "@gone.jsonl"), ("gone.jsonl' cannot be read: No such file",)),
    "a questions file that is not JSON": (ask("--questions", "@notjson.jsonl"), ("line 2 is not JSON",)),
    "a question without its text": (ask("--questions", "@nokey.jsonl"), ('line 2 has no "text"',)),
    "a question without its time": (ask("--questions", "@notime.jsonl"), ('line 2 has no "at_s"',)),
    "a question before the beginning": (ask("--questions", "@negative.jsonl"), ("line 2 is -4; seconds from 0",)),
    "a list of questions": (ask("--questions", "@list.jsonl"), ("line 2 holds a list; an object like",)),
    "a question that is a number": (ask("--questions", "@number.jsonl"), ("line 2 is 7; a text is expected",)),
    "a misspelt key of a question": (ask("--questions", "@typo.jsonl"), ("key 'txt'; did you mean 'text'?",)),
    "an empty questions file": (ask("--questions", "@none.jsonl"), ("none.jsonl' is empty; write lines like",)),
    "a binary questions file": (ask("--questions", "@binary.jsonl"), ("binary.jsonl' is not UTF-8 text",)),
    "a folder of questions": (ask("--questions", "@nothing"), ("nothing' cannot be read: Is a directory",)),
    # ---- numbers
    "no frames per second": (ask("--fps", "0"), ("--fps: source.fps is 0.0; the least allowed is",)),
    "negative frames per second": (ask("--fps", "-1"), ("--fps: source.fps is -1.0; the least allowed is",)),
    "frames per second that are no number": (ask("--fps", "fast"), ("--fps: 'fast' is not a number",)),
    "no budget": (ask("--budget", "0"), ("--budget: cache.budget_tokens is 0; the least allowed is 16",)),
    "half a token": (ask("--budget", "99.5"), ("--budget: '99.5' is not a whole number",)),
    "a budget too small for a frame": (
        ask("--budget", "32", "--set", "policy.sinks=20"),
        ("a frame has", "a budget of 32 keeps at most 11"),
    ),
    "a budget too small for the sinks": (
        ask("--budget", "32", "--set", "policy.sinks=40"),
        ("budget of 32 tokens is too small", "needs 41"),
    ),
    "evictions inside the window": (
        ask("--set", "cache.evict_every_tokens=8"),
        ("evict_every_tokens is 8", "window", "raise the former"),
    ),
    "no duration": (ask("--duration", "0"), ("--duration is 0; give more than 0 seconds",)),
    "a duration that is none": (ask("--duration", "long"), ("--duration: time 'long' is not understood",)),
    "absurd threads": (ask("--threads", "99999"), ("--threads: model.threads is 99999; the most allowed is 1024",)),
    # ---- policies, settings, files
    "an unknown policy": (ask("--policy", "inf-mlm"), ("unknown cache policy 'inf-mlm'; did you mean 'inf-mllm'?",)),
    "an unknown option of a policy": (ask("--set", "policy.windw=3"), ("'windw'", "did you mean 'window'?")),
    "an option out of range": (
        ask("--set", "policy.recent_share=2.0"),
        ("recent_share is 2.0; the most allowed",),
    ),
    "a setting without a value": (ask("--set", "cache.chunk_tokens"), ("write it as section.name=value",)),
    "a setting in no section": (ask("--set", "cahce.chunk_tokens=9"), ("'cahce'; did you mean 'cache'?",)),
    "a missing configuration": (ask("--config", "@gone.toml"), ("gone.toml' cannot be read: No such file",)),
    "a broken configuration": (ask("--config", "@broken.toml"), ("broken.toml' is not valid TOML",)),
    "an unknown key": (ask("--config", "@unknown.toml"), ("'budjet_tokens'", "did you mean 'budget_tokens'?")),
    "an unknown section": (ask("--config", "@section.toml"), ("'cahce'", "did you mean 'cache'?")),
    "a word for a number": (ask("--config", "@type.toml"), ("cache.budget_tokens is 'many'; an int is expected",)),
    "a number out of range": (ask("--config", "@range.toml"), ("source.fps is 0.0; the least allowed is",)),
    "a section that is a number": (ask("--config", "@flat.toml"), ("write it as a table: [cache]",)),
    "a map in a folder that is not there": (
        ask("--memory-map", "@gone/m.png"),
        ("gone/m.png' cannot be written", "make it first"),
    ),
    "a map that is a folder": (ask("--memory-map", "@nothing"), ("ends in .png",)),
    "a map of another kind": (ask("--memory-map", "@m.jpg"), ("m.jpg' is a PNG picture", "ends in .png")),
    "a recording into a full folder": (ask("--record", "@sees"), ("sees' is not empty; give a new folder",)),
    "a recording into a file": (ask("--record", "@clip.mp4"), ("clip.mp4' cannot be recorded into",)),
    # ---- device and model
    "an unknown device": (ask("--device", "gpu"), ("device 'gpu' is unknown; use auto, cpu, cuda",)),
    "a GPU that is not there": (ask("--device", "cuda:99"), ("'cuda:99'",)),
    "an unknown number format": (ask("--dtype", "bf16"), ("--dtype: model.dtype is 'bf16'",)),
    "a missing model folder": (ask(model="gone"), ("gone' does not exist; give a folder, a GGUF file, a hub id",)),
    "a model folder without weights": (ask(model="noweights"), ("noweights' holds no *.safetensors weights",)),
    "an empty model folder": (ask(model="nothing"), ("nothing' has no config.json",)),
    "a damaged model": (ask(model="damaged"), ("truncated or damaged", "download them again")),
    "a damaged GGUF file as a chat model": (
        lambda root: ["chat", "--model", root / "damaged.gguf"],
        ("damaged.gguf",),
    ),
    "a text model for a video": (
        ask(model="blind"),
        ("reads text only and cannot see video", "--model Hugging"),
    ),
    "the text model that is built in, for a video": (
        lambda root: ["ask", root / "clip.mp4", "What?", "--model", "smollm2-135m"],
        ("model 'smollm2-135m' reads text only", "--model"),
    ),
    "a misspelt built-in model": (
        lambda root: ["chat", "--model", "smolm2-135m"],
        ("'smolm2-135m' is unknown; did you mean 'smollm2-135m'?",),
    ),
    "an empty model name": (lambda root: ["chat", "--model", ""], ("no model is named; give a built-in name",)),
    # ---- recordings
    "a malformed recording": (ask(video="recording"), ("recording' is not a recording",)),
    "a recording of a later version": (ask(video="later"), ("is of version 99", "update it")),
    "a recording with settings nobody knows": (ask(video="other"), ("'cash' in configuration; did you mean 'cache'?",)),
    # ---- the command line itself
    "an unknown command": (lambda root: ["aks", "a.mp4"], ("unknown command 'aks'; did you mean 'ask'?",)),
    "an unknown flag": (ask("--bugdet", "99"), ("unknown flag '--bugdet'; did you mean '--budget'?",)),
    "an unknown flag without a command": (
        lambda _: ["--verbose"],
        ("unknown flag '--verbose'; did you mean '--version'?",),
    ),
    "a video of a chat without its flag": (lambda _: ["chat", "a.mp4"], ("a video is named by --video",)),
    "an unknown flag with its value": (ask("--bugdet=99"), ("unknown flag '--bugdet=99'; did you mean '--budget'?",)),
    "a flag like no other": (ask("--zzz"), ("unknown flag '--zzz'; see inf-stream ask --help",)),
    "a flag without its value": (ask("--budget"), ("--budget: expected one argument", "see inf-stream ask --help")),
    "a question that was not quoted": (ask("happened?"), ("unexpected argument 'happened?'; quote texts",)),
    "no video": (lambda root: ["ask"], ("VIDEO", "see inf-stream ask --help")),
    "questions after a text, about a video": (
        lambda root: ["chat", "--video", "a.mp4", "--then", "Q"],
        ("--then asks after a text that is piped in", "ask"),
    ),
    "a loop of nothing": (lambda root: ["chat", "--loop"], ("--loop needs --video ADDRESS",)),
    "a duration of nothing": (lambda root: ["chat", "--duration", "5"], ("--duration needs --video ADDRESS",)),
    "a demo that cannot draw": (
        lambda root: ["demo", "--memory-map", root / "gone" / "m.png"],
        ("cannot be written", "make it first"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_status_2(name: str, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, fragments = CASES[name]
    ran = run(capsys, *words(world))
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.endswith("\n")
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.startswith("inf-stream: ")
    assert "Traceback" not in ran.err
    for fragment in fragments:
        assert fragment in ran.err


def test_there_are_many_kinds() -> None:
    assert len(CASES) >= 30


def test_without_matplotlib_a_map_is_refused(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "find_spec", lambda _: None)
    ran = run(capsys, *ask("--memory-map", "@m.png")(world))
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "pip install 'inf-stream[demo]'" in ran.err


def test_nothing_is_written_for_refused_input(world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ran = run(capsys, *ask("--memory-map", str(tmp_path / "m.png"), video="gone.mp4")(world))
    assert ran.status == 2
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_breaks_in_its_middle_is_no_refusal(
    world: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "long.ts", [picture(i) for i in range(60)])
    cut_short(clip, 0.6)
    ran = run(capsys, *ask("--max-tokens", "2", "--json", video=str(clip))(world))
    assert ran.status == 0
    assert len(ran.answers) == 1
