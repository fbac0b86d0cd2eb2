"""Train the built-in model that sees: one command, resumable at any moment, the same run from the same seed.

    python demos/train_demo_model/train.py --data FOLDER_WITH_FLICKR8K --work /tmp/demo_model

Everything is kept in --work: downloads, features of the frozen encoder (computed once), the newest checkpoint, a log
with one JSON line a report and a plot of it. Start it again to go on. The learning rate stays level and falls to zero
over the last three tenths of --steps, so a longer run can start from the level part: give more --steps.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from align import Source, align, vocabulary, wanted_in_frames, wanted_in_pictures
from captions import Picture, load_pictures
from clips import Clip
from features import clip_maps, photo_maps
from network import Network
from numpy.random import Generator
from numpy.typing import NDArray
from packing import Batch, Packer
from plot import draw
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from samples import LONG, Photo, Sample, Shown, Words, clip_sample, picture_sample, rarest_first, stream_sample
from torch import Tensor

CLIP_SEEDS = {"train": range(4000), "dev": range(1_000_000, 1_000_300)}
RATES = {"projector": 1e-3, "encoder": 1e-4, "language model": 6e-4}
WARM_UP, DECAY = 50, 0.3
SEEING = {"pictures": 0.6, "streams": 0.08, "clips": 0.32}
REMEMBERING = {"pictures": 0.14, "streams": 0.18, "long streams": 0.24, "clips": 0.44}
SEEING_SHARE = 0.4
"""Of the steps, how many teach to see before the rest teaches to remember what was seen."""

ALIGN_EPOCHS, ALIGNED = 6, "aligned.pt"
BATCH_TOKENS, BATCH_SQUARE = 1200, 1_200_000
"""Of a batch, about: its tokens, and its samples times the square of the longest, which memory goes with."""
LONGEST = 60
"""Scenes of a stream; attention over more costs memory with their square."""

CHOICE, SHARPNESS = 0.5, 4.0
"""What choosing among answers counts beside giving them, and by how much a nat a token is a better choice."""

REPORT, KEEP, CHECK = 10, 50, 200


class Split:
    """Pictures and clips of a split with their features."""

    def __init__(self, network: Network, data: Path, work: Path, name: str):
        tower = network.model.model.vision_tower
        self.pictures: list[Picture] = load_pictures(data / "flickr8k", name)
        self._photos = photo_maps(tower, self.pictures, work / f"photos_{name}.npy")
        self.clips: list[Clip]
        self.clips, self._frames = clip_maps(tower, CLIP_SEEDS[name], work / f"clips_{name}.npy")
        self.clip_lengths = [len(f) for f in self._frames]
        self.rare = rarest_first(self.pictures)

    def maps(self, shown: list[Shown]) -> Tensor:
        """Features of what a batch shows, ``[shown, channels, height, width]``, float32."""
        return torch.from_numpy(np.stack([self._map(s) for s in shown])).float()

    def _map(self, shown: Shown) -> NDArray[np.float16]:
        if isinstance(shown, Photo):
            return self._photos[int(shown.mirrored), shown.index]
        return self._frames[shown.clip][shown.frame]

    def sources(self, words: Sequence[str], cells: int) -> tuple[list[Source], Tensor]:
        """Photographs and frames of clips, to be aligned with words; and how frequent the words are."""
        in_photos = wanted_in_pictures(self.pictures, words)
        frames = [m for maps in self._frames for m in maps]
        shown = [words for clip in self.clips for words in clip.words]
        photos = Source(
            0.7, len(in_photos), lambda i: in_photos[i], lambda rng, i: self._photos[int(rng.integers(2))][i]
        )
        rendered = Source(
            0.3,
            len(frames),
            lambda i: wanted_in_frames([shown[n] for n in i], words, cells),
            lambda _, i: np.stack([frames[n] for n in i]),
        )
        return [photos, rendered], in_photos.mean(0)

    def draw(self, rng: Generator, kind: str) -> list[Sample]:
        """Samples of one kind, within `BATCH_TOKENS` and `BATCH_SQUARE`, as far as they can be told beforehand."""
        if kind == "pictures":
            chosen = rng.choice(len(self.pictures), 8, replace=False)
            return [picture_sample(rng, self.pictures[int(i)], self.rare) for i in chosen]
        if kind == "streams":
            scenes, found = int(rng.integers(2, 13)), list[Sample]()
            while sum(s.about_tokens for s in found) < BATCH_TOKENS:
                more = [*found, stream_sample(rng, self.pictures, scenes)]
                if found and len(more) * max(s.about_tokens for s in more) ** 2 > BATCH_SQUARE:
                    break
                found = more
            return found
        if kind == "long streams":
            return [stream_sample(rng, self.pictures, int(rng.integers(LONG, LONGEST + 1)))]
        return [clip_sample(rng, self.clips, self.clip_lengths) for _ in range(14)]


def rate(step: int, steps: int) -> float:
    """Share of the full learning rate: warm-up, level, linear to zero."""
    return min((step + 1) / WARM_UP, 1.0, (steps - step) / (steps * DECAY))


def draw_kind(rng: Generator, mixture: Mapping[str, float]) -> str:
    """A kind of batch."""
    return str(rng.choice(list(mixture), p=list(mixture.values())))


def mean(losses: Tensor, batch: Batch) -> Tensor:
    """Weighted mean over the targets."""
    return (losses * batch.weights).sum() / batch.weights.sum()


def choosing(losses: Tensor, batch: Batch) -> tuple[Tensor, float]:
    """Of questions with wrong answers, too: cross entropy of the right one by mean likelihood; how many were right."""
    if not batch.choices:
        return losses.new_zeros(()), 1.0
    tokens = torch.bincount(batch.answers, minlength=len(batch.kinds))
    likely = -losses.new_zeros(len(batch.kinds)).index_add(0, batch.answers, losses) / tokens
    options = [SHARPNESS * likely[first : first + number] for first, number in batch.choices]
    right = np.mean([int(o.argmax()) == 0 for o in options])
    return torch.stack([torch.logsumexp(o, 0) - o[0] for o in options]).mean(), float(right)


def by_kind(losses: Tensor, batch: Batch) -> dict[str, float]:
    """Mean loss a token, by kind of question."""
    kinds, losses = [batch.kinds[a] for a in batch.answers.tolist()], losses.cpu()
    return {kind: float(losses[torch.tensor([k == kind for k in kinds])].mean()) for kind in sorted(set(kinds))}


@torch.no_grad()
def check(network: Network, packer: Packer, dev: Split, device: torch.device) -> dict[str, float]:
    """Losses on held-out data, the same each time."""
    found: dict[str, list[float]] = {}
    for number, kind in enumerate(("pictures",) * 3 + ("streams",) * 3 + ("long streams",) * 4 + ("clips",) * 3):
        batch = packer.pack(dev.draw(np.random.default_rng([1, number]), kind)).to(device)
        losses = network.losses(batch, dev.maps(batch.shown).to(device))
        for name, loss in by_kind(losses, batch).items():
            found.setdefault(f"{name}, long" if kind == "long streams" else name, []).append(loss)
        if batch.choices:
            found.setdefault(f"chosen right, {kind}", []).append(choosing(losses, batch)[1])
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


def save(path: Path, network: Network, optimiser: torch.optim.Optimizer, step: int) -> None:
    """Write a checkpoint; the one before stays until the new one is whole."""
    torch.save(
        {"step": step, "trained": network.trained(), "optimiser": optimiser.state_dict()}, path.with_suffix(".new")
    )
    path.with_suffix(".new").replace(path)


def share(parameters: list[torch.nn.Parameter], processes: int) -> None:
    """Mean of the gradients over all processes."""
    if processes > 1:
        flat = torch.cat([p.grad.flatten() for p in parameters])
        dist.all_reduce(flat)
        for p, mean_gradient in zip(
            parameters, flat.div_(processes).split([p.numel() for p in parameters]), strict=True
        ):
            p.grad.copy_(mean_gradient.view_as(p))


def train(rank: int, args: argparse.Namespace) -> None:
    """Train to --steps, as one of several equal processes; the first one reports and keeps."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    if args.processes > 1:
        meeting = f"file://{args.work.resolve() / 'meeting'}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.processes)
    first, console = rank == 0, Console(quiet=rank > 0)
    device = torch.device(args.device)
    network = Network(args.encoder, args.rank, args.work)
    train_split, dev = (Split(network, args.data, args.work, name) for name in ("train", "dev"))
    packer = Packer(Words(network.tokenizer), network.cells)
    if args.begin_with is None:
        network.load_state_dict(torch.load(args.work / ALIGNED, weights_only=True), strict=False)
    else:
        network.load_graft(args.begin_with)
    network.to(device)
    groups = network.groups()
    parameters = [p for group in groups.values() for p in group]
    optimiser = torch.optim.AdamW(
        [{"params": group, "lr": RATES[name], "full": RATES[name]} for name, group in groups.items()],
        betas=(0.9, 0.98),
        weight_decay=0.01,
    )
    checkpoint, log, begin = args.work / "checkpoint.pt", args.work / "log.jsonl", 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True, map_location=device)
        network.load_state_dict(kept["trained"], strict=False)
        optimiser.load_state_dict(kept["optimiser"])
        begin = kept["step"]
        console.print(f"going on after step {begin}")
    if args.compile:
        for layer in network.language_model.layers:
            layer.compile(dynamic=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    seeing = SEEING_SHARE * args.steps if args.begin_with is None else 0
    recent: list[float] = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=args.steps, completed=begin)
        for step in range(begin, args.steps):
            began = time.monotonic()
            kind = draw_kind(np.random.default_rng([args.seed, step]), SEEING if step < seeing else REMEMBERING)
            batch = packer.pack(train_split.draw(np.random.default_rng([args.seed, step, rank]), kind)).to(device)
            losses = network.losses(batch, train_split.maps(batch.shown).to(device))
            choice, _ = choosing(losses, batch)
            loss = mean(losses, batch) + CHOICE * choice
            loss.backward()
            share(parameters, args.processes)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for group in optimiser.param_groups:
                group["lr"] = group["full"] * rate(step, args.steps)
            optimiser.step()
            optimiser.zero_grad()
            if not first:
                continue
            recent = [*recent[-49:], loss.item()]
            progress.update(task, completed=step + 1, description=f"loss {np.mean(recent):.3f}")
            report = {
                "step": step + 1,
                "kind": kind,
                "loss": round(loss.item(), 4),
                "s": round(time.monotonic() - began, 2),
            }
            last = step + 1 == args.steps
            if (step + 1) % REPORT == 0:
                report["parts"] = {k: round(v, 4) for k, v in by_kind(losses.detach(), batch).items()}
            if (step + 1) % CHECK == 0 or last:
                report["dev"] = check(network, packer, dev, device)
                console.print(f"step {step + 1}, held out: {report['dev']}")
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(report) + "\n")
            if (step + 1) % KEEP == 0 or last:
                save(checkpoint, network, optimiser, step + 1)
                draw(log, args.work / "loss.png")
            if step + 1 == int(args.steps * (1 - DECAY)):
                save(args.work / "level.pt", network, optimiser, step + 1)


def prepare(args: argparse.Namespace) -> None:
    """Compute the features and align the visual tokens, once, before several processes want them."""
    needed = [args.work / f"{kind}_{split}.npy" for kind in ("photos", "clips") for split in CLIP_SEEDS]
    if args.begin_with is None:
        needed.append(args.work / ALIGNED)
    if all(path.exists() for path in needed):
        return
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads * args.processes)
    network = Network(args.encoder, args.rank, args.work)
    splits = {name: Split(network, args.data, args.work, name) for name in CLIP_SEEDS}
    if args.begin_with is not None:
        return
    words = vocabulary(splits["train"].pictures)
    sources, prior = splits["train"].sources(words, network.cells)
    align(network, words, prior, sources, ALIGN_EPOCHS, args.seed, args.work / ALIGNED)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds flickr8k/")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made (about 2 GB)")
    parser.add_argument("--steps", type=int, default=6000, help="batches of about 1 500 tokens")
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="GRAFT",
        help="go on from a graft, e.g. the package's own, which sees already",
    )
    parser.add_argument("--encoder", type=int, choices=[0, 1, 2], default=2, help="EfficientNet-Lite variant")
    parser.add_argument("--rank", type=int, default=16, help="of the updates of the language model")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--processes", type=int, default=1, help="that train together, each on its own batches")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--compile", action="store_true", help="compile the layers: a quarter faster, needs a C++ compiler"
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    (args.work / "meeting").unlink(missing_ok=True)
    prepare(args)
    if args.processes == 1:
        train(0, args)
    else:
        multiprocessing.spawn(train, (args,), nprocs=args.processes)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
