"""Things to remember and to be asked for later, and long text to put them into."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

OWNERS = (
    "Adam", "Bella", "Carlos", "Diana", "Emil", "Farah", "George", "Hanna", "Igor", "Julia", "Kofi", "Laura", "Milan",
    "Nadia", "Oscar", "Paula", "Quentin", "Rosa", "Samir", "Tina", "Umar", "Vera", "Walter", "Xenia", "Yusuf", "Zoe",
)  # fmt: skip
THINGS = (
    "locker", "bicycle lock", "garden gate", "alarm", "suitcase", "safe", "phone", "cellar", "boat", "workshop",
    "letter box", "garage", "piano", "cupboard", "trunk", "tent",
)  # fmt: skip


class Item(Protocol):
    """Something that is read once and asked for later; what counts of the answer is its digits."""

    @property
    def text(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def lead(self) -> str: ...
    @property
    def digits(self) -> str: ...


@dataclass(frozen=True)
class Fact:
    """A number that belongs to something of somebody."""

    owner: str
    thing: str
    digits: str

    @property
    def text(self) -> str:
        """As it stands in the stream."""
        return f"The code of {self.owner}'s {self.thing} is {self.digits}."

    @property
    def question(self) -> str:
        """What is asked about it."""
        return f"What is the code of {self.owner}'s {self.thing}?"

    @property
    def lead(self) -> str:
        """How the answer begins, right before the number."""
        return f"The code of {self.owner}'s {self.thing} is "


def make_facts(count: int, rng: np.random.Generator) -> list[Fact]:
    """So many facts, each about something else, with different numbers of five digits.

    Raises:
        ValueError: there are not so many things.
    """
    pairs = [(owner, thing) for owner in OWNERS for thing in THINGS]
    if count > len(pairs):
        raise ValueError(f"{count} facts are asked for; there are {len(pairs)} different ones")
    numbers = rng.choice(90_000, count, replace=False) + 10_000
    order = rng.permutation(len(pairs))[:count]
    return [Fact(*pairs[int(i)], str(number)) for i, number in zip(order, numbers, strict=True)]


def paragraphs(text: str, characters: int) -> Iterator[str]:
    """The text in pieces of about so many characters that end with a sentence, each on one line."""
    words = " ".join(text.split())
    start = 0
    while start < len(words):
        stop = words.find(". ", start + characters)
        stop = len(words) if stop < 0 else stop + 1
        yield words[start:stop].strip()
        start = stop
