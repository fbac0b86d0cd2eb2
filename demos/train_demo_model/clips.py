"""Rendered clips of our own: coloured shapes and digits that stand, move, appear and vanish, and questions on them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

EDGE = 256
FRAMES = 4
COLOURS = {
    "red": (214, 40, 40), "green": (40, 160, 70), "blue": (40, 80, 210), "yellow": (240, 210, 50),
    "orange": (245, 140, 30), "purple": (130, 60, 170), "white": (245, 245, 245), "black": (20, 20, 20),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star")
DIRECTIONS = {"to the left": (-1, 0), "to the right": (1, 0), "up": (0, -1), "down": (0, 1)}
NUMBERS = ("No shapes", "One", "Two", "Three", "Four", "Five", "Six")
_BACKGROUNDS = ((128, 128, 128), (185, 195, 205), (95, 110, 100), (225, 215, 195), (60, 65, 85))


Words = frozenset[tuple[str, float, float]]


@dataclass
class Thing:
    """A shape or a digit in one frame."""

    colour: str
    kind: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """``red circle`` or ``red 7``."""
        return f"{self.colour} {self.kind}"


@dataclass
class Clip:
    """Frames with questions about the whole of them, asked after the last.

    Attributes:
        frames: RGB pictures.
        words: per frame, the words for what is in it and where: right and down, 0 to 1.
        questions: (kind, question, answer).
    """

    frames: list[NDArray[np.uint8]]
    words: list[Words]
    questions: list[tuple[str, str, str]] = field(default_factory=list)


def words_for(things: Sequence[Thing]) -> Words:
    """Colours and kinds where they are."""
    return frozenset((word, t.x / EDGE, t.y / EDGE) for t in things for word in (t.colour, t.kind))


def render(rng: Generator) -> Clip:
    """A clip of one of the kinds."""
    kind = rng.choice(["move", "count", "appear", "digit"], p=[0.45, 0.35, 0.1, 0.1])
    return {"move": moving, "count": counting, "appear": appearing, "digit": digits}[str(kind)](rng)


def moving(rng: Generator) -> Clip:
    """One thing crosses the picture, among others that stand still."""
    direction = str(rng.choice(list(DIRECTIONS)))
    dx, dy = DIRECTIONS[direction]
    step = float(rng.uniform(28, 48))
    things = _placed(rng, int(rng.integers(1, 4)))
    mover, *others = things
    span = step * (FRAMES - 1)
    start = float(rng.uniform(30, EDGE - 30 - span))
    if dx:
        mover.x, mover.y = (start if dx > 0 else EDGE - start), float(rng.uniform(35, EDGE - 35))
    else:
        mover.x, mover.y = float(rng.uniform(35, EDGE - 35)), (start if dy > 0 else EDGE - start)
    background = _background(rng)
    frames, words = [], []
    for _ in range(FRAMES):
        words.append(words_for(things))
        frames.append(_draw(background, [*others, mover], rng))
        mover.x, mover.y = mover.x + dx * step, mover.y + dy * step
    named = f"The {mover.name} moves {direction}."
    clip = Clip(frames, words, [("direction", f"Which way does the {mover.name} move?", f"{direction.capitalize()}.")])
    if others:
        clip.questions.append(("direction", "What moves, and which way?", named))
        if rng.random() < 0.6:
            clip.questions.append(("still", f"Does the {others[0].name} move?", "No."))
            clip.questions.append(("still", f"Does the {mover.name} move?", "Yes."))
    else:
        clip.questions.append(("direction", "What is happening?", named))
    return clip


def counting(rng: Generator) -> Clip:
    """One to six shapes, the same in every frame."""
    number = int(rng.integers(1, 7))
    things = _placed(rng, number)
    frame = _draw(_background(rng), things, rng)
    clip = Clip([frame], [words_for(things)], [("count", "How many shapes are there?", f"{NUMBERS[number]}.")])
    thing = things[int(rng.integers(number))]
    alike = sum(t.kind == thing.kind for t in things)
    plural = thing.kind + ("s" if thing.kind != "box" else "es")
    clip.questions.append(("count of a kind", f"How many {plural} are there?", f"{NUMBERS[alike]}."))
    if sum(t.kind == thing.kind for t in things) == 1:
        clip.questions.append(("colour", f"What color is the {thing.kind}?", f"{thing.colour.capitalize()}."))
    if number == 1:
        clip.questions.append(("caption", "What do you see?", f"A {thing.name}."))
    return clip


def appearing(rng: Generator) -> Clip:
    """Something comes or goes between two frames."""
    first, second = _placed(rng, 2)
    before, after = [first], [first, second]
    comes = bool(rng.random() < 0.5)
    if not comes:
        before, after = after, before
    background, cut = _background(rng), int(rng.integers(1, FRAMES))
    shown = [before if i < cut else after for i in range(FRAMES)]
    frames = [_draw(background, things, rng) for things in shown]
    verb = "appears" if comes else "disappears"
    clip = Clip(
        frames, [words_for(things) for things in shown], [("change", "What changed?", f"A {second.name} {verb}.")]
    )
    clip.questions.append(("change", f"What {verb}?", f"A {second.name}."))
    return clip


def digits(rng: Generator) -> Clip:
    """One digit, large."""
    colour, digit = str(rng.choice(list(COLOURS))), str(rng.integers(10))
    thing = Thing(colour, digit, *(float(v) for v in rng.uniform(90, EDGE - 90, 2)), radius=float(rng.uniform(40, 80)))
    return Clip(
        [_draw(_background(rng), [thing], rng)],
        [words_for([thing])],
        [("digit", "Which number is shown?", f"{digit}.")],
    )


def _background(rng: Generator) -> NDArray[np.uint8]:
    base = np.array(_BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))], np.float32)
    slope = np.linspace(-1, 1, EDGE, dtype=np.float32)[:, None, None] * rng.uniform(-25, 25)
    picture = base + (slope if rng.random() < 0.5 else slope.transpose(1, 0, 2))
    return np.clip(np.broadcast_to(picture, (EDGE, EDGE, 3)), 0, 255).astype(np.uint8)


def _placed(rng: Generator, number: int) -> list[Thing]:
    """Things that do not touch and differ in name."""
    things: list[Thing] = []
    while len(things) < number:
        radius = float(rng.uniform(17, 30 if number > 3 else 36))
        x, y = (float(v) for v in rng.uniform(radius + 6, EDGE - radius - 6, 2))
        colour, kind = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
        clear = all(math.hypot(x - t.x, y - t.y) > radius + t.radius + 12 for t in things)
        if clear and all(t.name != f"{colour} {kind}" for t in things):
            things.append(Thing(colour, kind, x, y, radius))
    return things


def _draw(background: NDArray[np.uint8], things: Sequence[Thing], rng: Generator) -> NDArray[np.uint8]:
    picture = background.copy()
    for t in things:
        colour, centre, r = COLOURS[t.colour], (round(t.x), round(t.y)), round(t.radius)
        if t.kind.isdigit():
            scale = t.radius / 14
            (w, h), _ = cv2.getTextSize(t.kind, cv2.FONT_HERSHEY_SIMPLEX, scale, round(scale * 3))
            place = (centre[0] - w // 2, centre[1] + h // 2)
            cv2.putText(picture, t.kind, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, round(scale * 3), cv2.LINE_AA)
        elif t.kind == "circle":
            cv2.circle(picture, centre, r, colour, -1, cv2.LINE_AA)
        elif t.kind == "square":
            side = round(r * 0.88)
            cv2.rectangle(
                picture, (centre[0] - side, centre[1] - side), (centre[0] + side, centre[1] + side), colour, -1
            )
        else:
            points = 5 if t.kind == "star" else 3
            cv2.fillPoly(picture, [_polygon(centre, r, points, star=t.kind == "star")], colour, cv2.LINE_AA)
    noise = rng.normal(0, 4, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _polygon(centre: tuple[int, int], radius: int, points: int, *, star: bool) -> NDArray[np.int32]:
    corners = points * 2 if star else points
    angles = [-math.pi / 2 + 2 * math.pi * i / corners for i in range(corners)]
    radii = [radius * (0.45 if star and i % 2 else 1.1) for i in range(corners)]
    return np.array(
        [
            [round(centre[0] + r * math.cos(a)), round(centre[1] + r * math.sin(a))]
            for a, r in zip(angles, radii, strict=True)
        ],
        np.int32,
    )
