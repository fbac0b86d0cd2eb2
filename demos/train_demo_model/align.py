"""Before the language model is asked: visual tokens learn to stand where the words for what they show stand.

The language model's own embeddings of the most frequent caption words are fixed; each word scores against each visual
token by cosine, the best cells count, and a picture's words are those of its captions. It costs a hundredth of a step
through the language model, and from here on a visual token means something to it.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captions import Picture
from clips import COLOURS, SHAPES
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


def wanted_in_frames(frames: Sequence[frozenset[str]], words: Sequence[str]) -> Tensor:
    """Whether a frame of a clip shows what a word names, ``[frames, words]``."""
    return torch.tensor([[word in frame for word in words] for frame in frames], dtype=torch.float32)


def wanted(pictures: Sequence[Picture], words: Sequence[str]) -> Tensor:
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

    def forward(self, visual: Tensor) -> Tensor:
        """Logits of the words, ``[pictures, words]``, of visual tokens ``[pictures, cells, width]``."""
        similar = F.normalize(visual, dim=-1) @ self.directions.T * self.scale.exp()
        return similar.logsumexp(1) - np.log(visual.shape[1]) + self.bias

    def stray(self, visual: Tensor) -> Tensor:
        """How far the tokens' lengths are from those of words."""
        return (visual.norm(dim=-1) / self.length - 1).square().mean()


@dataclass(frozen=True)
class Source:
    """Pictures of one kind.

    Attributes:
        share: of a batch.
        wanted: their words, ``[pictures, words]``.
        maps: what the frozen encoder sees of some of them, by index, ``[pictures, channels, height, width]``.
    """

    share: float
    wanted: Tensor
    maps: Callable[[Generator, NDArray[np.int64]], NDArray[np.float16]]


def directions(network: Network, words: Sequence[str]) -> Tensor:
    """Where the language model has the words, ``[words, width]``; of a digit, its own token behind the space."""
    table = network.language_model.embed_tokens.weight.detach()
    ids = [network.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    return torch.stack(
        [table[i[-1:] if word.isdigit() else i].float().mean(0) for word, i in zip(words, ids, strict=True)]
    )


def align(
    network: Network, words: Sequence[str], sources: Sequence[Source], epochs: int, seed: int, path: Path
) -> None:
    """Train tower and projector for some epochs over all sources and write them to `path`."""
    console, rng = Console(), np.random.default_rng(seed)
    prior = sum(source.share * source.wanted.mean(0) for source in sources)
    reader = Reader(directions(network, words), torch.as_tensor(prior))
    groups = network.groups()
    optimiser = torch.optim.AdamW(
        [
            *({"params": groups[name], "lr": rate} for name, rate in RATES.items()),
            {"params": reader.parameters(), "lr": 3e-3},
        ],
        weight_decay=0.02,
    )
    steps = epochs * sum(len(source.wanted) for source in sources) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [g["lr"] for g in optimiser.param_groups], total_steps=steps
    )
    losses: list[float] = []
    for step in track(range(steps), "aligning", console=console):
        chosen = [rng.choice(len(s.wanted), round(s.share * BATCH), replace=False) for s in sources]
        maps = np.concatenate([s.maps(rng, places) for s, places in zip(sources, chosen, strict=True)])
        wanted = torch.cat([s.wanted[places] for s, places in zip(sources, chosen, strict=True)])
        visual = network.visual(torch.from_numpy(maps).float())
        missed = F.binary_cross_entropy_with_logits(reader(visual), wanted, reduction="none")
        loss = missed.sum(1).mean() + reader.stray(visual)
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            console.print(f"step {step + 1} of {steps}: {np.mean(losses[-100:]):.3f}")
    kept = {n: p.detach() for name in RATES for n, p in network.named_parameters() if any(p is q for q in groups[name])}
    torch.save(kept, path)


def _words(caption: str) -> list[str]:
    return [w for w in re.findall(r"[a-z]+", caption.lower()) if w not in _COMMON and len(w) > 1]
