"""Before the language model is asked: visual tokens learn to stand where the words for what they show stand.

The language model's own embeddings of the most frequent caption words are fixed; each word scores against each visual
token by cosine. Of a photograph the words of its captions are known, not where they belong: the best cells count. Of a
rendered frame it is known what each cell shows, and no other cell may claim it, so that things can be counted and
followed. A picture costs a small part of what it costs in the language model, and from here on a visual token means
something to it.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captions import Picture
from clips import COLOURS, SHAPES, Words
from network import Network
from numpy.random import Generator
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, BATCH = 1200, 32
RATES = {"projector": 1e-3, "encoder": 2e-4}
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an the is are of in on to and with at his her their its it by as for from while one who that this there be "
        "has have some into up out off over through being",
    )
)


def vocabulary(pictures: Sequence[Picture]) -> list[str]:
    """The most frequent words of captions, those left out that name nothing; and all that rendered clips show."""
    counts = Counter(w for p in pictures for c in p.captions for w in set(_words(c)))
    rendered = [*COLOURS, *SHAPES, *"0123456789"]
    return list(dict.fromkeys([*(word for word, _ in counts.most_common(WORDS)), *rendered]))


def wanted_in_frames(frames: Sequence[Words], words: Sequence[str], cells: int) -> Tensor:
    """Whether a cell of a rendered frame holds the middle of what a word names, ``[frames, cells, words]``."""
    place, side = {word: i for i, word in enumerate(words)}, math.isqrt(cells)
    found = torch.zeros(len(frames), cells, len(words))
    for one, shown in zip(found, frames, strict=True):
        for word, *where in shown:
            column, row = (min(max(int(share * side), 0), side - 1) for share in where)
            one[row * side + column, place[word]] = 1
    return found


def wanted_in_pictures(pictures: Sequence[Picture], words: Sequence[str]) -> Tensor:
    """Share of a picture's captions that have a word, ``[pictures, words]``."""
    place = {word: i for i, word in enumerate(words)}
    found = torch.zeros(len(pictures), len(words))
    for row, picture in zip(found, pictures, strict=True):
        for caption in picture.captions:
            for word in set(_words(caption)) & place.keys():
                row[place[word]] += 1 / len(picture.captions)
    return found


class Reader(nn.Module):
    """Scores words against visual tokens.

    Args:
        embeddings: of the words, ``[words, width]``, fixed.
        prior: how frequent each is, ``[words]``.
    """

    def __init__(self, embeddings: Tensor, prior: Tensor):
        super().__init__()
        self.register_buffer("directions", F.normalize(embeddings.float(), dim=-1))
        self.length = float(embeddings.float().norm(dim=-1).mean())
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.bias = nn.Parameter(torch.logit(prior.clamp(1e-4, 0.9)))
        self.offset = nn.Parameter(torch.tensor(-2.0))

    def cells(self, visual: Tensor) -> Tensor:
        """Logits of the words in each cell, ``[pictures, cells, words]``, of visual tokens of the same shape."""
        return self._similar(visual) + self.bias + self.offset

    def forward(self, visual: Tensor) -> Tensor:
        """Logits of the words anywhere, ``[pictures, words]``, of visual tokens ``[pictures, cells, width]``."""
        return self._similar(visual).logsumexp(1) - math.log(visual.shape[1]) + self.bias

    def _similar(self, visual: Tensor) -> Tensor:
        similar: Tensor = F.normalize(visual, dim=-1) @ self.directions.T * self.scale.exp()
        return similar

    def stray(self, visual: Tensor) -> Tensor:
        """How far the tokens' lengths are from those of words."""
        return (visual.norm(dim=-1) / self.length - 1).square().mean()


@dataclass(frozen=True)
class Source:
    """Pictures of one kind.

    Attributes:
        share: of a batch.
        count: how many there are.
        wanted: words of some of them, by index: ``[pictures, words]``, or ``[pictures, cells, words]``.
        maps: what the frozen encoder sees of some of them, by index, ``[pictures, channels, height, width]``.
    """

    share: float
    count: int
    wanted: Callable[[NDArray[np.int64]], Tensor]
    maps: Callable[[Generator, NDArray[np.int64]], NDArray[np.float16]]


def directions(network: Network, words: Sequence[str]) -> Tensor:
    """Where the language model has the words, ``[words, width]``; of a digit, its own token behind the space."""
    table = network.language_model.embed_tokens.weight.detach()
    ids = [network.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    return torch.stack(
        [table[i[-1:] if word.isdigit() else i].float().mean(0) for word, i in zip(words, ids, strict=True)]
    )


def missed(reader: Reader, visual: Tensor, wanted: Tensor) -> Tensor:
    """Sum of what the reader gets wrong in each picture, ``[pictures]``."""
    logits = reader(visual) if wanted.ndim == 2 else reader.cells(visual)
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").flatten(1).sum(1)


def align(
    network: Network,
    words: Sequence[str],
    prior: Tensor,
    sources: Sequence[Source],
    epochs: int,
    seed: int,
    path: Path,
) -> None:
    """Train tower and projector for some epochs over the first source and write them to `path`."""
    console, rng = Console(), np.random.default_rng(seed)
    reader = Reader(directions(network, words), prior)
    groups = network.groups()
    optimiser = torch.optim.AdamW(
        [
            *({"params": groups[name], "lr": rate} for name, rate in RATES.items()),
            {"params": reader.parameters(), "lr": 3e-3},
        ],
        weight_decay=0.02,
    )
    counts = [round(source.share * BATCH) for source in sources]
    steps = epochs * sources[0].count // counts[0]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [g["lr"] for g in optimiser.param_groups], total_steps=steps
    )
    losses: list[list[float]] = []
    for step in track(range(steps), "aligning", console=console):
        chosen = [rng.choice(s.count, n, replace=False) for s, n in zip(sources, counts, strict=True)]
        maps = np.concatenate([s.maps(rng, places) for s, places in zip(sources, chosen, strict=True)])
        visual = network.visual(torch.from_numpy(maps).float())
        parts = [
            missed(reader, part, source.wanted(places))
            for source, part, places in zip(sources, visual.split(counts), chosen, strict=True)
        ]
        loss = torch.cat(parts).mean() + reader.stray(visual)
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append([part.mean().item() for part in parts])
        if (step + 1) % 100 == 0:
            console.print(f"step {step + 1} of {steps}: {np.mean(losses[-100:], axis=0).round(3)}")
    kept = {n: p.detach() for name in RATES for n, p in network.named_parameters() if any(p is q for q in groups[name])}
    torch.save(kept, path)


def _words(caption: str) -> list[str]:
    return [w for w in re.findall(r"[a-z]+", caption.lower()) if w not in _COMMON and len(w) > 1]
