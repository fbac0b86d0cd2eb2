"""Writes what `inf-stream demo` prints between the marks in README.md, and keeps the memory map it draws.

    python demos/transcript.py

What is printed is not touched, but for the name of the picture, which is that of the committed one.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PICTURE = Path("demos/bench/results/demo_memory_map.png")
START, END = "<!-- transcript -->", "<!-- /transcript -->"


def transcript() -> str:
    """The run as a terminal shows it, the command first."""
    command = [sys.executable, "-m", "inf_stream", "demo", "--memory-map", str(PICTURE)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, check=True)
    return f"$ inf-stream demo\n{done.stdout.replace(str(PICTURE), 'memory-map.png').rstrip()}"


def main() -> None:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(START)
    block = f"{START}\n```\n{transcript()}\n```\n{END}"
    README.write_text(before + block + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
