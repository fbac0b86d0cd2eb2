"""`--help`: in groups, what is used most first, and readable on a narrow terminal."""

import re

import pytest

from inf_stream.cli.command import Command
from inf_stream.cli.main import COMMANDS, main

LAST = "all other settings"
SHARED = ["output", "model", "memory", "answers", "session", LAST]


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("ask", ["what is asked", "stream", *SHARED]),
        ("chat", ["conversation", "stream", *SHARED]),
        (
            "serve",
            [
                "server",
                "who may connect",
                "sessions on disk",
                "log",
                "model",
                "memory",
                "answers",
                "all other settings",
            ],
        ),
        ("demo", ["output", "model", "memory"]),
    ],
)
def test_flags_stand_in_groups(name: str, groups: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(name, capsys)
    titles = re.findall(r"^([a-z ]+):$", shown, re.MULTILINE)
    assert [title for title in titles if title != "examples"] == ["options", *groups]
    memory = shown.partition("\nmemory:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  (--\S+)", memory, re.MULTILINE)[:2] == ["--budget", "--policy"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_only_examples_are_wider_than_the_terminal(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    shown = help_of(command.name, capsys)
    wide = [line for line in shown.splitlines() if len(line) > 60]
    assert all("inf-stream " in line and line.startswith("  ") for line in wide)
    assert "usage: inf-stream" in shown


def test_a_word_with_hyphens_is_not_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert not re.search(r"\w-$", help_of("ask", capsys), re.MULTILINE)
