"""`inf-stream doctor`: what this machine has, what is missing, and what to do about it.

Facts are gathered once (`gather`); everything after that is a pure function of them.
"""

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import av
import cv2
import psutil
import torch
from packaging.specifiers import SpecifierSet
from rich.markup import escape
from rich.table import Table

from inf_stream.models.weights.builtin import BUILTIN, is_present
from inf_stream.models.weights.folders import cache_folder
from inf_stream.models.weights.placement import GIB, MachineFacts, machine_facts, resolve_device

MIN_PYTHON = (3, 10)
TRANSFORMERS_RANGE = ">=5.17,<6"
MIN_FREE_RAM_BYTES = 1 * GIB
MIN_FREE_DISK_BYTES = 1 * GIB
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


class Status(str, Enum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: `fail` only for what inf-stream cannot run without.
        found: what is there.
        remedy: what to do about it; empty when nothing need be done.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Facts:
    """What the report is made from.

    Attributes:
        python: version of the interpreter.
        system: operating system and processor.
        machine: devices and memory.
        torch: its version, build suffix included.
        cuda_build: CUDA version torch was built for; None for a build without CUDA.
        transformers: installed version.
        av: PyAV's version.
        ffmpeg: version of the FFmpeg inside PyAV.
        h264_encoder: libx264 is in it.
        opencv: installed version.
        tensorrt: version of TensorRT's Python package; None if absent.
        nvidia_driver: an NVIDIA driver is loaded.
        jetson: model and power mode of a Jetson; None elsewhere.
        jetson_stats: the jtop package is installed.
        cache: the cache folder.
        cache_writable: files can be made there.
        disk_free_bytes: free space where the cache folder is or will be.
        temporary: the system's folder for temporary files.
        temporary_free_bytes: free space there.
        temporary_in_memory: it is no disk (tmpfs).
        builtin: built-in models -> whether their weights are here already.
    """

    python: tuple[int, int, int]
    system: str
    machine: MachineFacts
    torch: str
    cuda_build: str | None
    transformers: str
    av: str
    ffmpeg: str
    h264_encoder: bool
    opencv: str
    tensorrt: str | None
    nvidia_driver: bool
    jetson: str | None
    jetson_stats: bool
    cache: Path
    cache_writable: bool
    disk_free_bytes: int
    temporary: Path
    temporary_free_bytes: int
    temporary_in_memory: bool
    builtin: dict[str, bool]


def gather() -> Facts:
    """Look at this machine."""
    folder = cache_folder()
    home, temporary = _existing(folder), Path(tempfile.gettempdir())
    return Facts(
        python=sys.version_info[:3],
        system=f"{platform.system()} {platform.release()} on {platform.machine()}",
        machine=machine_facts(),
        torch=torch.__version__,
        cuda_build=torch.version.cuda,
        transformers=metadata.version("transformers"),
        av=av.__version__,
        ffmpeg=av.ffmpeg_version_info,
        h264_encoder="libx264" in av.codecs_available,
        opencv=cv2.__version__,
        tensorrt=_version("tensorrt"),
        nvidia_driver=Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None,
        jetson=jetson(),
        jetson_stats=find_spec("jtop") is not None,
        cache=folder,
        cache_writable=os.access(home, os.W_OK),
        disk_free_bytes=shutil.disk_usage(home).free,
        temporary=temporary,
        temporary_free_bytes=shutil.disk_usage(temporary).free,
        temporary_in_memory=_file_system(temporary) in _IN_MEMORY,
        builtin={name: is_present(name, folder) for name in BUILTIN},
    )


def jetson(tree: Path = Path("/proc/device-tree/model")) -> str | None:
    """Model and power mode of the Jetson this runs on; None elsewhere.

    The power mode comes from jetson-stats, where that is installed and its service answers.
    """
    try:
        model = tree.read_text(errors="replace").strip("\x00\n ")
    except OSError:
        return None
    if "nvidia" not in model.lower():
        return None
    return f"{model}, power mode {_power_mode()}"


def checks(facts: Facts) -> list[Check]:
    """The report, in the order it is shown."""
    return [
        _python(facts),
        Check("system", Status.OK, facts.system),
        _torch(facts),
        _device(facts),
        _cpu(facts),
        _memory(facts),
        _transformers(facts),
        _video(facts),
        Check("OpenCV", Status.OK, facts.opencv),
        _cache(facts),
        *(_weights(name, present) for name, present in facts.builtin.items()),
        _disk(facts),
        _temporary(facts),
        _tensorrt(facts),
        _jetson(facts),
    ]


def exit_status(report: Sequence[Check]) -> int:
    """0 unless something required is missing."""
    return int(any(check.status is Status.FAIL for check in report))


def as_table(report: Sequence[Check]) -> Table:
    """The report for a terminal."""
    colours = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for check in report:
        status = f"[{colours[check.status]}]{check.status.value}[/]"
        table.add_row(status, escape(check.name), escape(check.found), escape(check.remedy))
    return table


def as_json(report: Sequence[Check]) -> str:
    """The report for scripts: one JSON object on one line."""
    return json.dumps({"type": "doctor", "ok": exit_status(report) == 0, "checks": [asdict(c) for c in report]})


def _python(facts: Facts) -> Check:
    found = ".".join(map(str, facts.python))
    if facts.python >= MIN_PYTHON:
        return Check("Python", Status.OK, found)
    return Check("Python", Status.FAIL, found, f"install Python {'.'.join(map(str, MIN_PYTHON))} or later")


def _torch(facts: Facts) -> Check:
    build = f"CUDA {facts.cuda_build}" if facts.cuda_build else "no CUDA"
    found = f"{facts.torch} ({build})"
    if facts.nvidia_driver and not facts.machine.cuda:
        remedy = "this machine has an NVIDIA driver: " + (
            "its version may be too old for this torch, see nvidia-smi"
            if facts.cuda_build
            else "install a CUDA build of torch to use the GPU"
        )
        return Check("torch", Status.WARN, found, remedy)
    return Check("torch", Status.OK, found)


def _device(facts: Facts) -> Check:
    if facts.machine.cuda:
        found = "; ".join(
            f"cuda:{i} {gpu.name}, {gpu.free_bytes / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB free"
            for i, gpu in enumerate(facts.machine.cuda)
        )
        return Check("device", Status.OK, found)
    return Check("device", Status.OK, str(resolve_device("auto", facts.machine)))


def _cpu(facts: Facts) -> Check:
    if facts.machine.cpu_bfloat16:
        return Check("CPU arithmetic", Status.OK, "bfloat16 in hardware")
    return Check("CPU arithmetic", Status.OK, "float32; bfloat16 would be emulated")


def _memory(facts: Facts) -> Check:
    free, total = facts.machine.ram_free_bytes, facts.machine.ram_total_bytes
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free >= MIN_FREE_RAM_BYTES:
        return Check("memory", Status.OK, found)
    return Check("memory", Status.WARN, found, "close other programs: the smallest model needs about 1 GiB")


def _transformers(facts: Facts) -> Check:
    if facts.transformers in SpecifierSet(TRANSFORMERS_RANGE, prereleases=True):
        return Check("transformers", Status.OK, f"{facts.transformers} (supported: {TRANSFORMERS_RANGE})")
    remedy = f'pip install "transformers{TRANSFORMERS_RANGE}"'
    return Check("transformers", Status.FAIL, facts.transformers, remedy)


def _video(facts: Facts) -> Check:
    found = f"PyAV {facts.av}, FFmpeg {facts.ffmpeg}"
    if facts.h264_encoder:
        return Check("video", Status.OK, f"{found}, libx264")
    remedy = "reading works; writing H.264 clips does not: install PyAV from its wheel"
    return Check("video", Status.WARN, f"{found}, no libx264", remedy)


def _cache(facts: Facts) -> Check:
    if facts.cache_writable:
        return Check("cache folder", Status.OK, str(facts.cache))
    remedy = "make it writable, or set INF_STREAM_CACHE to another folder"
    return Check("cache folder", Status.FAIL, f"{facts.cache} cannot be written", remedy)


def _weights(name: str, present: bool) -> Check:
    if present:
        return Check(f"weights of {name}", Status.OK, "here")
    megabytes = BUILTIN[name].source.wheel_bytes / 1e6
    return Check(f"weights of {name}", Status.OK, f"not here yet; fetched on first use ({megabytes:.0f} MB)")


def _disk(facts: Facts) -> Check:
    found = f"{facts.disk_free_bytes / GIB:.1f} GiB free beside the cache folder"
    if facts.disk_free_bytes >= MIN_FREE_DISK_BYTES:
        return Check("disk", Status.OK, found)
    return Check("disk", Status.WARN, found, "free some space: the built-in model takes up to 0.7 GiB")


def _temporary(facts: Facts) -> Check:
    found = f"{facts.temporary}, {facts.temporary_free_bytes / GIB:.1f} GiB free"
    if facts.temporary_in_memory:
        return Check("temporary folder", Status.OK, f"{found}, in memory; archive.disk_mib needs an archive.folder")
    return Check("temporary folder", Status.OK, f"{found}, for what archives keep on disk")


def _tensorrt(facts: Facts) -> Check:
    if facts.tensorrt:
        return Check("TensorRT", Status.OK, facts.tensorrt)
    if facts.machine.cuda:
        return Check("TensorRT", Status.OK, "absent; needed only to run vision encoders as TensorRT engines")
    return Check("TensorRT", Status.OK, "absent; of no use without an NVIDIA GPU")


def _jetson(facts: Facts) -> Check:
    if facts.jetson is None:
        return Check("Jetson", Status.OK, "no")
    if facts.jetson_stats:
        return Check("Jetson", Status.OK, facts.jetson)
    remedy = 'pip install "inf-stream[jetson]" to read power and temperature'
    return Check("Jetson", Status.WARN, facts.jetson, remedy)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _power_mode() -> str:
    try:
        from jtop import JtopException, jtop
    except ImportError:
        return "unknown (jetson-stats is not installed)"
    try:
        with jtop() as board:
            return str(board.nvpmodel.name)
    except (JtopException, FileNotFoundError, ConnectionRefusedError, PermissionError) as error:
        return f"unknown ({error})"


def _file_system(folder: Path) -> str:
    """Its type, as the system names it; empty where that is not known."""
    mounted = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    return next((mounted[path] for path in (folder, *folder.parents) if path in mounted), "")


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
