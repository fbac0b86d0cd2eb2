"""The allocator is told to keep one arena, and to let go, where it can be told."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from inf_stream.base.allocator import keep_one_arena, return_free_memory


def test_glibc_is_told_and_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, ...]] = []
    libc = SimpleNamespace(
        mallopt=lambda what, value: told.append((what, value)) or 1, malloc_trim=lambda pad: told.append((pad,)) or 1
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    monkeypatch.setattr(sys, "platform", "linux")
    assert keep_one_arena()
    assert return_free_memory()
    assert told == [(-8, 1), (0,)]
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert not keep_one_arena()
    assert not return_free_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_one_arena()
    assert not return_free_memory()


def test_the_code_made_for_shapes_is_bounded_before_torch_is_loaded_unless_told_otherwise() -> None:
    said = "import os, sys; from inf_stream.cli import main; main.main(['models']); import torch; "
    said += "print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    for given, kept in (({}, "128"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"}, "7")):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ONEDNN_")} | given
        done = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == kept
