"""Long texts from a folder: plain or xz-compressed, from their beginning or from a place that a seed chooses."""

import lzma
import sys
from pathlib import Path

import numpy as np

HEAD_CHARACTERS = 2000
"""Left out at the beginning: title pages, licences, headers of dumps."""
SUFFIXES = (".txt", ".xz", "")


def read_text(folder: Path, name: str, characters: int, seed: int) -> str:
    """At most so many characters of a text; seed 0 begins near its start, others at a paragraph anywhere.

    Exits with a message if there is no such file or it is empty.
    """
    found = [folder / (name + suffix) for suffix in SUFFIXES if (folder / (name + suffix)).is_file()]
    if not found:
        sys.exit(f"no text '{name}' in {folder}; there are: {', '.join(sorted(p.stem for p in folder.glob('*.*')))}")
    path = found[0]
    raw = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    text = raw.decode("utf-8", errors="replace")[HEAD_CHARACTERS:]
    if not text:
        sys.exit(f"{path} has no more than {HEAD_CHARACTERS} characters; a longer text is needed")
    start = 0
    if seed:
        start = int(np.random.default_rng(seed).integers(max(1, len(text) - characters)))
        start = text.find("\n", start) + 1
    return text[start : start + characters]
