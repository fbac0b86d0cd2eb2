"""What a robot asks about one picture, and how the answers become an observation. No socket, no clock.

A large model is asked once, for JSON. A small one can say what there is, but neither in JSON nor where: it is asked yes
or no, and if there is something, it is shown the left, the middle and the right third of the picture one by one.

    json     [    whole picture    ]  "... Answer with JSON alone ..."    {"obstacle": true, "direction": "left"}
    words    [    whole picture    ]  "Is there a person now?"            yes
             [ left ][mid.][ right ]  the same of each                    yes no no
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

FEW_WORDS, JSON_TOKENS = 2, 48
WHOLE, LEFT, MIDDLE, RIGHT = "whole", "left", "middle", "right"


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


Step: TypeAlias = tuple[Look, ...] | Observation | None
"""What follows from the answers so far: more to be asked, an observation, or nothing that can be told."""


class Form(Protocol):
    """A way to ask."""

    def step(self, answers: Mapping[str, str]) -> Step:
        """What follows from these answers, by the names of their looks; of none, what is asked first."""


class JsonForm:
    """One question about the whole picture."""

    def __init__(self, thing: str):
        question = (
            f"Is there {thing} in the way, and where: left, middle or right? Answer with JSON alone, for example "
            '{"obstacle": true, "direction": "left"} or {"obstacle": false, "direction": null}.'
        )
        self._whole = Look(WHOLE, 0.0, 1.0, question, JSON_TOKENS)

    def step(self, answers: Mapping[str, str]) -> Step:
        return parse_observation(answers[WHOLE]) if answers else (self._whole,)


class WordsForm:
    """Yes or no about the whole picture, and about its thirds if there is something in it."""

    def __init__(self, thing: str):
        question = f"Is there {thing} now?"
        self._whole = Look(WHOLE, 0.0, 1.0, question, FEW_WORDS)
        thirds = enumerate((LEFT, MIDDLE, RIGHT))
        self._thirds = tuple(Look(name, n / 3, (n + 1) / 3, question, FEW_WORDS) for n, name in thirds)

    def step(self, answers: Mapping[str, str]) -> Step:
        if not answers:
            return (self._whole,)
        is_there = says_yes(answers[WHOLE])
        if not is_there:
            return None if is_there is None else Observation(obstacle=False, direction=None)
        if len(answers) == 1:
            return self._thirds
        return Observation(obstacle=True, direction=_where([answers[look.name] for look in self._thirds]))


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


def _where(answers: Sequence[str]) -> Any:
    """What reaches the middle is in the way; what is on both sides of it, or on none, is nowhere that can be told."""
    said = [says_yes(answer) for answer in answers]
    there = [name for name, yes in zip((LEFT, MIDDLE, RIGHT), said, strict=True) if yes]
    if None in said:
        return None
    if MIDDLE in there:
        return MIDDLE
    return there[0] if len(there) == 1 else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is given twice")
    return dict(pairs)
