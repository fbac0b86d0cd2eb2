"""The clients in `demos/clients/`, run in this process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import link
import pytest


@dataclass(frozen=True)
class Ran:
    """What a client did."""

    status: int
    out: list[str]
    err: str


def run_client(capsys: pytest.CaptureFixture[str], program: Callable[[Sequence[str]], None], *words: object) -> Ran:
    """Run a client in this process."""
    capsys.readouterr()
    status = link.guarded(lambda: program([str(word) for word in words]))
    captured = capsys.readouterr()
    return Ran(status, captured.out.splitlines(), captured.err)


@contextmanager
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Clients that try again at once."""
    with monkeypatch.context() as patch:
        patch.setattr(link, "FIRST_PAUSE_S", 0.01)
        patch.setattr(link, "LONGEST_PAUSE_S", 0.05)
        yield patch
