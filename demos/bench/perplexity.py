"""Perplexity of a long text by cache policy at one budget: does a stream far beyond the trained context stay sane?

    python demos/bench/perplexity.py war_and_peace.txt --tokens 24000 --budget 512 \
        --policies inf-mllm inf-mllm:bias_slope=0 streaming-llm sliding-window h2o tova full

A policy may carry options after a colon, separated by commas. All policies read the same tokens in the same chunks,
one after the other in one process; `full` stops at the model's trained context, where it is the reference. Beside
the perplexity stands that of each bin of `--bin` tokens, so that drift shows, and how old the kept tokens are.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from common import print_table, report
from rich.progress import Progress
from torch.nn.functional import cross_entropy

from inf_stream.base.config import Settings, settings_from_mapping
from inf_stream.base.tokens import NO_FRAME, TokenTags
from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.build import load_weights
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel


def text_tags(first: int, tokens: int) -> TokenTags:
    """Tags of plain text; the time is the token's number."""
    number = torch.arange(first, first + tokens)
    zeros = torch.zeros_like(number)
    return TokenTags(number, zeros + NO_FRAME, number, zeros.expand(3, -1), zeros)


def parse_policy(word: str) -> tuple[str, dict[str, Any]]:
    """``name:key=value,key=value`` as a name and options."""
    name, _, rest = word.partition(":")
    pairs = (pair.partition("=") for pair in rest.split(",") if pair)
    return name, {key: json.loads(value) for key, _, value in pairs}


class Run:
    """One policy's way through the text."""

    def __init__(self, model: StreamModel, word: str, args: argparse.Namespace):
        name, options = parse_policy(word)
        self.word, self.model = word, model
        self.cache = StreamCache(
            model.layout,
            make_policy(name, options),
            model.rotation,
            budget_tokens=args.budget,
            chunk_tokens=args.chunk,
            evict_every_tokens=args.evict_every,
        )
        self.limit = args.trained_context if name == "full" else args.tokens
        self.losses = torch.empty(self.limit)
        self.measured = 0
        self.old_share = 0.0

    @torch.inference_mode()
    def read(self, ids: torch.Tensor, first: int, stop: int) -> None:
        """Read ids[first:stop] and note how well each next token was foreseen."""
        if stop > self.limit:
            return
        tags = text_tags(first, stop - first)
        step = self.cache.begin(tags)
        hidden = self.model.forward(Chunk(self.model.embed(ids[first:stop]), tags), step)
        self.cache.commit(step)
        after = ids[first + 1 : stop + 1].to(hidden.device)
        losses = cross_entropy(self.model.logits(hidden[: len(after)]), after, reduction="none")
        self.losses[self.measured : self.measured + len(after)] = losses
        self.measured += len(after)

    def result(self, bin_tokens: int) -> dict[str, Any]:
        """Perplexity over all and by bin, and the share of kept tokens older than two budgets."""
        losses = self.losses[: self.measured]
        index = self.cache.slots.view().index
        age = self.cache.seen_tokens - index
        return {
            "policy": self.word,
            "tokens": len(losses),
            "perplexity": math.exp(losses.mean()),
            "bins": [round(math.exp(b.mean()), 3) for b in losses.split(bin_tokens) if len(b) == bin_tokens],
            "older_than_2_budgets": float((age > 2 * self.cache.budget_tokens).float().mean()),
        }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="a text file")
    parser.add_argument("--skip", type=int, default=2000, help="characters to leave out at its beginning")
    parser.add_argument("--tokens", type=int, default=24_000)
    parser.add_argument("--budget", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--evict-every", type=int, default=64)
    parser.add_argument("--bin", type=int, default=10_000, help="tokens per bin of perplexity")
    parser.add_argument("--policies", nargs="+", default=["inf-mllm", "streaming-llm", "sliding-window", "full"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append the JSON line to this file")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    settings: Settings = settings_from_mapping(
        {"model": {"name": args.model, "device": args.device, "dtype": args.dtype, "threads": args.threads}}
    )
    model = StreamModel(load_weights(settings))
    args.trained_context = int(model.weights.config.get_text_config().max_position_embeddings)
    text = args.text.read_text(encoding="utf-8")[args.skip :]
    ids = model.ids(text[: 8 * args.tokens])[: args.tokens + 1]
    if len(ids) <= args.chunk:
        sys.exit(f"{args.text} has {len(ids)} tokens after --skip; a longer text is needed")
    runs = [Run(model, word, args) for word in args.policies]
    with Progress(transient=True) as progress:
        for run in runs:
            task = progress.add_task(run.word, total=min(len(ids), run.limit))
            for first in range(0, len(ids) - args.chunk, args.chunk):
                run.read(ids, first, first + args.chunk)
                progress.update(task, completed=first + args.chunk)
    results = [run.result(args.bin) for run in runs]
    print_table(
        ["policy", "tokens", "perplexity", "older than 2 budgets", f"by {args.bin} tokens"],
        [
            [
                r["policy"],
                str(r["tokens"]),
                f"{r['perplexity']:.3f}",
                f"{r['older_than_2_budgets']:.2f}",
                str(r["bins"]),
            ]
            for r in results
        ],
    )
    sizes = {"text": args.text.name, "budget": args.budget, "chunk": args.chunk, "model": args.model}
    report("perplexity", {**sizes, "results": results}, args.out)


if __name__ == "__main__":
    main()
