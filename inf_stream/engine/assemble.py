"""Puts the stream together as one endless conversation: opening, turns, time texts, frames.

opening  [time text, frame] [time text, frame] ... question  ask  answer  again  [time text, frame] ...
------- user turn ------------------------------------------|----answer---|---- next user turn
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.base.errors import StateError
from inf_stream.base.events import Frame
from inf_stream.base.state import State
from inf_stream.base.tokens import NO_FRAME, TokenTags
from inf_stream.models.chunk import Chunk, VisualTokens
from inf_stream.models.stream_model import StreamModel


class Turn(Enum):
    """Whose turn the conversation is in."""

    UNOPENED = "unopened"
    USER = "user"
    USER_TEXT = "user, streamed text last"
    USER_FRAME = "user, frame last"
    ANSWER = "answer"
    ANSWERED = "answered"


@dataclass(frozen=True)
class AssemblerState:
    """Where a conversation stands."""

    turn: Turn
    segment: int
    now_ns: int


class Assembler:
    """Makes chunks of the stream, and remembers whose turn it is and the latest stream time.

    Nothing is remembered until `accept` is told that the chunk is in the cache.
    """

    def __init__(self, model: StreamModel, time_format: str):
        self._model, self._time_format = model, time_format
        self.turn = Turn.UNOPENED
        self._segment = 0
        self._now_ns = 0

    def opening(self) -> Chunk | None:
        """What comes before everything else, or None if the model wants nothing there."""
        assert self.turn is Turn.UNOPENED, "a stream opens once"
        ids = self._model.opening_ids()
        return self._chunk([self._text_of(self._model.embed(ids))]) if len(ids) else None

    def frame(self, frame: Frame, visual: VisualTokens) -> Chunk:
        """A frame with its time text, opening a user turn if none is open."""
        vision = self._model.vision
        assert vision is not None, "frames need a model that sees"
        self._at(frame.at_ns)
        before, after = vision.wrapping()
        head = self._before_user() + vision.time_text(self._time_format, frame.at_ns, frame.number) + before
        number = frame.number
        return self._chunk([self._text(head, number), self._visual(visual, number), self._text(after, number)])

    def text(self, text: str, at_ns: int) -> Chunk:
        """A piece of streamed text, in a user turn."""
        self._at(at_ns)
        return self._chunk([self._text(self._before_user() + self._after_frame() + text)])

    def question(self, text: str, at_ns: int) -> Chunk:
        """A question and what makes the model answer it."""
        self._at(at_ns)
        gap = "\n\n" if self.turn is Turn.USER_TEXT else self._after_frame()
        return self._chunk([self._text(self._before_user() + gap + text + self._model.turns.ask)])

    def answer_token(self, token_id: int) -> Chunk:
        """One token of the model's own answer."""
        return self._chunk([self._text_of(self._model.embed(torch.tensor([token_id])))])

    def accept(self, chunk: Chunk, turn: Turn) -> None:
        """The chunk is in the cache, and the conversation is now in `turn`."""
        self._segment = int(chunk.tags.segment[-1]) + 1
        self.turn = turn

    def place(self) -> AssemblerState:
        """Where the conversation stands now, for `return_to`."""
        return AssemblerState(self.turn, self._segment, self._now_ns)

    def return_to(self, place: AssemblerState) -> None:
        """Take back everything that was accepted since."""
        self.turn, self._segment, self._now_ns = place.turn, place.segment, place.now_ns

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """What is accepted inside is taken back if the block raises."""
        before = self.place()
        try:
            yield
        except BaseException:
            self.return_to(before)
            raise

    # ---- kept on disk ------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The latest stream time."""
        return self._now_ns

    def state(self) -> State:
        """Whose turn it is, and when."""
        return State(facts={"turn": self.turn.value, "segment": self._segment, "now_ns": self._now_ns})

    def restore(self, state: State) -> None:
        """Go on where another assembler was.

        Raises:
            StateError: it is not what `state` gives.
        """
        turn = state.fact("turn", str)
        if turn not in {t.value for t in Turn if t is not Turn.ANSWER}:
            raise StateError(f"the saved session is in the unknown state '{turn}'; it cannot be used")
        self._segment, self._now_ns = state.count("segment"), state.count("now_ns")
        self.turn = Turn(turn)

    # ---- inside ------------------------------------------------------------------------------------

    def _at(self, at_ns: int) -> None:
        self._now_ns = max(self._now_ns, at_ns)

    def _before_user(self) -> str:
        assert self.turn not in (Turn.UNOPENED, Turn.ANSWER), f"no user content in state '{self.turn.value}'"
        return self._model.turns.again if self.turn is Turn.ANSWERED else ""

    def _after_frame(self) -> str:
        """What the family was trained to see between a frame and the words after it."""
        vision = self._model.vision
        return vision.after_frames if vision is not None and self.turn is Turn.USER_FRAME else ""

    def _text(self, text: str, frame: int = NO_FRAME) -> Chunk:
        return self._text_of(self._model.embed(self._model.ids(text)), frame)

    def _text_of(self, embeds: Float[Tensor, "tokens width"], frame: int = NO_FRAME) -> Chunk:
        tokens = embeds.shape[0]
        zeros = torch.zeros(tokens, dtype=torch.int64)
        tags = TokenTags(
            time_ns=zeros + self._now_ns,
            frame=zeros + frame,
            segment=torch.arange(tokens),
            offsets=torch.zeros(3, tokens, dtype=torch.int64),
            visual=zeros,
        )
        return Chunk(embeds, tags)

    def _visual(self, visual: VisualTokens, frame: int) -> Chunk:
        zeros = torch.zeros(len(visual), dtype=torch.int64)
        tags = TokenTags(
            time_ns=zeros + self._now_ns,
            frame=zeros + frame,
            segment=zeros,
            offsets=visual.offsets.cpu(),
            visual=zeros + 1,
        )
        return Chunk(visual.embeds, tags, visual.deepstack)

    def _chunk(self, parts: list[Chunk]) -> Chunk:
        """Number the segments of the parts on from the last accepted one."""
        numbered, segment = [], self._segment
        for part in parts:
            if len(part):
                tags = part.tags
                moved = TokenTags(tags.time_ns, tags.frame, tags.segment + segment, tags.offsets, tags.visual)
                numbered.append(Chunk(part.embeds, moved, part.deepstack))
                segment = int(moved.segment[-1]) + 1
        return Chunk.concatenate(numbered)
