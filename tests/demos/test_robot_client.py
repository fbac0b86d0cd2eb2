"""The robot's control loop: what it asks, what it believes, and that it never waits for anybody."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from robot_client import program
from robot_rounds import JsonForm, Look, Observation, Step, WordsForm, command_for, parse_observation, says_yes
from support.demo_clients import quick_pauses, run_client
from support.media import numbered_clip
from support.servers import free_port
from support.threaded import SayingEngine, SayingMaker, threaded_server

AHEAD = Observation(obstacle=True, direction="middle")
CLEAR = Observation(obstacle=False, direction=None)


# ---- what is asked and believed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('{"obstacle": true, "direction": "left"}', Observation(obstacle=True, direction="left")),
        (' {"direction": null, "obstacle": false}\n', CLEAR),
        ('{"obstacle": true, "direction": null}', Observation(obstacle=True, direction=None)),
    ],
)
def test_json_that_is_taken(text: str, taken: Observation) -> None:
    assert parse_observation(text) == taken


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes.",
        '{"obstacle": true, "direction": "left"',
        '```json\n{"obstacle": true, "direction": "left"}\n```',
        '{"obstacle": true, "direction": "left"} I think',
        '{"obstacle": true}',
        '{"obstacle": "true", "direction": null}',
        '{"obstacle": 1, "direction": null}',
        '{"obstacle": true, "direction": "up"}',
        '{"obstacle": true, "direction": "Left"}',
        '{"obstacle": false, "direction": "left"}',
        '{"obstacle": true, "obstacle": false, "direction": null}',
        '{"obstacle": true, "direction": "left", "sure": true}',
        '[{"obstacle": true, "direction": "left"}]',
        "[" * 100_000,
        "null",
        "NaN",
    ],
)
def test_json_that_is_not(text: str) -> None:
    assert parse_observation(text) is None


@pytest.mark.parametrize(
    ("text", "taken"),
    [("Yes.", True), (" no", False), ("**Yes**, two.", True), ("Not sure", None), ("", None), ("The yes", None)],
)
def test_yes_and_no(text: str, taken: bool | None) -> None:
    assert says_yes(text) is taken


@pytest.mark.parametrize(
    ("answers", "direction"),
    [
        (("Yes.", "No.", "No."), "left"),
        (("No.", "No.", "Yes"), "right"),
        (("Yes", "Yes", "No"), "middle"),
        (("Yes", "No", "Yes"), None),
        (("No", "No", "No"), None),
        (("Yes", "Hm", "No"), None),
    ],
)
def test_where_something_is(answers: tuple[str, ...], direction: Any) -> None:
    said = {"whole": "Yes."} | dict(zip(("left", "middle", "right"), answers, strict=True))
    assert WordsForm("a dog").step(said) == Observation(obstacle=True, direction=direction)


def test_what_is_asked_in_words() -> None:
    form = WordsForm("a dog")
    (whole,) = asked(form.step({}))
    assert (whole.name, whole.begin, whole.end, whole.question) == ("whole", 0.0, 1.0, "Is there a dog now?")
    assert form.step({"whole": "No."}) == CLEAR, "where nothing is need not be asked"
    assert form.step({"whole": "Perhaps."}) is None
    thirds = asked(form.step({"whole": "Yes."}))
    assert {look.question for look in thirds} == {"Is there a dog now?"}
    assert [(look.begin, look.end) for look in thirds] == [(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)]


def test_what_is_asked_for_json() -> None:
    (whole,) = asked(JsonForm("a dog").step({}))
    assert (whole.begin, whole.end) == (0.0, 1.0)
    assert "a dog" in whole.question
    assert JsonForm("a dog").step({"whole": '{"obstacle": false, "direction": null}'}) == CLEAR
    assert JsonForm("a dog").step({"whole": "No."}) is None


def asked(step: Step) -> tuple[Look, ...]:
    assert isinstance(step, tuple)
    return step


def test_the_examples_in_the_question_are_observations() -> None:
    (whole,) = asked(JsonForm("a dog").step({}))
    examples = [part + "}" for part in whole.question.split("}")[:-1]]
    assert [parse_observation(text[text.index("{") :]) for text in examples] == [
        Observation(obstacle=True, direction="left"), CLEAR
    ]  # fmt: skip


def test_commands() -> None:
    assert command_for(CLEAR) == "forward"
    assert command_for(AHEAD) == "stop"
    assert command_for(Observation(obstacle=True, direction="left")) == "right"
    assert command_for(Observation(obstacle=True, direction="right")) == "left"
    assert command_for(Observation(obstacle=True, direction=None)) == "stop"


# ---- the loop --------------------------------------------------------------------------------------

RATE = 20.0


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two seconds."""
    return numbered_clip(tmp_path / "clip.mp4", 40, fps=20)


Drive = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def drive(capsys: pytest.CaptureFixture[str], clip: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the robot through the clip; its ticks."""

    def run(address: str, *words: object) -> list[dict[str, Any]]:
        with quick_pauses(monkeypatch):
            ran = run_client(capsys, program, "--source", clip, "--url", address, "--rate", RATE, *words)
        assert ran.status == 0, ran.err
        assert "Traceback" not in ran.err
        ticks = [json.loads(line) for line in ran.out]
        numbers = [tick["tick"] for tick in ticks]
        assert numbers == sorted(set(numbers))
        for tick in ticks:
            if tick["why"] != "seen":
                assert tick["command"] == "stop"
        return ticks

    return run


def saying(text: str) -> SayingMaker:
    """Says this and nothing else."""
    return SayingMaker(say=lambda _engine, _question: text)


def test_json_drives(drive: Drive) -> None:
    maker = saying('{"obstacle": true, "direction": "left"}')
    with threaded_server(maker) as server:
        ticks = drive(server.address)
    last = ticks[-1]
    assert (last["command"], last["observation"]) == ("right", {"obstacle": True, "direction": "left"})
    assert last["unreadable"] == 0
    assert last["asked"] == len(maker.asked)
    assert all(question.aside for question in maker.asked)
    assert ticks[0]["command"] == "stop", "nothing was seen yet"


def test_a_model_without_json_is_asked_yes_or_no(drive: Drive, capsys: pytest.CaptureFixture[str]) -> None:
    def say(engine: SayingEngine, question: str) -> str:
        words = sum("now?" in one.text for one in engine.asked)
        return "Yes." if words % 4 in (1, 0) else "No."

    maker = SayingMaker(say=say)
    with threaded_server(maker) as server:
        ticks = drive(server.address, "--thing", "a dog")
    last = ticks[-1]
    assert last["unreadable"] == 3, "then it is asked otherwise"
    assert (last["command"], last["observation"]) == ("left", {"obstacle": True, "direction": "right"})
    assert maker.asked[3].text == "Is there a dog now?"
    assert maker.engines[0].frames == len(maker.asked), "the whole and each third is a picture"
    assert all(question.max_tokens == 2 for question in maker.asked[3:])


def test_nothing_is_made_up(drive: Drive) -> None:
    maker = saying("I would rather not say.")
    with threaded_server(maker) as server:
        for form in ("json", "words"):
            ticks = drive(server.address, "--form", form)
            assert ticks[-1]["unreadable"] > 0
            assert {tick["command"] for tick in ticks} == {"stop"}
            assert {str(tick["observation"]) for tick in ticks} == {"None"}


def test_an_observation_grows_old(drive: Drive) -> None:
    """The first answer is good, and no other can be read."""

    def say(engine: SayingEngine, _question: str) -> str:
        return '{"obstacle": false, "direction": null}' if len(engine.asked) == 1 else "?"

    with threaded_server(SayingMaker(say=say)) as server:
        ticks = drive(server.address, "--form", "json", "--watchdog", 0.3)
    assert [tick["command"] for tick in ticks if tick["why"] == "seen"].count("forward") > 0
    assert (ticks[-1]["command"], ticks[-1]["why"]) == ("stop", "no fresh answer")
    assert ticks[-1]["observation"] == {"obstacle": False, "direction": None}, "it is told what was seen last"
    assert all(tick["age_s"] <= 0.3 for tick in ticks if tick["why"] == "seen")


def test_the_loop_goes_on_while_the_server_does_not(drive: Drive) -> None:
    over = threading.Event()
    with threaded_server(SayingMaker(say=lambda _engine, _question: str(over.wait(20)))) as server:
        try:
            ticks = drive(server.address, "--watchdog", 0.25, "--duration", 1.5)
        finally:
            over.set()
    last = ticks[-1]
    assert last["skipped"] > last["asked"] > 1
    assert last["cancelled"] >= last["asked"] - 1
    assert {tick["command"] for tick in ticks} == {"stop"}


def test_stale_questions_are_cancelled_on_the_server(drive: Drive) -> None:
    """The first answer takes for ever; what waits behind it is never begun."""
    held: list[float] = []

    def say(engine: SayingEngine, _question: str) -> str:
        if not held:
            held.append(time.monotonic())
            time.sleep(1.0)
        return "?"

    maker = SayingMaker(say=say)
    with threaded_server(maker) as server:
        ticks = drive(server.address, "--watchdog", 0.2, "--form", "json")
    assert ticks[-1]["cancelled"] > 1
    assert len(maker.asked) < ticks[-1]["asked"], "some were cancelled before they began"


def test_late_answers_are_counted_and_still_count(drive: Drive) -> None:
    def say(_engine: SayingEngine, _question: str) -> str:
        time.sleep(3 / RATE)
        return '{"obstacle": false, "direction": null}'

    with threaded_server(SayingMaker(say=say)) as server:
        ticks = drive(server.address, "--watchdog", 5)
    assert ticks[-1]["late"] > 0
    assert ticks[-1]["skipped"] > 0
    assert ticks[-1]["command"] == "forward"


def test_an_answer_about_a_picture_that_was_dropped_is_none(drive: Drive) -> None:
    maker = saying('{"obstacle": false, "direction": null}')
    with threaded_server(maker, frames_per_second=0.01) as server:
        ticks = drive(server.address)
    assert ticks[-1]["lost"] > 1
    assert ticks[-1]["asked"] - ticks[-1]["lost"] <= 2, "all but the first, and the one that is open"


def test_a_connection_that_breaks_is_taken_up_again(drive: Drive) -> None:
    broken: list[int] = []

    def say(engine: SayingEngine, _question: str) -> str:
        if len(engine.asked) == 3:
            broken.append(len(engine.asked))
            server.break_connections()
            time.sleep(0.2)
        return '{"obstacle": false, "direction": null}'

    maker = SayingMaker(say=say)
    with threaded_server(maker) as server:
        ticks = drive(server.address, "--watchdog", 5)
    assert broken
    assert len(maker.engines) == 1, "the same session"
    assert ticks[-1]["lost"] >= 1
    assert ticks[-1]["command"] == "forward"
    assert ticks[-1]["asked"] > 4


# ---- what cannot be --------------------------------------------------------------------------------


def test_failures_are_one_line(capsys: pytest.CaptureFixture[str], clip: Path, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    ran = run_client(capsys, program, "--source", tmp_path / "none.mp4", "--url", nobody)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, [], 1)
    assert "none.mp4' cannot be opened" in ran.err
    ran = run_client(capsys, program, "--source", clip, "--url", nobody)
    assert ran.status == 2
    assert ran.err.splitlines()[-1].startswith("error: no server at http://127.0.0.1:")
    assert {json.loads(line)["command"] for line in ran.out} <= {"stop"}
    with threaded_server(SayingMaker(), keys=("a-key-of-many-characters",)) as server:
        ran = run_client(capsys, program, "--source", clip, "--url", server.address, "--key", "wrong")
    assert ran.status == 2
    assert "refuses the key" in ran.err.splitlines()[-1]
