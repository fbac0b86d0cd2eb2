"""Maps of attention: what each token of a stream receives from each round of it, with nothing evicted.

A round is a chunk of a text or a frame of a video, or a question asked aside. Every step is watched, so the maps come
from the same cache and the same attention as everything else.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import track

sys.path.append(str(Path(__file__).parents[1]))
from columns import fits
from perplexity import text_tags

from inf_stream.base.config import AnswerSettings
from inf_stream.base.errors import BudgetError
from inf_stream.base.events import Frame
from inf_stream.base.tokens import NO_FRAME, TokenTags
from inf_stream.cache.policies.full import Full
from inf_stream.cache.step import CacheStep
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.assemble import Turn
from inf_stream.engine.engine import Engine
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel

FIRST = 4
"""Tokens that count as the first ones, at least: all of a video's opening do."""
TEXT_KINDS = ("first", "recent", "line break", "punctuation", "digit", "capital", "other")
VIDEO_KINDS = ("first", "recent", "time text", "first visual", "other visual", "text after")
QUESTION = "question"
VIDEO_TOKENS = 1024
"""Tokens that the cache of a video begins with; it grows."""
VIDEO_CHUNK = 1024
"""Tokens that it takes at once."""


@dataclass(frozen=True)
class AttentionMaps:
    """What tokens received, with what is known of them.

    Attributes:
        received: mean attention of a map's queries to each token, each map adding up to 1 over the tokens.
        at: the round of the stream in which each map was taken.
        came: the round of the stream in which each token came.
        kinds: of each token; the first ones are `first`, and those of a question asked aside `QUESTION`.
    """

    received: Float[np.ndarray, "maps layers kv_heads tokens"]
    at: Int[np.ndarray, "maps"]
    came: Int[np.ndarray, "tokens"]
    kinds: np.ndarray


@dataclass(frozen=True)
class FullByHead(Full):
    """Keeps everything, and tells the key/value heads apart."""

    name: ClassVar[str] = "full-by-head"

    @property
    def per_head(self) -> bool:
        return True


class Recorder:
    """Adds up what watched steps give until it is taken; in place of an engine's `EvidenceMeter`."""

    def __init__(self) -> None:
        self._received: np.ndarray | None = None
        self._tags: list[TokenTags] = []

    def add(self, step: CacheStep) -> None:
        """Take in a watched step after the model has run."""
        received = torch.stack(step.received).float().cpu().numpy()
        if self._received is not None:
            received[..., : self._received.shape[-1]] += self._received
        self._received = received
        self._tags.append(step.tags)

    def take(self) -> tuple[Float[np.ndarray, "layers kv_heads slots"], TokenTags]:
        """Mean attention of all queries since the last call, and their tags."""
        assert self._received is not None, "a step was read"
        received, tags = self._received, TokenTags.concatenate(self._tags)
        self._received, self._tags = None, []
        return received / len(tags), tags


def kind_of(token: str) -> str:
    """What kind of token a piece of text is, by what it looks like."""
    word = token.strip(" ")
    if "\n" in word:
        return "line break"
    if not any(c.isalnum() for c in word):
        return "punctuation"
    if word.isdigit():
        return "digit"
    return "capital" if word[0].isupper() else "other"


def kinds_of_frame(tags: TokenTags) -> list[str]:
    """Kinds of the tokens of one frame, and of an opening before it."""
    visual, frame = tags.visual.cpu().numpy() > 0, tags.frame.cpu().numpy()
    nth = visual.cumsum()
    visual_kinds = np.where(nth == 1, "first visual", "other visual")
    text_kinds = np.where(nth == 0, "time text", "text after")
    kinds: list[str] = np.where(frame == NO_FRAME, "first", np.where(visual, visual_kinds, text_kinds)).tolist()
    return kinds


@torch.inference_mode()
def text_maps(model: StreamModel, ids: torch.Tensor, chunk: int) -> AttentionMaps:
    """One map for each whole chunk of a text."""
    cache = StreamCache(
        model.layout, FullByHead(), model.rotation, budget_tokens=len(ids), chunk_tokens=chunk, evict_every_tokens=chunk
    )
    recorder, parts = Recorder(), []
    rounds = len(ids) // chunk
    for number in track(range(rounds), "reading", console=Console(stderr=True), transient=True):
        first = number * chunk
        tags = text_tags(first, chunk)
        step = cache.begin(tags, watched=True)
        model.forward(Chunk(model.embed(ids[first : first + chunk]), tags), step)
        recorder.add(step)
        cache.commit(step)
        parts.append(recorder.take()[0])
    kinds = [kind_of(model.tokenizer.decode([int(i)])) for i in ids[: rounds * chunk]]
    came = np.repeat(np.arange(rounds), chunk)
    return AttentionMaps(_lay(parts, len(came)), np.arange(rounds), came, _first_marked(kinds))


@torch.inference_mode()
def video_maps(
    model: StreamModel, frames: Iterable[Frame], questions: Sequence[str], ask_every: int
) -> tuple[AttentionMaps, dict[str, AttentionMaps]]:
    """One map for each frame, as far as the trained context goes, and those of each question.

    After every `ask_every` frames each question is asked aside, which leaves no trace.

    Raises:
        ModelError: the model reads text only.
        BudgetError: no frame fits its trained context.
    """
    sizes = {"budget_tokens": VIDEO_TOKENS, "chunk_tokens": VIDEO_CHUNK, "evict_every_tokens": VIDEO_CHUNK}
    engine = Engine(model, StreamCache(model.layout, FullByHead(), model.rotation, **sizes), AnswerSettings())
    engine._reader.meter = recorder = Recorder()
    parts: list[np.ndarray] = []
    kinds: list[str] = []
    came: list[int] = []
    asked: dict[str, list[tuple[int, np.ndarray]]] = {text: [] for text in questions}
    for number, frame in enumerate(frames):
        if not fits(engine, 0):
            break
        engine.ingest_frames([frame])
        received, tags = recorder.take()
        parts.append(received)
        kinds += kinds_of_frame(tags)
        came += [number] * len(tags)
        if (number + 1) % ask_every == 0:
            for text, maps in asked.items():
                maps.append((number, _ask_aside(engine, recorder, text, frame.at_ns)))
    if not parts:
        trained = model.weights.config.get_text_config().max_position_embeddings
        raise BudgetError(f"a trained context of {trained} tokens has no room for a frame: choose another model")
    stream = AttentionMaps(_lay(parts, len(came)), np.arange(len(parts)), np.array(came), _first_marked(kinds))
    return stream, {text: _question_maps(stream, maps) for text, maps in asked.items() if maps}


def _ask_aside(engine: Engine, recorder: Recorder, text: str, at_ns: int) -> np.ndarray:
    """What a question's queries give, its own tokens last."""
    before = engine._assembler.place()
    engine.cache.set_mark()
    try:
        chunk = engine._assembler.question(text, at_ns)
        engine._reader.read(chunk)
        engine._assembler.accept(chunk, Turn.ANSWER)
    finally:
        engine.cache.return_to_mark()
        engine._assembler.return_to(before)
    return recorder.take()[0]


def _question_maps(stream: AttentionMaps, asked: list[tuple[int, np.ndarray]]) -> AttentionMaps:
    """Maps over the tokens of the stream and, behind all of them, the question's own."""
    at = np.array([number for number, _ in asked])
    seen = int(np.searchsorted(stream.came, at[0], side="right"))
    own = asked[0][1].shape[-1] - seen
    return AttentionMaps(
        _lay([part for _, part in asked], len(stream.came), own),
        at,
        np.append(stream.came, np.full(own, len(stream.at))),
        np.append(stream.kinds, np.full(own, QUESTION)),
    )


def _lay(parts: list[np.ndarray], tokens: int, own: int = 0) -> np.ndarray:
    """Parts over the tokens seen so far as maps over all, the last `own` of each behind those of the stream."""
    maps = np.zeros((len(parts), *parts[0].shape[:2], tokens + own), dtype=np.float32)
    for one, part in zip(maps, parts, strict=True):
        seen = part.shape[-1] - own
        one[..., :seen] = part[..., :seen]
        one[..., tokens:] = part[..., seen:]
    return maps


def _first_marked(kinds: list[str]) -> np.ndarray:
    return np.array(["first"] * FIRST + kinds[FIRST:])
