"""Where a model runs and in which number format: pure decisions on a few facts about the machine."""

import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from inf_stream.base.errors import ModelError

GIB = 1 << 30

SMALLER = "use a smaller model, or --dtype bfloat16"
"""The remedy for weights that do not fit."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class CudaFacts:
    """One CUDA device.

    Attributes:
        name: as the driver calls it.
        total_bytes: all of its memory.
        free_bytes: memory no process holds now.
        capability: compute capability, e.g. (8, 7) for Orin.
    """

    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]

    @property
    def bfloat16(self) -> bool:
        """Whether bfloat16 is computed in hardware (Ampere and later)."""
        return self.capability >= (8, 0)


@dataclass(frozen=True)
class MachineFacts:
    """What placement depends on.

    Attributes:
        cuda: visible CUDA devices, in torch's order.
        mps: Apple's GPU is usable.
        cpu_bfloat16: the CPU multiplies bfloat16 matrices in hardware.
        ram_total_bytes: all host memory.
        ram_free_bytes: host memory that can be had without swapping.
    """

    cuda: tuple[CudaFacts, ...]
    mps: bool
    cpu_bfloat16: bool
    ram_total_bytes: int
    ram_free_bytes: int

    def free_bytes(self, device: torch.device) -> int:
        """Memory free on `device`; Apple's GPU shares the host's."""
        return self.cuda[device.index or 0].free_bytes if device.type == "cuda" else self.ram_free_bytes


def machine_facts() -> MachineFacts:
    """The facts of this machine, now."""
    memory = psutil.virtual_memory()
    return MachineFacts(
        cuda=tuple(_cuda_facts(index) for index in range(torch.cuda.device_count())),
        mps=torch.backends.mps.is_available(),
        cpu_bfloat16=cpu_computes_bfloat16(_cpuinfo()),
        ram_total_bytes=int(memory.total),
        ram_free_bytes=int(memory.available),
    )


def cpu_computes_bfloat16(cpuinfo: str) -> bool:
    """Whether the text of `/proc/cpuinfo` lists AVX512-BF16, AMX-BF16, or Arm's bf16."""
    for line in cpuinfo.splitlines():
        name, _, values = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return not _BFLOAT16_FLAGS.isdisjoint(values.split())
    return False


def resolve_device(name: str, facts: MachineFacts) -> torch.device:
    """The device for a setting: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    `auto` takes the first CUDA device, else Apple's GPU, else the CPU.

    Raises:
        ModelError: the name is unknown, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if facts.cuda else "mps" if facts.mps else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in name and (kind != "cuda" or not number.isdecimal())):
        raise ModelError(f"device '{name}' is unknown; use auto, cpu, cuda, cuda:N or mps")
    if kind == "mps" and not facts.mps:
        raise ModelError("device 'mps' was asked for, but this machine has no Apple GPU that torch can use")
    if kind == "cuda":
        return _cuda_device(name, int(number or 0), facts)
    return torch.device(kind)


def resolve_dtype(name: str, device: torch.device, facts: MachineFacts) -> torch.dtype:
    """The number format for a setting: `auto`, `float32`, `bfloat16` or `float16`.

    `auto` is bfloat16 on CUDA where the hardware has it, else float16; float16 on Apple's GPU; bfloat16 on a
    CPU that multiplies it in hardware (AVX512-BF16, AMX, Arm bf16), else float32.

    Raises:
        ModelError: the name is unknown.
    """
    if name != "auto":
        if name not in _DTYPES:
            raise ModelError(f"dtype '{name}' is unknown; use auto, {', '.join(_DTYPES)}")
        return _DTYPES[name]
    match device.type:
        case "cuda":
            return torch.bfloat16 if facts.cuda[device.index or 0].bfloat16 else torch.float16
        case "mps":
            return torch.float16
        case _:
            return torch.bfloat16 if facts.cpu_bfloat16 else torch.float32


def require_memory(what: str, need_bytes: int, device: torch.device, facts: MachineFacts, remedy: str) -> None:
    """Refuse early what cannot fit.

    Args:
        what: what needs the memory, e.g. `the weights of smollm2-135m`.
        need_bytes: how much.
        device: where.
        facts: of this machine.
        remedy: what the user can do about it.

    Raises:
        ModelError: less than `need_bytes` are free.
    """
    free_bytes = facts.free_bytes(device)
    if need_bytes > free_bytes:
        raise ModelError(
            f"{what} need {need_bytes / GIB:.2f} GiB on {device}, {free_bytes / GIB:.2f} GiB are free; {remedy}"
        )


def _cuda_device(name: str, index: int, facts: MachineFacts) -> torch.device:
    if not facts.cuda:
        raise ModelError(
            f"device '{name}' was asked for, but torch {torch.__version__} sees no CUDA device; check the "
            "driver "
            "with nvidia-smi and that this torch is a CUDA build, or use --device cpu"
        )
    if index >= len(facts.cuda):
        raise ModelError(f"device '{name}' does not exist; the last one is cuda:{len(facts.cuda) - 1}")
    return torch.device("cuda", index)


def _cuda_facts(index: int) -> CudaFacts:
    free_bytes, total_bytes = torch.cuda.mem_get_info(index)
    return CudaFacts(
        name=torch.cuda.get_device_name(index),
        total_bytes=total_bytes,
        free_bytes=free_bytes,
        capability=torch.cuda.get_device_capability(index),
    )


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace") if sys.platform == "linux" and path.exists() else ""
