"""What the model is trained on: a stream of frames and turns (the trunk), and questions asked beside it (branches).

A trunk is what the runtime would put into the cache. A branch sees the trunk up to where it is asked and leaves no
trace in it, so one stream serves many questions. All text is put together as the runtime does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from captions import CONCEPTS, Picture, absent, sentence
from clips import Clip
from numpy.random import Generator
from transformers import PreTrainedTokenizerBase

from inf_stream.base.clock import format_clock, nanoseconds
from inf_stream.models.template import TurnTemplate, turn_template

TIME_FORMAT, AFTER_FRAME = "{clock}", "\n"
"""As the runtime's family of the model has them."""

CAPTION_ASKS = ("What do you see?", "What is happening?", "Describe the picture.", "What is shown now?")
HELD = {4: 10, 8: 3}
"""Scenes of a stream, at most -> frames that show each, at most; longer streams have one frame a scene."""

STREAM_TOKENS, FRAME_TOKENS, QUESTION_TOKENS = 1500, 22, 45
"""About: of a long stream with its questions, of a frame with its time, of a question with its answers."""
LONG = 16
"""Scenes from which on a stream is long."""
KINDS = {"now": 0.1, "at": 0.35, "appear": 0.2, "when": 0.15, "first": 0.07, "ago": 0.05, "is now": 0.08}
LONG_KINDS = {"now": 0.04, "at": 0.46, "appear": 0.24, "when": 0.12, "first": 0.05, "ago": 0.04, "is now": 0.05}
"""How often what is asked."""
OTHERS = 3
"""Moments whose captions a question about one moment shall not be answered with."""

NOT_SEEN = "I have not seen that."

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Photo:
    """A photograph among the features: mirrored or not."""

    index: int
    mirrored: bool = False


@dataclass(frozen=True)
class ClipFrame:
    """A frame of a rendered clip."""

    clip: int
    frame: int


Shown = Photo | ClipFrame


@dataclass
class Branch:
    """A question beside the stream.

    Attributes:
        at: how many trunk pieces it sees.
        answers: each of them a right one.
        kind: for figures by kind.
        wrong: what the same question would be answered about other moments; the right one shall be likelier.
    """

    at: int
    question: str
    answers: tuple[str, ...]
    kind: str
    wrong: tuple[str, ...] = ()


@dataclass
class Sample:
    """A stream with its questions.

    Attributes:
        trunk: in stream order: what is shown and when (seconds), or a question with its answer.
    """

    trunk: list[tuple[Shown, float] | tuple[str, str]] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)

    @property
    def about_tokens(self) -> int:
        """Roughly how many tokens it takes."""
        return FRAME_TOKENS * len(self.trunk) + sum(10 + 13 * len(b.answers) + 18 * len(b.wrong) for b in self.branches)


class Words:
    """Token ids of the runtime's turns."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        turns: TurnTemplate = turn_template(tokenizer, "")
        self._turns = turns
        self.opening = self.ids(turns.opening)
        self.after_frame = self.ids(AFTER_FRAME)
        self.again = self.ids(turns.again)
        self.stop = self.again[0]

    def ids(self, text: str) -> list[int]:
        """Token ids, special tokens understood."""
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def time(self, at_s: float, *, answered: bool) -> list[int]:
        """What stands before a frame; `answered` if an answer was the last thing in the stream."""
        return self.ids(
            (self._turns.again if answered else "") + TIME_FORMAT.format(clock=format_clock(nanoseconds(at_s)))
        )

    def question(self, text: str, *, answered: bool) -> list[int]:
        """A question with what makes the model answer."""
        return self.ids((self._turns.again if answered else "") + text + self._turns.ask)

    def answer(self, text: str) -> list[int]:
        """An answer with what ends it."""
        return [*self.ids(text), self.stop]


def pick(rng: Generator, items: Sequence[str]) -> str:
    """One of them."""
    return items[int(rng.integers(len(items)))]


# ---- one picture -----------------------------------------------------------------------------------


def picture_sample(rng: Generator, picture: Picture, rare: Sequence[str]) -> Sample:
    """A picture with all its captions and some questions."""
    sample = Sample([(Photo(picture.index, bool(rng.random() < 0.5)), start_s(rng))])
    ask = pick(rng, CAPTION_ASKS)
    sample.branches.append(Branch(1, ask, tuple(sentence(c) for c in picture.captions), "caption"))
    seen = list(picture.shows)
    unseen = [c for c in CONCEPTS if c not in picture.mentions_any]
    if seen:
        sample.branches.append(Branch(1, there(rng, _weighted(rng, seen, rare)), ("Yes.",), "yes/no"))
        sample.branches.append(Branch(1, there(rng, pick(rng, unseen)), ("No.",), "yes/no"))
        # The same things, so that what is asked for tells nothing: negatives as frequent as positives.
        sample.branches.append(Branch(1, there(rng, _as_frequent(rng, unseen, rare)), ("No.",), "yes/no"))
        if len(seen) > 1:
            sample.branches.append(Branch(1, there(rng, pick(rng, seen)), ("Yes.",), "yes/no"))
    sample.branches += [Branch(1, question, (answer,), "attribute") for question, answer in picture.attributes]
    return sample


def there(rng: Generator, concept: str) -> str:
    """A question whether something is there."""
    plural = concept in ("sunglasses", "flowers", "rocks", "leaves")
    return pick(rng, (f"{'Are' if plural else 'Is'} there {concept}?", f"Do you see {concept}?"))


def start_s(rng: Generator) -> float:
    """When a stream begins, so that all clocks are learned: mostly at once, else within the first two hours."""
    kind = rng.random()
    return 0.0 if kind < 0.4 else float(rng.integers(0, 3600 if kind < 0.85 else 7200))


def _weighted(rng: Generator, seen: Sequence[str], rare: Sequence[str]) -> str:
    """Rarer things first, half of the time."""
    return min(seen, key=rare.index) if rng.random() < 0.5 else pick(rng, seen)


def _as_frequent(rng: Generator, unseen: Sequence[str], rare: Sequence[str]) -> str:
    """One of the things that are often there, the more often the likelier."""
    order = sorted(unseen, key=rare.index, reverse=True)
    return order[min(int(rng.exponential(6)), len(order) - 1)]


# ---- streams ---------------------------------------------------------------------------------------


def stream_sample(rng: Generator, pictures: Sequence[Picture], scenes: int) -> Sample:
    """A slideshow with times, questions about now and about before, and some turns of conversation in it."""
    chosen = [pictures[int(i)] for i in rng.choice(len(pictures), scenes, replace=False)]
    step = float(rng.choice([1, 2, 3, 5, 10, 15, 20, 30, 60]))
    at_s, sample = start_s(rng), Sample()
    longest = next((frames for most, frames in HELD.items() if scenes <= most), 1) if rng.random() < 0.5 else 1
    times: list[list[float]] = []
    talk = rng.random() < 0.5
    for number, picture in enumerate(chosen):
        mirrored = bool(rng.random() < 0.5)
        times.append([])
        for _ in range(int(rng.integers(1, longest + 1))):
            sample.trunk.append((Photo(picture.index, mirrored), at_s))
            times[-1].append(at_s)
            at_s += step
        upto, kinds = chosen[: number + 1], KINDS if scenes < LONG else LONG_KINDS
        if talk and rng.random() < min(0.35, 5 / scenes):
            branch = ask_about(rng, upto, times, 0, kinds)
            sample.trunk.append((branch.question, branch.answers[0]))
        for _ in range(_questions(rng, number, scenes)):
            sample.branches.append(ask_about(rng, upto, times, len(sample.trunk), kinds))
    while sample.about_tokens > 1.1 * STREAM_TOKENS and len(sample.branches) > 1:
        sample.branches.pop(int(rng.integers(len(sample.branches))))
    return sample


def ask_about(
    rng: Generator, seen: Sequence[Picture], times: Sequence[Sequence[float]], at: int, kinds: Mapping[str, float]
) -> Branch:
    """A question that can be asked after these pictures; `times` of the frames of each, in seconds."""
    kind = str(rng.choice(list(kinds), p=list(kinds.values())))
    if kind == "at":
        return ask_at(rng, seen, times, at)
    if kind == "appear":
        return ask_appear(rng, seen, at)
    if kind == "when":
        return ask_when(rng, seen, times, at)
    if kind == "first" and len(singles := single_appearances(seen)) > 1:
        one, two = (singles[int(i)] for i in rng.choice(len(singles), 2, replace=False))
        first = min(one, two, key=lambda found: found[1])
        return Branch(at, f"Which came first, {one[0]} or {two[0]}?", (f"{capital(first[0])}.",), "first")
    if kind == "ago" and (singles := single_appearances(seen)):
        concept, place = singles[int(rng.integers(len(singles)))]
        since = duration(times[-1][-1] - times[place][-1])
        return Branch(at, f"How long ago did you see {concept}?", (f"{since} ago.",), "ago")
    if kind == "is now" and seen[-1].shows:
        if rng.random() < 0.5:
            return Branch(at, f"Is there {pick(rng, seen[-1].shows)} now?", ("Yes.",), "is now")
        before = sorted({c for p in seen[:-1] for c in p.shows} - seen[-1].mentions_any)
        wrong = before or [c for c in CONCEPTS if c not in seen[-1].mentions_any]
        return Branch(at, f"Is there {pick(rng, wrong)} now?", ("No.",), "is now")
    return Branch(at, pick(rng, CAPTION_ASKS), (sentence(pick(rng, seen[-1].captions)),), "now")


def ask_at(rng: Generator, seen: Sequence[Picture], times: Sequence[Sequence[float]], at: int) -> Branch:
    """What was shown at the time of some frame; the answer names the time again."""
    place, *others = (int(i) for i in rng.permutation(len(seen))[: 1 + OTHERS])
    clock = format_clock(nanoseconds(times[place][int(rng.integers(len(times[place])))]))
    right, *wrong = (f"{clock} {sentence(pick(rng, seen[i].captions))}" for i in (place, *others))
    return Branch(at, f"What was shown at {clock}?", (right,), "at", tuple(wrong))


def ask_appear(rng: Generator, seen: Sequence[Picture], at: int) -> Branch:
    """Whether something appeared at all, as often with no as with yes."""
    present = sorted({c for p in seen for c in p.shows})
    missing = [c for c in CONCEPTS if absent(seen, c)]
    yes = bool(present) and (rng.random() < 0.5 or not missing)
    concept = pick(rng, present if yes else missing)
    question = pick(rng, (f"Did {concept} appear?", f"Have you seen {concept}?"))
    return Branch(at, question, ("Yes." if yes else "No.",), "appear")


def ask_when(rng: Generator, seen: Sequence[Picture], times: Sequence[Sequence[float]], at: int) -> Branch:
    """When the only scene with something was; or, of what was never there, that it was not."""
    missing = [c for c in CONCEPTS if absent(seen, c)]
    singles = single_appearances(seen)
    if singles and (rng.random() < 0.75 or not missing):
        concept, place = singles[int(rng.integers(len(singles)))]
        answer = f"{format_clock(nanoseconds(times[place][0]))}."
        return Branch(at, f"When did {concept} appear?", (answer,), "when")
    return Branch(at, f"When did {pick(rng, missing or ['a whale'])} appear?", (NOT_SEEN,), "not seen")


def single_appearances(seen: Sequence[Picture]) -> list[tuple[str, int]]:
    """Things that one scene surely shows and no other mentions, each with the scene's place."""
    found = []
    for concept in CONCEPTS:
        places = [i for i, p in enumerate(seen) if p.mentions[concept]]
        if len(places) == 1 and concept in seen[places[0]].shows:
            found.append((concept, places[0]))
    return found


def duration(s: float) -> str:
    """``40 seconds`` or ``3 minutes``."""
    whole = round(s)
    if whole < 60 or whole % 60:
        return f"{whole} second{'s' * (whole != 1)}" if whole < 120 else f"{round(whole / 60)} minutes"
    return f"{whole // 60} minute{'s' * (whole != 60)}"


def capital(text: str) -> str:
    """First letter large."""
    return f"{text[:1].upper()}{text[1:]}"


def _questions(rng: Generator, number: int, scenes: int) -> int:
    """Few in the middle, many at the end."""
    if number < scenes - 1:
        return int(rng.random() < min(0.3, 2 / scenes))
    room = (STREAM_TOKENS - FRAME_TOKENS * scenes) // QUESTION_TOKENS
    return min(max(6, scenes * 2 // 3), max(room, 5), 16)


# ---- rendered clips --------------------------------------------------------------------------------


def clip_sample(rng: Generator, clips: Sequence[Clip], lengths: Sequence[int]) -> Sample:
    """A rendered clip, one frame a second."""
    index = int(rng.integers(len(clips)))
    begin = start_s(rng)
    sample = Sample([(ClipFrame(index, i), begin + i) for i in range(lengths[index])])
    sample.branches += [Branch(lengths[index], q, (a,), kind) for kind, q, a in clips[index].questions]
    return sample


def rarest_first(pictures: Sequence[Picture]) -> list[str]:
    """Concepts by how many pictures show them."""
    counts = np.array([sum(c in p.shows for p in pictures) for c in CONCEPTS])
    return [list(CONCEPTS)[int(i)] for i in counts.argsort(kind="stable")]
