"""Photographs with captions, and the questions that follow from captions: what is there, in which colour, how many."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_PEOPLE = "people person persons adult adults"
_MAN, _WOMAN = "man men guy guys gentleman gentlemen male", "woman women lady ladies female"
_BOY, _GIRL = "boy boys", "girl girls"
_CHILD = f"child children kid kids toddler toddlers infant {_BOY} {_GIRL} baby babies"

CONCEPTS: Mapping[str, str] = {
    "a man": _MAN,
    "a woman": _WOMAN,
    "a boy": _BOY,
    "a girl": _GIRL,
    "a child": _CHILD,
    "a baby": "baby babies infant toddler toddlers",
    "a person": f"{_PEOPLE} {_MAN} {_WOMAN} {_CHILD} player players biker skier rider climber surfer skateboarder "
    "snowboarder cyclist hiker swimmer crowd group someone couple worker team boys' teenager teenagers friends artist "
    "dancer dancers runner runners racer wrestler wrestlers guys workers bikers hikers performer performers",
    "a dog": "dog dogs puppy puppies greyhound greyhounds poodle terrier retriever dalmatian hound collie",
    "a horse": "horse horses pony bronco",
    "a bird": "bird birds seagull seagulls pigeon pigeons duck ducks goose geese eagle hawk parrot",
    "a bike": "bike bikes bicycle bicycles biker bikers bicyclist bicyclists cyclist cyclists bmx biking bicycling",
    "a motorcycle": "motorcycle motorcycles motorbike motorbikes motorcyclist motorcyclists motocross",
    "a car": "car cars van jeep suv racecar vehicle truck trucks taxi automobile",
    "a boat": "boat boats canoe kayak kayaker kayaks raft sailboat rowboat ship kayaking canoes",
    "a skateboard": "skateboard skateboarder skateboarders skateboarding skateboards skater skaters skateboarder's",
    "a surfboard": "surfboard surfboards surfer surfers surfing surfs surf",
    "a snowboard": "snowboard snowboarder snowboarders snowboarding",
    "a skier": "skier skiers skiing skis ski",
    "a ball": "ball balls football basketball soccer volleyball baseball softball rugby tennis",
    "a frisbee": "frisbee frisbees disc",
    "a swing": "swing swings swinging",
    "a slide": "slide slides",
    "a helmet": "helmet helmets",
    "a guitar": "guitar guitars guitarist",
    "a fence": "fence fenced fences",
    "a tent": "tent tents",
    "a rope": "rope ropes",
    "a fountain": "fountain fountains",
    "a bench": "bench benches",
    "a flag": "flag flags",
    "a camera": "camera cameras photographer",
    "a mountain": "mountain mountains mountainside mountaintop cliff cliffs hill hills peak",
    "a beach": "beach shore seashore shoreline",
    "a street": "street road sidewalk crosswalk highway",
    "a crowd": "crowd crowds crowded audience spectators",
    "a building": "building buildings house skyscraper church",
    "a tree": "tree trees forest woods wooded",
    "sunglasses": "sunglasses goggles glasses shades",
    "flowers": "flower flowers",
    "rocks": "rock rocks rocky boulder boulders cliff cliffs stones",
    "leaves": "leaf leaves",
    "snow": "snow snowy snowboarder snowboarding snowboard skier skiers skiing ski sled sledding snowball snowbank",
    "water": "water ocean lake river sea pool waves wave stream pond surf waterfall puddle fountain swimming swims",
    "sand": "sand sandy beach dune dunes",
    "grass": "grass grassy lawn meadow field",
}  # fmt: skip
"""What questions are about, and the words that betray it in a caption."""

COLOURS = ("black", "white", "brown", "red", "blue", "green", "yellow", "orange", "pink", "purple", "gray", "tan")
_COLOURED = "dog|shirt|jacket|hat|dress|car|bike|ball|coat|helmet|shorts|horse|bird|boat|truck|hair|pants|outfit|suit"
_NUMBERS = {"two": "Two.", "three": "Three.", "four": "Four."}
_COUNTED = {"dogs": "dog", "men": "man", "women": "woman", "boys": "boy", "girls": "girl", "children": "child",
            "people": "person", "horses": "horse", "kids": "child"}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A photograph and what people wrote below it."""

    index: int
    path: Path
    captions: tuple[str, ...]

    @cached_property
    def mentions(self) -> Mapping[str, int]:
        """Concept -> how many of the captions mention it."""
        words = [set(re.findall(r"[a-z']+", c.lower())) for c in self.captions]
        return {name: sum(bool(w & _WORDS[name]) for w in words) for name in CONCEPTS}

    @cached_property
    def shows(self) -> tuple[str, ...]:
        """Concepts that at least two captions agree on."""
        return tuple(name for name, count in self.mentions.items() if count >= 2)

    @cached_property
    def mentions_any(self) -> frozenset[str]:
        """Concepts that any caption mentions."""
        return frozenset(name for name, count in self.mentions.items() if count)

    @cached_property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        """Questions about colour and number with their answers, where the captions do not contradict each other."""
        text = " . ".join(self.captions).lower()
        found: dict[str, set[str]] = {}
        for colour, thing in re.findall(rf"\b({'|'.join(COLOURS)}) ({_COLOURED})\b", text):
            are = "are" if thing in ("shorts", "pants") else "is"
            found.setdefault(f"What color {are} the {thing}?", set()).add(f"{colour.capitalize()}.")
        for number, things in re.findall(rf"\b(two|three|four) ({'|'.join(_COUNTED)})\b", text):
            plural = "children" if things == "kids" else things
            found.setdefault(f"How many {plural} are there?", set()).add(_NUMBERS[number])
        if found.get("How many dogs are there?") is None and self.mentions["a dog"] >= 4 and "dogs" not in text:
            found["How many dogs are there?"] = {"One."}
        return tuple((question, next(iter(a))) for question, a in found.items() if len(a) == 1)


_WORDS = {name: frozenset(words.split()) for name, words in CONCEPTS.items()}


def absent(pictures: Sequence[Picture], concept: str) -> bool:
    """Whether no caption of any of the pictures mentions the concept."""
    return all(p.mentions[concept] == 0 for p in pictures)


def sentence(caption: str) -> str:
    """A caption as a person would write it: ``A dog runs.``"""
    text = re.sub(r"\s+([.,!?;:'])", r"\1", caption.strip().strip('"').strip())
    text = re.sub(r"\s+", " ", text).rstrip(" .")
    return f"{text[:1].upper()}{text[1:]}."


def load_pictures(folder: Path, split: str) -> list[Picture]:
    """The photographs of a split (`train`, `dev`) of Flickr8k."""
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [Picture(i, folder / split / r["image"], tuple(r["captions"])) for i, r in enumerate(rows)]
