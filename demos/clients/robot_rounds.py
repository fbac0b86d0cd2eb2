"""What a robot asks about one picture, and how the answers become an observation. No socket, no clock.

A large model is asked once, for JSON. A small one can say what there is, but neither where nor in JSON: it is shown the
left, the middle and the right third of the picture one after the other, and says yes or no to each.

    json      [    whole picture    ]  "... Answer with JSON alone ..."    {"obstacle": true, "direction": "left"}
    thirds    [ left ][mid.][ right ]  "Is there a person now?" x 3        yes no no
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

FEW_WORDS, JSON_TOKENS = 2, 48
LEFT, MIDDLE, RIGHT = "left", "middle", "right"


class Observation(BaseModel):
    """What the camera sees. `direction` is None where there is no obstacle, or none that can be told."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    obstacle: bool
    direction: Literal["left", "middle", "right"] | None

    @model_validator(mode="after")
    def _agrees(self) -> "Observation":
        if self.direction is not None and not self.obstacle:
            raise ValueError("there is a direction, but no obstacle")
        return self


@dataclass(frozen=True)
class Look:
    """A part of the picture, from one share of its width to another, and what is asked about it."""

    name: str
    begin: float
    end: float
    question: str
    max_tokens: int


class Form(Protocol):
    """A way to ask: what about, and what follows from the answers to all of that, in order; None: nothing does."""

    looks: Sequence[Look]

    def compose(self, answers: Sequence[str]) -> Observation | None: ...


class JsonForm:
    """One question about the whole picture."""

    def __init__(self, thing: str):
        question = (
            f"Is there {thing} in the way, and where: left, middle or right? Answer with JSON alone, for example "
            '{"obstacle": true, "direction": "left"} or {"obstacle": false, "direction": null}.'
        )
        self.looks = (Look("all", 0.0, 1.0, question, JSON_TOKENS),)

    def compose(self, answers: Sequence[str]) -> Observation | None:
        return parse_observation(answers[0])


class ThirdsForm:
    """A yes-or-no question about each third of the picture."""

    def __init__(self, thing: str):
        names = (LEFT, MIDDLE, RIGHT)
        question = f"Is there {thing} now?"
        self.looks = tuple(Look(name, i / 3, (i + 1) / 3, question, FEW_WORDS) for i, name in enumerate(names))

    def compose(self, answers: Sequence[str]) -> Observation | None:
        said = [says_yes(answer) for answer in answers]
        if None in said:
            return None
        there = [look.name for look, yes in zip(self.looks, said, strict=True) if yes]
        return Observation(obstacle=bool(there), direction=_where(there))


def parse_observation(text: str) -> Observation | None:
    """The observation that `text` is, all of it; None for anything else, however close it comes."""
    try:
        return Observation.model_validate(json.loads(text, object_pairs_hook=_unique))
    except (ValueError, RecursionError, ValidationError):
        return None


def says_yes(text: str) -> bool | None:
    """Whether an answer begins with yes (True) or no (False); None if it does not say."""
    found = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return None if found is None else found[1].casefold() == "yes"


def command_for(observation: Observation) -> str:
    """What to do: away from the side on which something is; stop if it is ahead, or nobody knows where."""
    if not observation.obstacle:
        return "forward"
    return {LEFT: RIGHT, RIGHT: LEFT}.get(observation.direction or MIDDLE, "stop")


def _where(there: Sequence[str]) -> Any:
    """What reaches the middle is in the way; what is on both sides of it is nowhere in particular."""
    if MIDDLE in there:
        return MIDDLE
    return there[0] if len(there) == 1 else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is given twice")
    return dict(pairs)
