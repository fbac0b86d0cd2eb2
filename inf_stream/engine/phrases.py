"""Reads the words of a question: which events it names ("after the woman left"), and whether it is about the present.

English, by regular expressions. What cannot be told apart from another meaning ("before you answer", "when did ...")
names nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

MOST_EVENTS = 8
"""That one question names; each is looked for in all that is known."""

_SIDES = "before|until|till|after|since|when|while|during"
_FLAGS = re.IGNORECASE
# The word in front, the side, its event, and what ends that: a mark, the next side, or the text.
_EVENT = re.compile(
    rf"(?:\b([^\W\d_]+)\s+)?\b({_SIDES})\b(?!['\u2019-])([^,;:.!?\n]*?)(?=([,;:.!?\n])|\Z|\b(?:{_SIDES})\b)", _FLAGS
)
_SIDE = re.compile(rf"\b(?:{_SIDES})\b", _FLAGS)
_EITHER = re.compile(rf"\bor\s+(?:{_SIDES})\b|\b(?:{_SIDES})[\s,]+and\s+(?:{_SIDES})\b", _FLAGS)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_NOT = re.compile(r"\b(?:no|not|none|nothing|nobody|never|neither|nor|cannot|unknown|unsure)\b|n['\u2019]t\b", _FLAGS)

_PRESENT = re.compile(r"\b(?:is|are|am|do|does|will|now)\b|\b(?:what|who|where|there|it)['\u2019]s\b", _FLAGS)
_PAST = re.compile(
    r"\b(?:was|were|did|had|has|have|been|ago|earlier|ever|so far|remember|recall|came|went|left|saw|fell|ran|took|put"
    r"|got|gave|said|told|stood|sat|lost|broke|brought|made|found|held|rang|rose|began|threw|spoke|ate|lay|hid"
    r"|\w+[^\We]ed)\b",
    _FLAGS,
)

_PLACE = re.compile(r"(?:look|nam|tak|took|ran|run|chas|stood|stand|sat|sit|kne|park)\w*", _FLAGS)
"""In front of "before" and "after" these speak of places, persons and names."""
_ASKS_WHEN = re.compile(
    r"know|knew|me|us|say|tell|remember|recall|wonder|ask|guess|out|exactly|time|sure|see|saw|notice"
)
_VERB_FIRST = re.compile(
    r"\s*(?:exactly\s+)?(?:is|are|am|was|were|do|does|did|has|have|had|will|would|can|could|should|may|might)\b", _FLAGS
)
_SEEN_BY_US = re.compile(r"\b(?:you|we|i)\s+(?:saw|noticed|heard|spotted)\b", _FLAGS)

_WORD = re.compile(r"[^\W_]+")
_EMPTY = frozenset(
    _WORD.findall("""
    a an the this that these those my your our it its he him his she her hers they them their me us there here one
    other another each who whom whose which what some any all both every someone somebody something anyone anybody
    anything everyone everybody everything and or but so then than too also just right only even still again ever first
    last next finally suddenly exactly of in on at to into onto from with by for out up down off over away back around
    near as about is are am was were be been being do does did done has have had having will would can could yes okay
    appear appeared appearing disappear disappeared come came coming leave left leaving arrive arrived arriving enter
    entered entering exit exited go goes went gone happen happened start started begin began beginning end ended stop
    stopped show showed shown see seen saw visible present s t m d re ll ve""")
)
_NO_EVENT = frozenset(
    _WORD.findall("""
    i you we second minute hour day week month year while long time now today yesterday tomorrow tonight morning noon
    evening night midnight moment answer answered answering reply replying question""")
)


@dataclass(frozen=True, slots=True)
class NamedEvent:
    """An event by which a question says what time it is about.

    Attributes:
        begins: that time begins with the event (after, since), or spans it (when, while, during).
        ends: that time ends with the event (before, until), or spans it.
        words: all that a text must contain to speak of it, see `content_words`; at least one.
    """

    begins: bool
    ends: bool
    words: frozenset[str]


def read_events(text: str) -> list[NamedEvent]:
    """The events that a question names; none if it asks several things, about the present, or names too many."""
    if is_about_now(text) or _EITHER.search(text) or text.count("?") > 1:
        return []
    few = MOST_EVENTS + 1
    named = [found for sentence in sentences(text) if (found := list(islice(_events_of(sentence), few)))]
    return named[0] if len(named) == 1 and len(named[0]) < few else []


def _events_of(sentence: str) -> Iterator[NamedEvent]:
    for match in _EVENT.finditer(sentence):
        front, side, event, mark = match[1] or "", match[2].lower(), _SEEN_BY_US.sub("", match[3]), match[4]
        is_first = not sentence[: match.start(2)].strip()
        if not _misleads(front.lower(), side, event) and not (side == "when" and is_first and mark != ","):
            words = content_words(event)
            if words and not any(word in _NO_EVENT or word.isdigit() for word in words):
                yield NamedEvent(side not in ("before", "until", "till"), side not in ("after", "since"), words)


def _misleads(front: str, side: str, event: str) -> bool:
    """Whether the words around a side give it another meaning."""
    if side == "when":
        return bool(_ASKS_WHEN.fullmatch(front) or _VERB_FIRST.match(event))
    return front in ("a", "an", "the") or (side in ("before", "after") and bool(_PLACE.fullmatch(front)))


def content_words(text: str) -> frozenset[str]:
    """What a text speaks of: its words, case-folded, without a plural s, less those that are in any text."""
    words = (word for word in _WORD.findall(text.casefold()) if word not in _EMPTY)
    return frozenset(word for word in map(_singular, words) if word not in _EMPTY)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def is_about_now(text: str) -> bool:
    """Whether a question is about the present, as its verbs say: "What do you see?", "Is there a dog?"."""
    return bool(_PRESENT.search(text)) and is_never_past(text)


def is_never_past(text: str) -> bool:
    """Whether nothing in a text speaks of the past."""
    return not _PAST.search(text)


def names_a_side(text: str) -> bool:
    """Whether a text has a word such as "before" or "when", whatever it means there."""
    return bool(_SIDE.search(text))


def sentences(text: str) -> list[str]:
    """A text's sentences and lines."""
    return [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]


def asked_in(text: str) -> str:
    """The sentence of a question that asks: the last one with a question mark, or the last one."""
    every = sentences(text)
    return next((sentence for sentence in reversed(every) if "?" in sentence), every[-1] if every else "")


def affirmed_in(answer: str) -> str:
    """What an answer says that is so: its sentences that deny nothing."""
    return " ".join(sentence.strip() for sentence in sentences(answer) if not _NOT.search(sentence))
