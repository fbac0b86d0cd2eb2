"""What every benchmark prints besides its figures: device, commit, command, and one JSON line at the end."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
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
    entry = {"bench": name, **result, **provenance()}
    print(json.dumps(entry))
    if out is not None:
        append(out, entry)


class Parts:
    """Finished parts of a long benchmark, one JSON line each in a file, so that a rerun goes on where it stopped.

    A part is named by everything that its result depends on. Without a file nothing outlasts the run. A line that was
    cut off by a kill is passed over.
    """

    def __init__(self, bench: str, path: Path | None):
        self._bench, self._path, self._provenance = bench, path, provenance()
        self._found: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(line)

    def result(self, part: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is in the file for this part, or what `measure` finds, which then is."""
        name = json.dumps(part, sort_keys=True)
        if name not in self._found:
            self._found[name] = found = measure()
            if self._path is not None:
                append(self._path, {"bench": self._bench, "part": part, "result": found, **self._provenance})
        return self._found[name]

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if entry.get("bench") == self._bench and "part" in entry:
            self._found[json.dumps(entry["part"], sort_keys=True)] = entry["result"]


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add one JSON line to a file, on a line of its own whatever a kill left before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_off = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut_off else "") + json.dumps(entry) + "\n")


def ago(seconds: float) -> str:
    """``10 s`` or ``30 min``."""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


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
