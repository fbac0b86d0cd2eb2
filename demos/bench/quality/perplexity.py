"""Perplexity of long texts by cache policy, budget and chunk: does a stream far beyond the trained context stay sane?

    python demos/bench/quality/perplexity.py --data FOLDER --texts wikitext2_test war_and_peace enwik8_first_24MB \
        --tokens 40000 --budgets 512 1024 --chunks 256 --out perplexity.jsonl --plot perplexity.svg

A policy may carry options after a colon, separated by commas: `inf-mllm:bias_slope=4.0,window=32`. All policies read
the same tokens in the same chunks, one after the other; `full` stops at the model's trained context, where it is the
reference, so the perplexity of just that much is reported for every policy. Drift shows in the bins of `--bin` tokens.
Two policies are compared on the same thousands of tokens: what is said of a difference is its mean over them and twice
its standard error. `--minutes` ends each reading after that long, wherever it is.

With `--out` each finished reading is a line in that file, and a rerun skips what is there.
"""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch.nn.functional import cross_entropy

sys.path.append(str(Path(__file__).parents[1]))
from columns import parse_policy
from common import Parts, print_table, report
from plots import draw_lines
from texts import read_text

from inf_stream.base.config import Settings, settings_from_mapping
from inf_stream.base.tokens import NO_FRAME, TokenTags
from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.build import load_weights
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel

POLICIES = ["inf-mllm", "streaming-llm", "h2o", "tova", "sliding-window", "full"]
PIECE = 1000
"""Tokens whose mean loss is kept; two policies are compared piece by piece."""


def text_tags(first: int, tokens: int) -> TokenTags:
    """Tags of plain text; the time is the token's number."""
    number = torch.arange(first, first + tokens)
    zeros = torch.zeros_like(number)
    return TokenTags(number, zeros + NO_FRAME, number, zeros.expand(3, -1), zeros)


def trained_context(model: StreamModel) -> int:
    """Tokens the model was trained to see at once."""
    return int(model.weights.config.get_text_config().max_position_embeddings)


class Reader:
    """One policy's way through a text."""

    def __init__(self, model: StreamModel, policy: str, budget: int, chunk: int, evict_every: int, limit: int):
        self.model, self.chunk, self.limit = model, chunk, limit
        self.cache = StreamCache(
            model.layout,
            make_policy(*parse_policy(policy)),
            model.rotation,
            budget_tokens=budget,
            chunk_tokens=chunk,
            evict_every_tokens=evict_every,
        )
        self.losses = np.empty(limit, dtype=np.float32)
        self.measured = 0

    @torch.inference_mode()
    def read(self, ids: torch.Tensor) -> None:
        """Read the next chunk of `ids` and note how well each next token was foreseen."""
        first = self.measured
        stop = min(first + self.chunk, len(ids) - 1)
        tags = text_tags(first, stop - first)
        step = self.cache.begin(tags)
        hidden = self.model.forward(Chunk(self.model.embed(ids[first:stop]), tags), step)
        self.cache.commit(step)
        after = ids[first + 1 : stop + 1].to(hidden.device)
        losses = cross_entropy(self.model.logits(hidden), after, reduction="none")
        self.losses[first:stop] = losses.float().cpu().numpy()
        self.measured = stop

    def result(self, trained: int) -> dict[str, Any]:
        """Mean loss over all, inside the trained context and by piece; how many kept tokens are old."""
        losses = self.losses[: self.measured]
        age = self.cache.seen_tokens - self.cache.slots.view().index
        pieces = [float(np.mean(losses[n : n + PIECE])) for n in range(0, len(losses) - PIECE + 1, PIECE)]
        return {
            "tokens": self.measured,
            "loss": float(losses.mean(dtype=np.float64)),
            "loss_trained": float(losses[:trained].mean(dtype=np.float64)),
            "pieces": [round(p, 5) for p in pieces],
            "older_than_2_budgets": float((age > 2 * self.cache.budget_tokens).float().mean()),
        }


def measure(model: StreamModel, ids: torch.Tensor, part: dict[str, Any], minutes: float | None) -> dict[str, Any]:
    """One policy through the text, or as far as it gets in the time."""
    trained = trained_context(model)
    limit = min(len(ids) - 1, trained if part["policy"] == "full" else len(ids))
    reader = Reader(model, part["policy"], part["budget"], part["chunk"], part["evict_every"], limit)
    began = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        title = "{text} {policy} {budget}/{chunk}".format(**part)
        task = progress.add_task(title, total=limit)
        while reader.measured < limit and (minutes is None or time.monotonic() - began < 60 * minutes):
            reader.read(ids[: limit + 1])
            progress.update(task, completed=reader.measured)
    return reader.result(trained)


def difference(one: list[float], other: list[float]) -> tuple[float, float]:
    """By how many percent the perplexity of the first is above the second's on the same pieces, and twice its error."""
    count = min(len(one), len(other))
    gaps = np.array(one[:count]) - np.array(other[:count])
    error = gaps.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
    return 100 * math.expm1(gaps.mean()), 200 * error


def binned(result: dict[str, Any], bin_tokens: int) -> list[float]:
    """Perplexity of each whole bin."""
    each = bin_tokens // PIECE
    pieces = result["pieces"]
    return [math.exp(np.mean(pieces[n : n + each])) for n in range(0, len(pieces) - each + 1, each)]


def rows_of(results: dict[str, dict[str, Any]], bin_tokens: int) -> list[list[str]]:
    """One row a policy of one text, budget and chunk; differences are against the first policy."""
    first = next(iter(results.values()))
    rows = []
    for policy, r in results.items():
        gap, error = difference(r["pieces"], first["pieces"])
        rows.append(
            [
                policy,
                str(r["tokens"]),
                f"{math.exp(r['loss']):.2f}",
                f"{gap:+.1f} ± {error:.1f} %" if r is not first else "",
                f"{math.exp(r['loss_trained']):.2f}",
                f"{r['older_than_2_budgets']:.2f}",
                " ".join(f"{p:.1f}" for p in binned(r, bin_tokens)),
            ]
        )
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the texts")
    parser.add_argument("--texts", nargs="+", default=["wikitext2_test", "war_and_peace", "enwik8_first_24MB"])
    parser.add_argument("--tokens", type=int, default=40_000, help="of each text")
    parser.add_argument(
        "--skip", type=int, default=0, help="tokens left out first, to read afresh what a longer run read"
    )
    parser.add_argument("--seed", type=int, default=0, help="where the reading begins: 0 near the start, else anywhere")
    parser.add_argument("--budgets", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--chunks", type=int, nargs="+", default=[256])
    parser.add_argument("--evict-every", type=int, default=64)
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--minutes", type=float, help="longest time of one reading")
    parser.add_argument("--bin", type=int, default=10_000, help="tokens per bin of perplexity")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file of JSON lines; what is there is not measured again")
    parser.add_argument("--plot", type=Path, help="write a picture here")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    settings: Settings = settings_from_mapping(
        {"model": {"name": args.model, "device": args.device, "dtype": args.dtype, "threads": args.threads}}
    )
    model = StreamModel(load_weights(settings))
    parts = Parts("perplexity", args.out)
    summary, curves = {}, {}
    for text in args.texts:
        known = model.ids(read_text(args.data, text, 8 * (args.skip + args.tokens), args.seed))
        ids = known[args.skip : args.skip + args.tokens + 1]
        for budget in args.budgets:
            for chunk in args.chunks:
                results = {}
                for policy in args.policies:
                    part = {
                        "text": text, "tokens": args.tokens, "seed": args.seed, "policy": policy, "chunk": chunk,
                        "budget": budget if policy != "full" else trained_context(model),
                        "evict_every": args.evict_every, "minutes": args.minutes, "model": Path(args.model).name,
                    } | ({"skip": args.skip} if args.skip else {})  # fmt: skip
                    results[policy] = parts.result(part, lambda i=ids, p=part: measure(model, i, p, args.minutes))
                title = f"{text}, budget {budget}, chunk {chunk}"
                print(f"\n{title}")
                header = ["policy", "tokens", "perplexity", f"against {args.policies[0]}", "in trained context",
                          "older than 2 budgets", f"by {args.bin} tokens"]  # fmt: skip
                print_table(header, rows_of(results, args.bin))
                summary[title] = {p: round(math.exp(r["loss"]), 3) for p, r in results.items()}
                curves[title] = {p: binned(r, PIECE) for p, r in results.items()}
    if args.plot:
        draw_lines(curves, "thousands of tokens", "perplexity", args.plot)
    report("perplexity", {"summary": summary, "model": Path(args.model).name, "tokens": args.tokens}, args.out)


if __name__ == "__main__":
    main()
