"""Hours of video made of held-out photographs, with all that happens in them known: a quiet one and a dense one."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "train_demo_model"))
from captions import CONCEPTS, Picture, sentence
from clips import counting
from features import read_picture

from inf_stream.base.events import Pixels

EDGE = 256
KEYS, NEVER = 20, 6
"""Things of which each is in one event of a quiet hour and in no other; and things that are in none."""
EARLY = 5
"""Events at the begin of a quiet hour that show such a thing, so that something can be asked for an hour later."""
RENDERED = 12
"""Events of a quiet hour that are rendered shapes."""
PLACES = frozenset(("a mountain", "a tree", "a building", "rocks", "water", "grass"))
"""What a still scene may show: nothing that comes and goes."""
_HELD_S = 3


@dataclass(frozen=True)
class Event:
    """Something that is shown for a while.

    Attributes:
        start_s: when it comes, in seconds of the stream.
        held_s: for how long.
        picture: what it shows; equal for two views of the same.
        caption: in words.
        key: a thing that it alone shows, or None.
        pixels: the picture.
    """

    start_s: int
    held_s: int
    picture: int
    caption: str
    key: str | None
    pixels: Callable[[], Pixels]


@dataclass(frozen=True)
class Hour:
    """A stream.

    Attributes:
        seconds: its length.
        every_s: from one frame to the next.
        events: in their order.
        still: what is seen between them, by the second.
        never: things that nothing in it shows.
    """

    seconds: int
    every_s: int
    events: Sequence[Event]
    still: Callable[[int], Pixels]
    never: tuple[str, ...]

    def pixels(self, at_s: int) -> Pixels:
        """What the camera sees."""
        for event in self.events:
            if event.start_s <= at_s < event.start_s + event.held_s:
                return event.pixels()
        return self.still(at_s)


def quiet_hour(pictures: Sequence[Picture], seconds: int, events: int, rng: np.random.Generator) -> Hour:
    """One scene whose light and view drift slowly, and now and then something else for three seconds.

    The events are photographs and rendered shapes. Some photographs show a thing that nothing else in the stream does.

    Exits with a message if there are too few events for these, or too many for the time.
    """
    if events < RENDERED + KEYS + 1:
        sys.exit(f"{events} events; at least {RENDERED + KEYS + 1} are needed: raise --events")
    if seconds // events <= _HELD_S + 1:
        sys.exit(f"{seconds} seconds for {events} events; {(_HELD_S + 2) * events} are needed: raise --seconds")
    scene, keyed, others, never = _cast(pictures, events - RENDERED, rng)
    objects = _rendered_objects(RENDERED, rng)
    early, late = keyed[:EARLY], [*keyed[EARLY:], *((p, None) for p in others), *objects]
    order = [*early, *(late[int(i)] for i in rng.permutation(len(late)))]
    slot = seconds // len(order)
    found: list[Event] = []
    for number, (shown, words) in enumerate(order):
        start_s = number * slot + int(rng.integers(1, slot - _HELD_S))
        if isinstance(shown, Picture):
            found.append(_photograph(shown, words, start_s, _HELD_S))
        else:
            found.append(Event(start_s, _HELD_S, -1 - number, str(words), None, partial(np.copy, shown)))
    return Hour(seconds, 1, found, _drifting(scene, rng), never)


def dense_hour(pictures: Sequence[Picture], seconds: int, every_s: int, rng: np.random.Generator) -> Hour:
    """A different image in every frame: photographs, then their mirror images, then parts of them."""
    order = [pictures[int(i)] for i in rng.permutation(len(pictures))]
    events = []
    for number in range(seconds // every_s):
        view, place = divmod(number, len(order))
        events.append(_photograph(order[place], None, number * every_s, every_s, view % len(_VIEWS)))
    return Hour(seconds, every_s, events, lambda _at_s: np.zeros((EDGE, EDGE, 3), np.uint8), ())


def _cast(
    pictures: Sequence[Picture], photographs: int, rng: np.random.Generator
) -> tuple[Picture, list[tuple[Picture, str]], list[Picture], tuple[str, ...]]:
    """The scene, photographs each with a thing of its own, others without these, and things that none shows."""
    shuffled = [pictures[int(i)] for i in rng.permutation(len(pictures))]
    scene = min((p for p in shuffled if p.mentions_any & PLACES), key=lambda p: (len(p.mentions_any - PLACES), p.index))
    rare = sorted(CONCEPTS, key=lambda c: sum(bool(p.mentions[c]) for p in pictures))
    never = tuple(rare[1 : 4 * NEVER : 4])
    free = [p for p in shuffled if p is not scene and not p.mentions_any & {*never}]
    keyed: list[tuple[Picture, str]] = []
    for thing in rare:
        taken = {key for _, key in keyed}
        if thing in scene.mentions_any or any(thing in p.mentions_any for p, _ in keyed) or len(keyed) == KEYS:
            continue
        picture = next((p for p in free if thing in p.shows and not p.mentions_any & taken), None)
        if picture is not None:
            keyed.append((picture, thing))
    keys = {key for _, key in keyed}
    others = [p for p in free if not p.mentions_any & keys][: photographs - len(keyed)]
    return scene, [keyed[int(i)] for i in rng.permutation(len(keyed))], others, never


def _photograph(picture: Picture, key: str | None, start_s: int, held_s: int, view: int = 0) -> Event:
    return Event(
        start_s, held_s, picture.index, sentence(picture.captions[0]), key,
        lambda: _VIEWS[view](read_picture(picture.path, EDGE)),
    )  # fmt: skip


def _rendered_objects(number: int, rng: np.random.Generator) -> list[tuple[Pixels, str]]:
    """Pictures of one coloured shape each, no two alike, with their captions."""
    found: dict[str, Pixels] = {}
    while len(found) < number:
        clip = counting(rng)
        for kind, _, answer in clip.questions:
            if kind == "caption":
                found.setdefault(answer, clip.frames[0])
    return [(pixels, caption) for caption, pixels in found.items()]


def _zoomed(pixels: Pixels) -> Pixels:
    margin = EDGE // 7
    return cv2.resize(pixels[margin:-margin, margin:-margin], (EDGE, EDGE), interpolation=cv2.INTER_LINEAR)


_VIEWS: tuple[Callable[[Pixels], Pixels], ...] = (
    lambda pixels: pixels,
    lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
    _zoomed,
    lambda pixels: np.ascontiguousarray(_zoomed(pixels)[:, ::-1]),
)


def _drifting(scene: Picture, rng: np.random.Generator) -> Callable[[int], Pixels]:
    """The scene as a camera on a pole sees it: swaying a little, in changing light, with noise of its own."""
    wide = cv2.resize(read_picture(scene.path, EDGE), (EDGE + 16, EDGE + 16), interpolation=cv2.INTER_LINEAR)
    phase = rng.uniform(0, 2 * np.pi, 3)

    def still(at_s: int) -> Pixels:
        x, y = (int(8 + 8 * np.sin(2 * np.pi * at_s / period + p)) for period, p in ((97, phase[0]), (131, phase[1])))
        light = 1 + 0.2 * np.sin(2 * np.pi * at_s / 1800 + phase[2])
        noise = np.random.default_rng(at_s).normal(0, 2, (EDGE, EDGE, 3))
        return np.clip(wide[y : y + EDGE, x : x + EDGE] * light + noise, 0, 255).astype(np.uint8)

    return still
