"""What every benchmark prints besides its figures: device, commit, command, and one JSON line at the end."""

import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def provenance() -> dict[str, Any]:
    """Enough to repeat a figure: device, versions, commit, command."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name()
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _git("describe", "--always", "--dirty"),
        "command": shlex.join(["python", *(_without_folder(word) for word in sys.argv)]),
    }


def report(name: str, result: dict[str, Any], out: Path | None) -> None:
    """Print the result as one JSON line; append it to the file `out` if there is one."""
    line = json.dumps({"bench": name, **result, **provenance()})
    print(line)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(line + "\n")


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """A Markdown table with aligned columns."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * w for w in widths], *rows]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |")


def _without_folder(word: str) -> str:
    """A path on this machine says nothing elsewhere; its name does."""
    return Path(word).name if Path(word).is_absolute() else word


def _git(*words: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
