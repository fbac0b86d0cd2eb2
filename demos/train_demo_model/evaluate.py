"""Measure a model that sees on held-out data, and write the table of its model card.

    pip install pycocoevalcap
    python demos/train_demo_model/evaluate.py --data FOLDER_WITH_FLICKR8K --work /tmp/demo_model

Held out are the 1 000 pictures of Flickr8k's development split and clips rendered from other seeds. BLEU-4 and CIDEr-D
are pycocoevalcap's, on lower-case words without punctuation. Questions with few answers are judged by which answer the
model finds likeliest, those about clips by whether its own greedy answer is right to the letter.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from captions import CONCEPTS, Picture, absent, load_pictures, sentence
from card import write_table
from clips import render
from export import SHIPPED
from features import read_picture, scaled
from network import LANGUAGE_MODEL
from packing import Packer
from rich.console import Console
from rich.progress import track
from samples import Branch, ClipFrame, Photo, Sample, Words, there
from torch import Tensor

from inf_stream.base.clock import format_clock, nanoseconds
from inf_stream.models.weights.builtin import SEES
from inf_stream.models.weights.grafted import WEIGHTS, load_grafted
from inf_stream.models.weights.pretrained import load_pretrained

SECONDS_A_PICTURE = 5
CAPTION_ASK = "What do you see?"
TARGETS = {
    "caption BLEU-4": 0.16, "caption CIDEr-D": 0.45, "yes/no": 0.80, "shown at mm:ss, 20 pictures": 0.75,
    "shown at mm:ss, 60 pictures": 0.75, "did X appear, 60 pictures": 0.75, "motion direction": 0.90, "count": 0.80,
    "speed, times real time": 5.0,
}  # fmt: skip


class Judge:
    """The shipped model, asked about many things at once."""

    def __init__(self, model: str, device: str):
        self.device = torch.device(device)
        dtype = torch.bfloat16
        is_graft = (Path(model) / WEIGHTS).is_file()
        loaded = load_pretrained(LANGUAGE_MODEL if is_graft else model, self.device, dtype)
        if is_graft:
            loaded = load_grafted(loaded, Path(model))
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.words = Words(loaded.tokenizer)
        self.packer = Packer(self.words, int(loaded.config.image_seq_length))
        self.model.set_attn_implementation({"text_config": "eager"})
        self.edge = int(loaded.config.vision_config.image_size)

    @torch.inference_mode()
    def see(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """Visual tokens, ``[pictures, cells, width]``."""
        pixels = scaled(pictures).to(self.device, self.model.dtype)
        return torch.stack(tuple(self.model.model.get_image_features(pixels, return_dict=True).pooler_output))

    @torch.inference_mode()
    def judge(self, sample: Sample, visual: Tensor) -> tuple[list[float], list[bool]]:
        """Of every answer: mean log likelihood a token, and whether it is what the model would say."""
        batch = self.packer.pack([sample])
        embeds = self.model.get_input_embeddings()(batch.ids.to(self.device))
        if len(batch.visual):
            flat = visual.flatten(0, 1).to(embeds.dtype)
            embeds = embeds.flatten(0, 1).index_copy(0, batch.visual.to(self.device), flat).view_as(embeds)
        unseen = torch.zeros(batch.mask.shape, dtype=embeds.dtype).masked_fill_(~batch.mask, float("-inf"))
        hidden = self.model.model.language_model(
            inputs_embeds=embeds,
            attention_mask=unseen[:, None].to(self.device),
            position_ids=batch.positions.to(self.device),
            use_cache=False,
        ).last_hidden_state.flatten(0, 1)
        logits = self.model.lm_head(hidden[batch.targets.to(self.device)]).float().log_softmax(-1).cpu()
        likely = logits.gather(1, batch.labels[:, None])[:, 0]
        right = logits.argmax(-1) == batch.labels
        of = [batch.answers == a for a in range(len(batch.kinds))]
        return [float(likely[o].mean()) for o in of], [bool(right[o].all()) for o in of]

    @torch.inference_mode()
    def captions(self, visual: Tensor | None, count: int, name: str) -> list[str]:
        """Greedy answers to what is seen; `visual` None leaves the pictures out."""
        words, embed = self.words, self.model.get_input_embeddings()
        head = torch.tensor([*words.opening, *words.time(0, answered=False)])
        tail = torch.tensor([*words.after_frame, *words.question(CAPTION_ASK, answered=False)])
        found = []
        for begin in track(range(0, count, 50), name):
            rows = min(50, count - begin)
            parts = [embed(head.to(self.device)).expand(rows, -1, -1), embed(tail.to(self.device)).expand(rows, -1, -1)]
            if visual is not None:
                parts.insert(1, visual[begin : begin + rows].to(parts[0].dtype))
            embeds = torch.cat(parts, dim=1)
            ids = self.model.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones(embeds.shape[:2], dtype=torch.int64, device=self.device),
                max_new_tokens=30,
                do_sample=False,
                eos_token_id=words.stop,
                pad_token_id=words.stop,
            )
            found += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return found


def plain(text: str) -> str:
    """Lower-case words, no punctuation: what the scores are counted on."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def scores(pictures: Sequence[Picture], said: Sequence[str]) -> tuple[float, float]:
    """BLEU-4 and CIDEr-D against all captions."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider

    references = {p.index: [plain(c) for c in p.captions] for p in pictures}
    candidates = {p.index: [plain(s)] for p, s in zip(pictures, said, strict=True)}
    bleu, _ = Bleu(4).compute_score(references, candidates, verbose=0)
    cider, _ = Cider().compute_score(references, candidates)
    return float(bleu[3]), float(cider)


def share(right: Sequence[bool]) -> float:
    """Of all, how many."""
    return float(np.mean(right))


def yes_no(judge: Judge, pictures: Sequence[Picture], visual: Tensor, rng: np.random.Generator) -> tuple[float, int]:
    """Per thing as many pictures that show it as that do not, at most 30 each."""
    asked: dict[int, list[tuple[str, bool]]] = {}
    for concept in CONCEPTS:
        positive = [p.index for p in pictures if concept in p.shows]
        negative = [p.index for p in pictures if concept not in p.mentions_any]
        number = min(30, len(positive), len(negative))
        for answer, places in ((True, positive), (False, negative)):
            for place in rng.choice(places, number, replace=False) if number else ():
                asked.setdefault(int(place), []).append((there(rng, concept), answer))
    right = []
    for place, questions in track(list(asked.items()), "yes/no"):
        branches = [Branch(1, q, ("Yes.", "No."), "yes/no") for q, _ in questions]
        found, _ = judge.judge(Sample([(Photo(place), 0.0)], branches), visual[[place]])
        right += [(y > n) == answer for y, n, (_, answer) in zip(found[::2], found[1::2], questions, strict=True)]
    return share(right), len(right)


def streams(
    judge: Judge, pictures: Sequence[Picture], visual: Tensor, rng: np.random.Generator, scenes: int, number: int
) -> dict[str, tuple[float, int]]:
    """Slideshows: what was shown at a time, among four captions of the same stream; and whether something appeared."""
    shown_at, present = [], []
    for _ in track(range(number), f"{scenes} pictures"):
        places = rng.choice(len(pictures), scenes, replace=False)
        seen = [pictures[int(i)] for i in places]
        trunk = [(Photo(int(i)), float(SECONDS_A_PICTURE * n)) for n, i in enumerate(places)]
        branches = []
        for place in rng.choice(scenes, 10, replace=False):
            others = [int(o) for o in rng.permutation(scenes) if o != place][:3]
            clock = format_clock(nanoseconds(SECONDS_A_PICTURE * int(place)))
            options = tuple(f"{clock} {sentence(seen[o].captions[0])}" for o in (int(place), *others))
            branches.append(Branch(scenes, f"What was shown at {clock}?", options, "at"))
        missing = [c for c in CONCEPTS if absent(seen, c)]
        there_is = sorted({c for p in seen for c in p.shows})
        answers = []
        pairs = min(5, len(missing), len(there_is))
        for concepts, answer in ((missing, False), (there_is, True)):
            for concept in rng.choice(concepts, pairs, replace=False):
                branches.append(Branch(scenes, f"Did {concept} appear?", ("Yes.", "No."), "appear"))
                answers.append(answer)
        found, _ = judge.judge(Sample(list(trunk), branches), visual[torch.from_numpy(places)])
        for question in range(10):
            options_found = found[4 * question : 4 * question + 4]
            shown_at.append(options_found[0] == max(options_found))
        present += [(found[40 + 2 * i] > found[41 + 2 * i]) == answer for i, answer in enumerate(answers)]
    return {
        f"shown at mm:ss, {scenes} pictures": (share(shown_at), len(shown_at)),
        f"did X appear, {scenes} pictures": (share(present), len(present)),
    }


def clips(judge: Judge, seeds: range) -> dict[str, tuple[float, int]]:
    """Motion, number, change in rendered clips."""
    right: dict[str, list[bool]] = {}
    for seed in track(seeds, "clips"):
        clip = render(np.random.default_rng(seed))
        visual = judge.see(clip.frames)
        trunk = [(ClipFrame(0, i), float(i)) for i in range(len(clip.frames))]
        branches = [Branch(len(trunk), question, (answer,), kind) for kind, question, answer in clip.questions]
        _, said = judge.judge(Sample(list(trunk), branches), visual)
        for branch, one in zip(branches, said, strict=True):
            right.setdefault(branch.kind, []).append(one)
    names = {"direction": "motion direction", "count": "count"}
    return {names.get(kind, f"clips: {kind}"): (share(values), len(values)) for kind, values in sorted(right.items())}


def speed(model: str, pictures: Sequence[Picture], work: Path, seconds: int = 120) -> float:
    """Seconds of a stream at one frame a second for every second of the command line, loading left out."""
    folder = work / "speed"
    folder.mkdir(exist_ok=True)
    for picture in pictures[:seconds]:
        target = folder / f"{picture.index:04d}.jpg"
        if not target.exists():
            target.symlink_to(picture.path.resolve())
    took = []
    for _ in range(2):
        command = [
            sys.executable,
            "-m",
            "inf_stream",
            "ask",
            str(folder),
            CAPTION_ASK,
            "--model",
            model,
            "--json",
            "--stats",
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        answer = next(r for r in map(json.loads, done.stdout.splitlines()) if r["type"] == "answer")
        took.append(answer["stats"]["frames_per_s"])
    return max(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds flickr8k/")
    parser.add_argument("--work", type=Path, required=True, help="folder for results.json")
    parser.add_argument(
        "--model", default=SEES, help="a LLaVA, or a folder that export.py wrote (its speed is left out)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=int, default=1000, help="how many held-out pictures to use")
    parser.add_argument("--streams", type=int, default=30, help="slideshows of each length")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--card", type=Path, help="model card to write the table into; of the built-in model its own")
    args = parser.parse_args()
    console, began = Console(), time.monotonic()
    judge = Judge(args.model, args.device)
    pictures = load_pictures(args.data / "flickr8k", "dev")[: args.pictures]
    batches = [pictures[i : i + 20] for i in range(0, len(pictures), 20)]
    visual = torch.cat([judge.see([read_picture(p.path, judge.edge) for p in b]) for b in track(batches, "seeing")])
    found: dict[str, tuple[float, int]] = {}

    def keep(more: dict[str, tuple[float, int]]) -> None:
        found.update(more)
        for name, (value, number) in more.items():
            console.print(f"{name}: {value:.3f} ({number})")
        results = {"figures": found, "targets": TARGETS, "minutes": (time.monotonic() - began) / 60}
        (args.work / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")

    said = judge.captions(visual, len(pictures), "captions")
    bleu, cider = scores(pictures, said)
    keep({"caption BLEU-4": (bleu, len(said)), "caption CIDEr-D": (cider, len(said))})
    blind = judge.captions(None, len(pictures), "captions, blind")
    bleu, cider = scores(pictures, blind)
    keep({"without the picture: BLEU-4": (bleu, len(said)), "without the picture: CIDEr-D": (cider, len(said))})
    parts: list[Callable[[], dict[str, tuple[float, int]]]] = [
        lambda: {"yes/no": yes_no(judge, pictures, visual, np.random.default_rng(0))},
        lambda: streams(judge, pictures, visual, np.random.default_rng(1), 20, args.streams),
        lambda: streams(judge, pictures, visual, np.random.default_rng(2), 60, args.streams),
        lambda: clips(judge, range(1_000_000, 1_000_000 + args.clips)),
    ]
    if not (Path(args.model) / WEIGHTS).is_file():
        parts.append(lambda: {"speed, times real time": (speed(args.model, pictures, args.work), 1)})
    for part in parts:
        keep(part())
    card = SHIPPED / "README.md" if args.card is None and args.model == SEES else args.card
    if card is not None:
        write_table(card, found, TARGETS)


if __name__ == "__main__":
    main()
