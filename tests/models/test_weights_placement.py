"""Device and number format follow from a few facts about the machine."""

import dataclasses
from pathlib import Path

import psutil
import pytest
import torch

from inf_stream.base.errors import ModelError
from inf_stream.models.weights import placement
from inf_stream.models.weights.folders import cache_folder
from inf_stream.models.weights.placement import (
    GIB,
    CudaFacts,
    MachineFacts,
    cpu_computes_bfloat16,
    machine_facts,
    require_memory,
    resolve_device,
    resolve_dtype,
)

ORIN = CudaFacts("Orin", 32 * GIB, 20 * GIB, (8, 7))
TURING = CudaFacts("T4", 16 * GIB, 15 * GIB, (7, 5))
BARE = MachineFacts(cuda=(), mps=False, cpu_bfloat16=False, ram_total_bytes=16 * GIB, ram_free_bytes=8 * GIB)
TWO_GPUS = dataclasses.replace(BARE, cuda=(ORIN, TURING))
APPLE = dataclasses.replace(BARE, mps=True)
XEON = dataclasses.replace(BARE, cpu_bfloat16=True)


@pytest.mark.parametrize(
    ("name", "facts", "device"),
    [
        ("auto", BARE, "cpu"),
        ("auto", TWO_GPUS, "cuda:0"),
        ("auto", APPLE, "mps"),
        ("cpu", TWO_GPUS, "cpu"),
        ("cuda", TWO_GPUS, "cuda:0"),
        ("cuda:1", TWO_GPUS, "cuda:1"),
        ("mps", APPLE, "mps"),
    ],
)
def test_device(name: str, facts: MachineFacts, device: str) -> None:
    assert resolve_device(name, facts) == torch.device(device)


@pytest.mark.parametrize(
    ("name", "facts", "message"),
    [
        ("gpu", BARE, "device 'gpu' is unknown; use auto, cpu"),
        ("cpu:0", BARE, "is unknown"),
        ("cuda:", TWO_GPUS, "is unknown"),
        ("cuda:-1", TWO_GPUS, "is unknown"),
        ("", BARE, "is unknown"),
        ("cuda", BARE, "sees no CUDA device"),
        ("cuda:2", TWO_GPUS, "the last one is cuda:1"),
        ("mps", BARE, "no Apple GPU"),
    ],
)
def test_refused_device(name: str, facts: MachineFacts, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_device(name, facts)


@pytest.mark.parametrize(
    ("name", "device", "facts", "dtype"),
    [
        ("auto", "cpu", BARE, torch.float32),
        ("auto", "cpu", XEON, torch.bfloat16),
        ("auto", "cuda:0", TWO_GPUS, torch.bfloat16),
        ("auto", "cuda", TWO_GPUS, torch.bfloat16),
        ("auto", "cuda:1", TWO_GPUS, torch.float16),
        ("auto", "mps", APPLE, torch.float16),
        ("float32", "cuda:0", TWO_GPUS, torch.float32),
        ("bfloat16", "cpu", BARE, torch.bfloat16),
        ("float16", "cpu", BARE, torch.float16),
    ],
)
def test_dtype(name: str, device: str, facts: MachineFacts, dtype: torch.dtype) -> None:
    assert resolve_dtype(name, torch.device(device), facts) is dtype


def test_refused_dtype() -> None:
    with pytest.raises(ModelError, match="dtype 'int8' is unknown; use auto, float32, bfloat16, float16"):
        resolve_dtype("int8", torch.device("cpu"), BARE)


@pytest.mark.parametrize(("device", "limit_bytes"), [("cpu", 8 * GIB), ("cuda:1", 15 * GIB), ("cuda", 20 * GIB)])
def test_memory_is_refused_before_it_runs_out(device: str, limit_bytes: int) -> None:
    place = torch.device(device)
    require_memory("the weights", limit_bytes, place, TWO_GPUS, "x")
    message = f"the weights need 30.00 GiB on {device}, {limit_bytes / GIB:.2f} GiB are free; buy more"
    with pytest.raises(ModelError, match=message):
        require_memory("the weights", 30 * GIB, place, TWO_GPUS, "buy more")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("processor : 0\nFeatures\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx2 bf16x\nmodel name: bf16", False),
        ("", False),
    ],
)
def test_cpu_features(text: str, expected: bool) -> None:
    assert cpu_computes_bfloat16(text) is expected


def test_facts_of_this_machine() -> None:
    facts = machine_facts()
    assert len(facts.cuda) == torch.cuda.device_count()
    assert 0 < facts.ram_free_bytes <= facts.ram_total_bytes == psutil.virtual_memory().total


def test_facts_of_a_machine_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (20 * GIB, 32 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Orin")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 7))
    assert machine_facts().cuda == (ORIN,)


def test_other_systems_have_no_cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement.sys, "platform", "darwin")
    assert placement._cpuinfo() == ""


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [
        ({}, "linux", "/home/u/.cache/inf-stream"),
        ({"XDG_CACHE_HOME": "/x"}, "linux", "/x/inf-stream"),
        ({"XDG_CACHE_HOME": "/x"}, "darwin", "/home/u/Library/Caches/inf-stream"),
        ({}, "win32", "/home/u/AppData/Local/inf-stream/Cache"),
        ({"LOCALAPPDATA": "/l"}, "win32", "/l/inf-stream/Cache"),
        ({"INF_STREAM_CACHE": "/mine", "XDG_CACHE_HOME": "/x"}, "linux", "/mine"),
        ({"INF_STREAM_CACHE": ""}, "linux", "/home/u/.cache/inf-stream"),
    ],
)
def test_cache_folder(environment: dict[str, str], platform: str, expected: str) -> None:
    assert cache_folder(environment, platform, Path("/home/u")) == Path(expected)


def test_cache_folder_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("no home")

    assert cache_folder({}, "linux") == Path.home() / ".cache" / "inf-stream"
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(ModelError, match="set INF_STREAM_CACHE"):
        cache_folder({}, "linux")
