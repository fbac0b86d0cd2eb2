"""The command line as tests run it: in this process, with what it printed; and small worlds to run it in."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import tiny_weights

from inf_stream.cli.main import main


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    status: int
    out: str
    err: str

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The JSON lines on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def asides(self) -> list[dict[str, Any]]:
        """The JSON lines on standard error."""
        return [json.loads(line) for line in self.err.splitlines()]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Ran:
    """Run one command line."""
    capsys.readouterr()
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return Ran(status, captured.out, captured.err)


def save_tiny(folder: Path, name: str) -> Path:
    """A tiny model of the family called `name` (`support.tiny_models`) as `save_pretrained` writes it."""
    weights = tiny_weights(name)
    weights.model.save_pretrained(folder)
    weights.tokenizer.save_pretrained(folder)
    if weights.image_processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(weights.image_processor))
    return folder
