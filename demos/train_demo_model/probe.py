"""Which encoder to build on: what a linear layer can read off each one's pooled features about what is in a picture.

    python demos/train_demo_model/probe.py --data DATA --work WORK

Mean average precision over the things of `captions.py`, trained on --train pictures, measured on --dev held-out ones.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from captions import CONCEPTS, Picture, load_pictures
from encoder import pretrained
from features import read_picture, scaled
from rich.progress import track
from torch import Tensor, nn

from inf_stream.models.towers import EfficientNetLite


@torch.inference_mode()
def pooled(tower: EfficientNetLite, pictures: Sequence[Picture], name: str) -> Tensor:
    """Means of both tapped maps, ``[pictures, channels]``."""
    found = []
    for start in track(range(0, len(pictures), 16), name):
        batch = [read_picture(p.path, tower.config.image_size) for p in pictures[start : start + 16]]
        found.append(torch.cat([m.mean((2, 3)) for m in tower.maps(scaled(batch))], dim=1))
    return torch.cat(found)


def labels(pictures: Sequence[Picture]) -> tuple[Tensor, Tensor]:
    """What is there, and where the captions leave no doubt: ``[pictures, concepts]`` each."""
    there = torch.tensor([[c in p.shows for c in CONCEPTS] for p in pictures])
    doubtful = torch.tensor([[0 < p.mentions[c] < 2 for c in CONCEPTS] for p in pictures])
    return there.float(), ~doubtful


def average_precision(scores: Tensor, there: Tensor) -> float:
    """Mean of the precision at every true one, best score first."""
    hits = there[scores.argsort(descending=True)]
    return float((hits.cumsum(0) / torch.arange(1, len(hits) + 1))[hits > 0].mean())


def probe(train: tuple[Tensor, Tensor, Tensor], dev: tuple[Tensor, Tensor, Tensor], steps: int = 400) -> float:
    """Mean average precision of a linear layer, over things with ten true ones or more."""
    mean, spread = train[0].mean(0), train[0].std(0) + 1e-6
    layer = nn.Linear(train[0].shape[1], len(CONCEPTS))
    optimiser = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=0.3)
    for _ in range(steps):
        losses = nn.functional.binary_cross_entropy_with_logits(
            layer((train[0] - mean) / spread), train[1], reduction="none"
        )
        (losses * train[2]).sum().div(train[2].sum()).backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.inference_mode():
        scores = layer((dev[0] - mean) / spread)
    columns = [(scores[k, c], dev[1][k, c]) for c in range(len(CONCEPTS)) if (k := dev[2][:, c]).any()]
    found = [average_precision(s, t) for s, t in columns if t.sum() >= 10]
    return sum(found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds flickr8k/")
    parser.add_argument("--work", type=Path, required=True, help="folder for downloads")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--dev", type=int, default=1000)
    args = parser.parse_args()
    torch.manual_seed(0)
    splits = [load_pictures(args.data / "flickr8k", n)[:k] for n, k in (("train", args.train), ("dev", args.dev))]
    for variant in (0, 1, 2):
        tower, began = pretrained(variant, args.work), time.thread_time()
        parts = [(pooled(tower, pictures, f"lite{variant}"), *labels(pictures)) for pictures in splits]
        ms = 1000 * (time.thread_time() - began) / sum(map(len, splits))
        found = probe(parts[0], parts[1])
        print(
            json.dumps({"encoder": f"EfficientNet-Lite{variant}", "map": round(found, 3), "ms_a_picture": round(ms, 1)})
        )


if __name__ == "__main__":
    main()
