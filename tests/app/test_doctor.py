"""The doctor's report follows from facts; only what is required fails."""

import dataclasses
import json
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from inf_stream.app import doctor
from inf_stream.app.doctor import Check, Facts, Status, as_json, as_table, checks, exit_status, gather, jetson
from inf_stream.models.weights.placement import GIB, CudaFacts, MachineFacts

GPU = CudaFacts("Orin", 32 * GIB, 20 * GIB, (8, 7))
MACHINE = MachineFacts(cuda=(), mps=False, cpu_bfloat16=True, ram_total_bytes=16 * GIB, ram_free_bytes=8 * GIB)
GOOD = Facts(
    python=(3, 11, 7),
    system="Linux 6.1 on x86_64",
    machine=MACHINE,
    torch="2.13.0",
    cuda_build=None,
    transformers="5.23.0",
    av="18.1.0",
    ffmpeg="8.1.2",
    h264_encoder=True,
    opencv="5.0.0",
    tensorrt=None,
    nvidia_driver=False,
    jetson=None,
    jetson_stats=False,
    cache=Path("/cache"),
    cache_writable=True,
    disk_free_bytes=50 * GIB,
    temporary=Path("/tmp"),
    temporary_free_bytes=20 * GIB,
    temporary_in_memory=False,
    builtin={"smollm2-135m": True},
)
WITH_GPU = dataclasses.replace(MACHINE, cuda=(GPU,))


def report(**changes: Any) -> dict[str, Check]:
    return {check.name: check for check in checks(dataclasses.replace(GOOD, **changes))}


def test_a_good_machine_has_nothing_to_do() -> None:
    found = checks(GOOD)
    assert {check.status for check in found} == {Status.OK}
    assert {check.remedy for check in found} == {""}
    assert exit_status(found) == 0


@pytest.mark.parametrize(
    ("changes", "name", "status", "found", "remedy"),
    [
        ({"python": (3, 9, 1)}, "Python", "fail", "3.9.1", "install Python 3.10"),
        ({"nvidia_driver": True}, "torch", "warn", "no CUDA", "install a CUDA build"),
        ({"nvidia_driver": True, "cuda_build": "13.0"}, "torch", "warn", "CUDA 13.0", "too old for this torch"),
        ({"machine": WITH_GPU, "nvidia_driver": True}, "torch", "ok", "2.13.0", ""),
        ({"machine": WITH_GPU}, "device", "ok", "cuda:0 Orin, 20.0 of 32.0 GiB free", ""),
        ({}, "device", "ok", "cpu", ""),
        ({"machine": dataclasses.replace(MACHINE, cpu_bfloat16=False)}, "CPU arithmetic", "ok", "float32", ""),
        ({"machine": dataclasses.replace(MACHINE, ram_free_bytes=1)}, "memory", "warn", "0.0 of 16.0", "close other"),
        ({"transformers": "4.57.0"}, "transformers", "fail", "4.57.0", 'pip install "transformers>=5.17,<6"'),
        ({"transformers": "6.0.0"}, "transformers", "fail", "6.0.0", "pip install"),
        ({"transformers": "5.18.0.dev0"}, "transformers", "ok", "5.18.0.dev0", ""),
        ({"h264_encoder": False}, "video", "warn", "no libx264", "install PyAV from its wheel"),
        ({"cache_writable": False}, "cache folder", "fail", "cannot be written", "INF_STREAM_CACHE"),
        ({"builtin": {"smollm2-135m": False}}, "weights of smollm2-135m", "ok", "on first use (93 MB)", ""),
        ({"disk_free_bytes": 0}, "disk", "warn", "0.0 GiB", "free some space"),
        ({}, "temporary folder", "ok", "/tmp, 20.0 GiB free, for what archives keep on disk", ""),
        ({"temporary_in_memory": True}, "temporary folder", "ok", "in memory; archive.disk_mib needs", ""),
        ({"tensorrt": "10.3"}, "TensorRT", "ok", "10.3", ""),
        ({"machine": WITH_GPU}, "TensorRT", "ok", "needed only to run vision encoders", ""),
        ({"jetson": "AGX Orin"}, "Jetson", "warn", "AGX Orin", 'pip install "inf-stream[jetson]"'),
        ({"jetson": "AGX Orin", "jetson_stats": True}, "Jetson", "ok", "AGX Orin", ""),
    ],
)
def test_what_is_missing_has_a_remedy(changes: dict[str, Any], name: str, status: str, found: str, remedy: str) -> None:
    check = report(**changes)[name]
    assert check.status.value == status
    assert found in check.found
    assert remedy in check.remedy
    assert bool(check.remedy) == (status != "ok")


def test_only_failures_change_the_exit_status() -> None:
    assert exit_status([Check("a", Status.WARN, "b")]) == 0
    assert exit_status([Check("a", Status.OK, "b"), Check("a", Status.FAIL, "b")]) == 1


def test_table_shows_every_check() -> None:
    console = Console(width=160, record=True, file=None)
    with console.capture() as captured:
        console.print(as_table([*checks(GOOD), Check("odd [name]", Status.FAIL, "[x]", "do [y]")]))
    for check in checks(GOOD):
        assert check.name in captured.get()
    assert "odd [name]" in captured.get()
    assert "do [y]" in captured.get()


def test_json_is_one_object_on_one_line() -> None:
    text = as_json(checks(dataclasses.replace(GOOD, cache_writable=False)))
    assert "\n" not in text
    values = json.loads(text)
    assert (values["type"], values["ok"]) == ("doctor", False)
    cache = next(check for check in values["checks"] if check["name"] == "cache folder")
    assert cache["status"] == "fail"


def test_this_machine_can_run_its_own_tests() -> None:
    facts = gather()
    assert exit_status(checks(facts)) == 0
    assert facts.transformers == metadata.version("transformers")
    assert facts.h264_encoder


def test_missing_cache_folder_is_judged_by_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INF_STREAM_CACHE", str(tmp_path / "not" / "yet"))
    facts = gather()
    assert facts.cache == tmp_path / "not" / "yet"
    assert facts.cache_writable
    assert facts.builtin == {"demo": False, "smollm2-135m": False}
    assert not facts.cache.exists()


def test_an_absent_package_has_no_version() -> None:
    assert doctor._version("no-such-package") is None
    assert doctor._version("torch")


def test_supported_range_is_the_declared_one() -> None:
    declared = {(r := Requirement(text)).name: r for text in metadata.requires("inf-stream") or []}
    assert declared["transformers"].specifier == Requirement(f"transformers{doctor.TRANSFORMERS_RANGE}").specifier


def test_a_temporary_folder_in_memory_is_told_from_one_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner"
    mounts = [types.SimpleNamespace(mountpoint=str(at), fstype=kind) for at, kind in (("/", "ext4"), (inner, "tmpfs"))]
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: mounts)
    inner.mkdir()
    for folder, is_memory in ((tmp_path, False), (inner, True)):
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        facts = gather()
        assert (facts.temporary, facts.temporary_in_memory) == (folder, is_memory)
        assert facts.temporary_free_bytes > 0
    mounts.clear()
    assert not gather().temporary_in_memory


# ---- Jetson ------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_text("NVIDIA Jetson AGX Orin Developer Kit\x00")
    return path


class JtopError(Exception):
    pass


def install_jtop(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    class Board:
        nvpmodel = types.SimpleNamespace(name="MODE_30W")

        def __enter__(self) -> "Board":
            if error is not None:
                raise error
            return self

        def __exit__(self, *_: object) -> None:
            pass

    module: Any = types.ModuleType("jtop")
    module.jtop, module.JtopException = Board, JtopError
    monkeypatch.setitem(sys.modules, "jtop", module)


def test_jetson_with_its_service(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_jtop(monkeypatch, None)
    assert jetson(tree) == "NVIDIA Jetson AGX Orin Developer Kit, power mode MODE_30W"


@pytest.mark.parametrize("error", [JtopError, FileNotFoundError, ConnectionRefusedError, PermissionError])
def test_jetson_whose_service_does_not_answer(
    tree: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    install_jtop(monkeypatch, error("no service"))
    assert jetson(tree) == "NVIDIA Jetson AGX Orin Developer Kit, power mode unknown (no service)"


def test_jetson_without_jetson_stats(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", None)
    assert str(jetson(tree)).endswith("unknown (jetson-stats is not installed)")


def test_other_machines_are_no_jetson(tree: Path) -> None:
    assert jetson(tree.with_name("absent")) is None
    tree.write_text("Raspberry Pi 5")
    assert jetson(tree) is None
