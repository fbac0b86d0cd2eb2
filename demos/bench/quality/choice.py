"""How a question finds the block that answers it: ways to score blocks, layer by layer.

    python demos/bench/quality/choice.py --data FOLDER_OF_LONGEVAL --model MODEL --lines 400 --out choice.jsonl

A record of lines is read into a cache that keeps everything, its keys are cut into blocks of 32, and questions about
lines are read as asides. Of the `--blocks` best blocks by each way: in how many questions is a block of the asked line
among them (`any`), and all of the line (`whole`)?

    mean        the question's mean query against the block's mean key (ReKV, arXiv 2503.00540)
    particular  the same, less the mean over all these questions: the best case of `archive.choose_by = "means"`
    attention   largest share of attention of any token of the question in any head
    surroundings  the same, and a token speaks for the half block on its other side, too (`choose_by = "attention"`)

The last row of each is the vote of the lower third of the layers, by standardised scores, as recall takes it.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from columns import Conversation, Sizes
from line_stream import INTRODUCTION, Line, read_lines
from rich.progress import track
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))
from common import print_table, report

from inf_stream.base.config import settings_from_mapping
from inf_stream.cache.archive.blocks import TEXT_TOKENS
from inf_stream.cache.step import CacheStep
from inf_stream.engine.build import load_weights
from inf_stream.models.weights.loaded import LoadedWeights

WAYS = ("mean", "particular", "attention", "surroundings")


@dataclass(frozen=True)
class Asked:
    """Unrotated, scaled queries ``[layers, query_heads, tokens, head_dim]``, and the blocks of the asked line."""

    queries: Tensor
    first_block: int
    last_block: int


@contextmanager
def listening() -> Iterator[list[Tensor]]:
    """Queries of every layer of every step inside."""
    heard: list[Tensor] = []
    attend = CacheStep.attend

    def listen(self: CacheStep, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        heard.append(queries[:, : len(self.tags)].float() * scaling)
        return attend(self, layer, queries, keys, values, scaling)

    CacheStep.attend = listen  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        CacheStep.attend = attend  # type: ignore[method-assign]


def read_and_ask(weights: LoadedWeights, lines: list[Line], questions: int, seed: int) -> tuple[Tensor, list[Asked]]:
    """Unrotated keys in blocks, ``[layers, kv_heads, blocks, tokens, head_dim]``, and what was asked."""
    conversation = Conversation(weights, "full", Sizes(256, 0, 256, 64, 0))
    for start in track(range(0, len(lines), 16), "reading", transient=True):
        new = lines[start : start + 16]
        head = INTRODUCTION if start == 0 else ""
        conversation.read(head + "".join(line.text for line in new), new, start)
    cache = conversation.engine.cache
    blocks = cache.used_tokens // TEXT_TOKENS
    keys = cache.planes.raw_keys[:, :, : blocks * TEXT_TOKENS].float()
    whole = [line for line in lines if conversation._spans[line][1] <= blocks * TEXT_TOKENS]
    asked = []
    for place in track(np.random.default_rng(seed).permutation(len(whole))[:questions], "asking", transient=True):
        line = whole[int(place)]
        with listening() as heard:
            conversation.ask(line, len(lines), aside=True)
        first, end = conversation._spans[line]
        queries = torch.stack(heard[: cache.layout.layers])
        asked.append(Asked(queries, first // TEXT_TOKENS, (end - 1) // TEXT_TOKENS))
    return keys.unflatten(2, (blocks, TEXT_TOKENS)), asked


def scores(way: str, keys: Tensor, queries: Tensor, usual: Tensor) -> Tensor:
    """``[blocks]`` of one layer."""
    kv_heads, blocks, tokens, width = keys.shape
    if way in ("mean", "particular"):
        mean = queries.mean(1) - (usual if way == "particular" else 0)
        return torch.einsum("hd,hnd->n", mean.view(kv_heads, -1, width).mean(1), keys.mean(2))
    folded = queries.reshape(kv_heads, -1, width)
    shares = (folded @ keys.flatten(1, 2).transpose(1, 2)).softmax(-1).view(-1, blocks, 2, tokens // 2).sum(-1)
    own, (first, second) = shares.sum(-1).amax(0), shares.amax(0).unbind(-1)
    if way == "attention":
        return own
    nothing = own.new_zeros(1)
    before, after = torch.cat((nothing, second[:-1])), torch.cat((first[1:], nothing))
    return torch.stack((own, before, after)).amax(0)


def found(best: Tensor, one: Asked) -> tuple[bool, bool]:
    """Whether any, and whether all, blocks of the asked line are among the best."""
    wanted = {one.first_block, one.last_block}
    there = wanted & set(best.tolist())
    return bool(there), there == wanted


def hits(way: str, keys: Tensor, asked: list[Asked], best: int) -> list[tuple[float, float]]:
    """Shares of `any` and `whole` by each layer, and last by the vote of the lower third."""
    layers = keys.shape[0]
    usual = torch.stack([one.queries.mean(2) for one in asked]).mean(0)
    counted = np.zeros((layers + 1, 2))
    for one in asked:
        each = torch.stack([scores(way, keys[n], one.queries[n], usual[n]) for n in range(layers)])
        standard = (each - each.mean(1, keepdim=True)) / each.std(1, correction=0, keepdim=True).clamp(min=1e-12)
        vote = standard[: -(-layers // 3)].sum(0)
        for n, row in enumerate([*each, vote]):
            counted[n] += found(row.topk(best).indices, one)
    return [(float(a), float(w)) for a, w in counted / len(asked)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LongEval's files")
    parser.add_argument("--model", required=True)
    parser.add_argument("--lines", type=int, default=400)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--blocks", type=int, default=16, help="how many are recalled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append the JSON line to this file")
    args = parser.parse_args()
    model = {"name": args.model, "device": args.device, "dtype": args.dtype, "threads": args.threads}
    weights = load_weights(settings_from_mapping({"model": model}))
    keys, asked = read_and_ask(weights, read_lines(args.data, args.lines, args.seed), args.questions, args.seed)
    result = {way: hits(way, keys, asked, args.blocks) for way in track(WAYS, "scoring", transient=True)}
    header = ["layer", *(f"{way}, {what}" for way in WAYS for what in ("any", "whole"))]
    names = [*map(str, range(keys.shape[0])), "vote"]
    rows = [[name, *(f"{100 * x:.0f}" for way in WAYS for x in result[way][n])] for n, name in enumerate(names)]
    print_table(header, rows)
    sizes = {k: getattr(args, k) for k in ("lines", "questions", "seed")}
    best = {"best": args.blocks, "of": keys.shape[2]}
    report("choice", {"model": Path(args.model).name, **sizes, **best, "header": header, "rows": rows}, args.out)


if __name__ == "__main__":
    main()
