"""What has arrived and waits for the engine: frames and text in one order, both bounded."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from inf_stream.base.errors import SessionError
from inf_stream.base.events import Frame
from inf_stream.session.queue import BoundedQueue, QueueRule
from inf_stream.session.steps import IngestFrames, IngestText


@runtime_checkable
class StepLimits(Protocol):
    """How much one step takes; every `SteppedEngine` says it, and may change its mind between steps."""

    @property
    def frames_per_step(self) -> int:
        """Most frames of one step."""
        ...

    @property
    def characters_per_step(self) -> int:
        """Most characters of one step."""
        ...


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A frame and its place in the order of everything that arrived."""

    place: int
    frame: Frame


@dataclass(slots=True)
class _Text:
    """A piece of text, and how many of its characters were taken already."""

    place: int
    text: str
    at_ns: int
    taken: int = 0


class Backlog:
    """Frames and text by order of arrival.

    Frames are bounded by their queue's capacity. Text is bounded softly: pieces are accepted while fewer than
    `capacity_characters` wait, so that never more than this and one piece is held.
    """

    def __init__(self, capacity_frames: int, rule: QueueRule, capacity_characters: int):
        self.frames: BoundedQueue[_Arrival] = BoundedQueue(capacity_frames, rule)
        self.capacity_characters = capacity_characters
        self.characters = 0
        self._texts: deque[_Text] = deque()

    def __bool__(self) -> bool:
        return bool(self.frames) or bool(self._texts)

    @property
    def full_of_text(self) -> bool:
        """Whether no more text is accepted now."""
        return self.characters >= self.capacity_characters

    def waits_before(self, place: int) -> bool:
        """Whether anything that arrived before `place` still waits."""
        return self._next_frame() < place or self._next_text() < place

    def add_frame(self, place: int, frame: Frame) -> Frame | None:
        """Queue a frame; returns the frame that the rule left out, if any.

        Raises:
            SessionError: the queue is full and its rule is to wait.
        """
        left_out = self.frames.push(_Arrival(place, frame))
        return None if left_out is None else left_out.frame

    def add_text(self, place: int, text: str, at_ns: int) -> None:
        """Queue a piece of text; an empty one is nothing.

        Raises:
            SessionError: too much text waits already.
        """
        if self.full_of_text:
            raise SessionError(
                f"{self.characters} characters of text wait, {self.capacity_characters} may; wait before sending more"
            )
        if text:
            self._texts.append(_Text(place, text, at_ns))
            self.characters += len(text)

    def take(self, limits: StepLimits, before: float = math.inf) -> IngestFrames | IngestText | None:
        """The next step's worth of what arrived before place `before`; None when there is nothing.

        Frames with no text between them go together, up to the limit. So does text of one and the same time;
        longer text is cut at white space where there is some.
        """
        frame, text = self._next_frame(), self._next_text()
        if min(frame, text) >= before:
            return None
        if frame < text:
            return self._take_frames(limits.frames_per_step, min(text, before))
        return self._take_text(limits.characters_per_step, min(frame, before))

    def clear(self) -> tuple[list[Frame], int]:
        """Give up everything; returns the frames and the number of characters that waited."""
        frames = [self.frames.pop().frame for _ in range(len(self.frames))]
        characters, self.characters = self.characters, 0
        self._texts.clear()
        return frames, characters

    def check(self) -> None:
        """Assert the invariants."""
        assert len(self.frames) <= self.frames.capacity, "the frame queue is bounded"
        assert self.characters == sum(len(t.text) - t.taken for t in self._texts), "characters are counted"
        assert all(t.taken < len(t.text) for t in self._texts), "no empty text waits"
        places = [t.place for t in self._texts]
        assert places == sorted(set(places)), "text waits in order of arrival"

    def _next_frame(self) -> float:
        return self.frames.head().place if self.frames else math.inf

    def _next_text(self) -> float:
        return self._texts[0].place if self._texts else math.inf

    def _take_frames(self, most: int, before: float) -> IngestFrames:
        taken: list[Frame] = []
        while len(taken) < most and self._next_frame() < before:
            taken.append(self.frames.pop().frame)
        return IngestFrames(tuple(taken))

    def _take_text(self, most: int, before: float) -> IngestText:
        at_ns = self._texts[0].at_ns
        joined, enough = "", most + 1
        for piece in self._texts:
            if piece.place >= before or piece.at_ns != at_ns or len(joined) == enough:
                break
            joined += piece.text[piece.taken : piece.taken + enough - len(joined)]
        text = joined if len(joined) <= most else joined[: _cut(joined, most)]
        self._remove_characters(len(text))
        return IngestText(text, at_ns)

    def _remove_characters(self, count: int) -> None:
        self.characters -= count
        while count:
            piece = self._texts[0]
            removed = min(count, len(piece.text) - piece.taken)
            piece.taken += removed
            count -= removed
            if piece.taken == len(piece.text):
                self._texts.popleft()


def _cut(text: str, most: int) -> int:
    """Where to cut `text`, of more than `most` characters: before its last white space, else at `most`."""
    space = max(text.rfind(" "), text.rfind("\n"))
    words = text[: max(space, 0)].rstrip()
    return len(words) or most
