"""Lines to remember, as LongEval writes them (Li et al. 2023, Apache-2.0), and questions about them."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

INTRODUCTION = (
    "Below is a record of lines I want you to remember. Each line begins with 'line <line index>' and contains a "
    "'<REGISTER_CONTENT>' at the end of the line as a numerical value. For each line index, memorize its "
    "corresponding <REGISTER_CONTENT>. I will ask you to retrieve the <REGISTER_CONTENT> of certain line indices. "
    "Now the record starts:\n\n"
)
_LINE = re.compile(r"^line (\S+): REGISTER_CONTENT is <(\d+)>$", re.MULTILINE)


@dataclass(frozen=True)
class Line:
    """A line of the record."""

    index: str
    digits: str

    @property
    def text(self) -> str:
        """As it stands in the stream."""
        return f"line {self.index}: REGISTER_CONTENT is <{self.digits}>\n"

    @property
    def question(self) -> str:
        """What is asked about it."""
        return f"Tell me what is the <REGISTER_CONTENT> in line {self.index}? I need the number."

    @property
    def lead(self) -> str:
        """How the answer begins, right before the number."""
        return f"line {self.index}: REGISTER_CONTENT is <"


def read_lines(folder: Path, count: int, seed: int) -> list[Line]:
    """So many lines of different indices out of LongEval's prompts, in an order that the seed gives.

    Exits with a message if the folder does not hold that many.
    """
    found = {line.index: line for line in _all_lines(folder)}
    if len(found) < count:
        sys.exit(f"{folder} holds {len(found)} lines of different indices; {count} are needed")
    lines = list(found.values())
    order = np.random.default_rng(seed).permutation(len(lines))[:count]
    return [lines[int(i)] for i in order]


def _all_lines(folder: Path) -> Iterator[Line]:
    for path in sorted(folder.glob("*_lines.jsonl")):
        with path.open(encoding="utf-8") as file:
            for row in file:
                for index, content in _LINE.findall(json.loads(row)["prompt"]):
                    yield Line(index, content)
