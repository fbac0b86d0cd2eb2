"""What is compared: a policy with its options, and what an archive gives back; and a conversation on it.

A column is written `policy`, `policy:key=value,key=value` or either with `+recall`:

    full                    keeps everything
    inf-mllm                the bounded cache alone
    inf-mllm+recall         with what ships: blocks of the archive come back for a question
    inf-mllm+means          the same with `archive.choose_by = "means"`
    inf-mllm+attended       the same with `archive.choose_by = "attention"`
    inf-mllm+untimed        as it ships, without reading times from the question
    inf-mllm+all-vote       the same, with a vote and a choice of every layer
    streaming-llm+rekv      sinks and a window, and ReKV's choice among the archive's blocks (arXiv 2503.00540): each
                            layer by itself, by the question's mean query against the blocks' mean keys
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).parents[1]))
from facts import Item
from rivals import choose_as, take_queries_as_they_are

from inf_stream.base.config import settings_from_mapping
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.assemble import Turn
from inf_stream.engine.build import build_engine
from inf_stream.engine.engine import Engine
from inf_stream.engine.moments import read_span
from inf_stream.models.weights.loaded import LoadedWeights

RECALLS = {n: n for n in ("", "recall", "means", "attended", "untimed", "all-vote")} | {"rekv": "mean-query"}
CHOOSE_BY = {"attended": "attention", "means": "means", "rekv": "means"}
S = 1_000_000_000
TURN_TOKENS = 256
"""More than the opening and a turn's own tokens take."""


def parse_policy(word: str) -> tuple[str, dict[str, Any]]:
    """``name:key=value,key=value`` as a name and options."""
    name, _, rest = word.partition(":")
    pairs = (pair.partition("=") for pair in rest.split(",") if pair)
    return name, {key: json.loads(value) for key, _, value in pairs}


@dataclass(frozen=True)
class Sizes:
    """Tokens a column may keep and recall, and how it is fed; all columns of a table have the same."""

    budget: int
    recall: int
    chunk: int
    evict_every: int
    archive_mib: int


@dataclass(frozen=True)
class Reply:
    """Of an answer of which only the digits count.

    Attributes:
        right: the model's likeliest next token is the right one at each digit, and no digit follows. So exactly what
            greedy decoding after the same lead would say is judged, in one forward pass.
        loss: mean negative log likelihood of the right digits.
        kept: share of the item's tokens that were live, over all layers.
        recalled: share of the item's tokens that were recalled, over all layers, or None where nothing is.
    """

    right: bool
    loss: float
    kept: float
    recalled: float | None


def build_column(weights: LoadedWeights, column: str, sizes: Sizes) -> tuple[Engine, str]:
    """The engine of a column, and the name of its way to recall, as `choose_as` takes it.

    Raises:
        SystemExit: the column names a way to recall that there is not.
    """
    word, _, recall = column.partition("+")
    if recall not in RECALLS:
        sys.exit(f"no recall '{recall}' (column '{column}'); there are: {', '.join(r for r in RECALLS if r)}")
    policy, options = parse_policy(word)
    choose_by = CHOOSE_BY.get(recall, "auto")
    archive = {"host_mib": sizes.archive_mib, "recall_tokens": sizes.recall, "choose_by": choose_by}
    cache = {
        "policy": policy,
        "budget_tokens": sizes.budget,
        "chunk_tokens": sizes.chunk,
        "evict_every_tokens": sizes.evict_every,
    }
    settings = settings_from_mapping({"cache": cache, "policy": options, "archive": archive if recall else {}})
    engine = build_engine(settings, weights)
    if RECALLS[recall] == "mean-query":
        take_queries_as_they_are(engine.cache)
    return engine, RECALLS[recall]


def fits(engine: Engine, tokens: int) -> bool:
    """Whether a policy that keeps everything stays inside the trained context with so many more; others always do."""
    cache, trained = engine.cache, engine.model.weights.config.get_text_config().max_position_embeddings
    return cache.policy.bounded or cache.used_tokens + tokens + TURN_TOKENS <= int(trained)


class Conversation:
    """One endless conversation in one column (see `build_column`)."""

    def __init__(self, weights: LoadedWeights, column: str, sizes: Sizes):
        self.engine, self._recall = build_column(weights, column, sizes)
        self._spans: dict[Item, tuple[int, int]] = {}
        vocabulary = self.engine.model.tokenizer.get_vocab()
        self._digits = {number for token, number in vocabulary.items() if token.strip("ĠĊ▁ ").isdecimal()}

    def fits(self, text: str) -> bool:
        """Whether a policy that keeps everything stays inside the context the model was trained on; others do."""
        return fits(self.engine, len(self.engine.model.ids(text)))

    def read(self, text: str, items: Iterable[Item], at_s: int) -> None:
        """Read a piece of the stream, and note where its items came to stand."""
        self.engine.ingest_text(text, at_s * S)
        seen, ids = self.engine.cache.seen_tokens, self.engine.model.ids
        for item in items:
            start = text.index(item.text)
            rest = start + len(item.text)
            self._spans[item] = seen - len(ids(text[start:])), seen - len(ids(text[rest:]))

    def ask(self, item: Item, at_s: int, *, aside: bool) -> Reply:
        """Ask, let the answer begin with the item's lead, and judge what follows; an aside leaves no trace.

        What is not an aside stays, with the right answer whatever the model would have said, so that all columns
        read the same stream.

        Exits with a message if an aside is longer than the room between two evictions.
        """
        engine, cache = self.engine, self.engine.cache
        before = engine._assembler.place()
        if aside:
            cache.set_mark()
        try:
            span = read_span(item.question, at_s * S)
            cache.open_recall(span)
            choose_as(self._recall, cache, span)
            asked = engine._assembler.question(item.question, at_s * S)
            answer = len(engine.model.ids(item.lead + item.digits))
            if aside and cache.policy.bounded and len(asked) + answer > cache.room_tokens:
                sys.exit(f"'{item.question}' needs {len(asked) + answer} tokens of room: raise --chunk above that")
            kept = self._kept(item)
            engine._reader.read(asked)
            cache.end_choice(learn=not aside)
            engine._assembler.accept(asked, Turn.ANSWER)
            recalled = self._recalled(item)
            right, loss = self._judge(item)
        finally:
            cache.close_recall()
            if aside:
                cache.return_to_mark()
                engine._assembler.return_to(before)
        if not aside:
            engine._assembler.turn = Turn.ANSWERED
        return Reply(right, loss, kept, recalled)

    def _judge(self, item: Item) -> tuple[bool, float]:
        engine, model = self.engine, self.engine.model
        lead, right = model.ids(item.lead), model.ids(item.digits)
        said = engine._assembler._chunk([engine._assembler._text_of(model.embed(torch.cat((lead, right))))])
        logits = model.logits(engine._reader.read(said)).cpu()[len(lead) - 1 :]
        engine._assembler.accept(said, Turn.ANSWER)
        likeliest = logits.argmax(-1)
        is_right = bool((likeliest[:-1] == right).all()) and int(likeliest[-1]) not in self._digits
        return is_right, float(-logits[:-1].log_softmax(-1).gather(1, right[:, None]).mean())

    def _kept(self, item: Item) -> float:
        return live_share(self.engine.cache, *self._spans[item])

    def _recalled(self, item: Item) -> float | None:
        return recalled_share(self.engine.cache, *self._spans[item])


def live_share(cache: StreamCache, first: int, end: int) -> float:
    """How much of the stream's tokens `first` to `end` is live, over all layers."""
    index = cache.slots.view().index
    return float(((index >= first) & (index < end)).sum(-1).float().mean()) / (end - first)


def recalled_share(cache: StreamCache, first: int, end: int) -> float | None:
    """How much of the stream's tokens `first` to `end` is recalled, over all layers, or None where nothing is."""
    recall = cache.recall
    if recall is None:
        return None
    shares = []
    for layer, window in enumerate(cache.layout.sliding_windows):
        if window is None:
            firsts, tokens = recall.archive.spans(recall.chosen(layer))
            inside = (firsts + tokens).clamp(max=end) - firsts.clamp(min=first)
            shares.append(int(inside.clamp(min=0).sum()) / (end - first))
    return sum(shares) / len(shares)
