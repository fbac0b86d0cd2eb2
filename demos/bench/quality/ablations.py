"""What each setting of `inf-mllm` is worth: one changed at a time, on perplexity and on line retrieval.

    python demos/bench/quality/ablations.py --texts FOLDER_OF_TEXTS --lines FOLDER_OF_LONGEVAL --model MODEL \
        --groups slope heads recent --out ablations.jsonl --plot ablations.svg

Beside the perplexity (and its difference from the defaults on the same thousands of tokens) stands how the kept set
turns over: `stays` is the share of it that is still there one budget of tokens later. Line retrieval is asked at the
distances given; right answers beyond the recent share of the budget are those that relevance kept. `--lines` and
`--texts` may be left out; then that half is.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from line_stream import read_lines
from lines import make_script
from perplexity import Reader, difference
from plots import draw_points
from retrieval import play
from rich.progress import track
from texts import read_text

sys.path.append(str(Path(__file__).parents[1]))
from columns import Conversation, Sizes
from common import Parts, print_table, report

from inf_stream.base.config import settings_from_mapping
from inf_stream.cache.policies import POLICIES
from inf_stream.cache.policies.base import Evidence
from inf_stream.cache.policies.inf_mllm import InfMLLM
from inf_stream.engine.build import load_weights
from inf_stream.models.stream_model import StreamModel
from inf_stream.models.weights.loaded import LoadedWeights

DISTANCES = [0, 10, 20, 30, 40, 60]


@dataclass(frozen=True)
class Summed(InfMLLM):
    """`inf-mllm` without the normalisation: attention is summed, however few queries see a token."""

    name: ClassVar[str] = "inf-mllm-summed"

    def scores(self, evidence: Evidence) -> torch.Tensor:
        assert evidence.visible is not None, "comes with every window"
        return super().scores(replace(evidence, visible=torch.full_like(evidence.visible, self.window)))


@dataclass(frozen=True)
class Variant:
    """A policy with options, and how often it evicts."""

    policy: str
    evict_every: int = 64

    @property
    def title(self) -> str:
        """As it stands in the tables."""
        return self.policy if self.evict_every == 64 else f"{self.policy}, every {self.evict_every}"


def _options(name: str, *values: object) -> list[Variant]:
    return [Variant(f"inf-mllm:{name}={str(value).lower()}") for value in values]


GROUPS: dict[str, list[Variant]] = {
    "slope": _options("bias_slope", 0.0, 0.5, 1.0, 4.0, 8.0, 32.0),
    "window": [*_options("window", 1, 8, 16, 32), Variant("inf-mllm:window=128", 128)],
    "heads": _options("separate_heads", True),
    "recent": _options("recent_share", 0.0, 0.25, 0.75, 0.9),
    "sinks": _options("sinks", 0, 1, 16),
    "period": [Variant("inf-mllm", every) for every in (128, 256)],
    "normalisation": [Variant(Summed.name)],
    "value": _options("value_weighted", True),
    "pooling": _options("pooled_tokens", 3, 7),
}
DEFAULT = Variant("inf-mllm")


class TurnoverReader(Reader):
    """Also notes how much of the kept set is still there one budget of tokens later."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.stays: list[float] = []
        self._before: torch.Tensor | None = None
        self._seen = 0

    def read(self, ids: torch.Tensor) -> None:
        super().read(ids)
        seen = self.cache.seen_tokens
        if self.cache.evictions and seen - self._seen >= self.cache.budget_tokens:
            now = self.cache.slots.view().index.clone()
            if self._before is not None:
                self.stays.append(shared(self._before, now))
            self._before, self._seen = now, seen


def shared(before: torch.Tensor, now: torch.Tensor) -> float:
    """Share of the numbers in ``[layers, rows, slots]`` that are in the same row of the other, too."""
    rows = zip(before.flatten(0, 1), now.flatten(0, 1), strict=True)
    return float(np.mean([float(torch.isin(a, b).float().mean()) for a, b in rows]))


def perplexity_of(model: StreamModel, ids: torch.Tensor, variant: Variant, args: argparse.Namespace) -> dict[str, Any]:
    """Loss by piece, and the turnover."""
    reader = TurnoverReader(model, variant.policy, args.budget, args.chunk, variant.evict_every, len(ids) - 1)
    for _ in track(range(0, len(ids) - 1, args.chunk), variant.title, transient=True):
        reader.read(ids)
    result = reader.result(len(ids))
    return {
        "loss": result["loss"],
        "pieces": result["pieces"],
        "older_than_2_budgets": result["older_than_2_budgets"],
        "stays": float(np.mean(reader.stays)) if reader.stays else None,
    }


def lines_of(weights: LoadedWeights, variant: Variant, args: argparse.Namespace) -> dict[str, Any]:
    """Share of right answers by distance."""
    rng = np.random.default_rng(args.seed)
    script = make_script(read_lines(args.lines, args.rounds * 20, args.seed), 20, DISTANCES, rng)
    sizes = Sizes(args.budget, 0, args.chunk, variant.evict_every, 0)
    return {"replies": play(Conversation(weights, variant.policy, sizes), script, variant.title)}


def rows_of(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """One row a variant."""
    first = next(iter(found.values()))
    rows = []
    for title, r in found.items():
        row = [title]
        if "loss" in r:
            gap, error = difference(r["pieces"], first["pieces"])
            stays = "-" if r["stays"] is None else f"{r['stays']:.2f}"
            row += [
                f"{np.exp(r['loss']):.2f}",
                f"{gap:+.1f} ± {error:.1f} %",
                f"{r['older_than_2_budgets']:.2f}",
                stays,
            ]
        if "replies" in r:
            for distance in DISTANCES:
                right = [x["right"] for x in r["replies"] if x["age"] == distance]
                row.append(f"{100 * np.mean(right):.0f}" if right else "-")
        rows.append(row)
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="folder of texts, for perplexity")
    parser.add_argument("--text", default="war_and_peace")
    parser.add_argument("--tokens", type=int, default=16_000)
    parser.add_argument("--lines", type=Path, help="folder of LongEval's files, for line retrieval")
    parser.add_argument("--rounds", type=int, default=20, help="of twenty lines each")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--budget", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file of JSON lines; what is there is not measured again")
    parser.add_argument("--plot", type=Path, help="write a picture here: the slope's perplexity and turnover")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    POLICIES[Summed.name] = Summed
    if args.texts is None and args.lines is None:
        sys.exit("nothing to measure: give --texts, --lines or both")
    model = {"name": args.model, "device": args.device, "dtype": args.dtype, "threads": args.threads}
    weights = load_weights(settings_from_mapping({"model": model}))
    parts = Parts("ablations", args.out)
    common = {"model": Path(args.model).name, "budget": args.budget, "chunk": args.chunk, "seed": args.seed}
    ids = torch.empty(0)
    stream_model = StreamModel(weights)
    if args.texts is not None:
        text = read_text(args.texts, args.text, 8 * args.tokens, args.seed)
        ids = stream_model.ids(text)[: args.tokens + 1]
    found: dict[str, dict[str, Any]] = {}
    for variant in [DEFAULT, *(v for group in args.groups for v in GROUPS[group])]:
        named = {**common, "policy": variant.policy, "evict_every": variant.evict_every}
        found[variant.title] = {}
        if args.texts is not None:
            part = {**named, "on": "perplexity", "text": args.text, "tokens": args.tokens}
            found[variant.title] |= parts.result(part, lambda v=variant: perplexity_of(stream_model, ids, v, args))
        if args.lines is not None:
            part = {**named, "on": "lines", "rounds": args.rounds, "distances": DISTANCES}
            found[variant.title] |= parts.result(part, lambda v=variant: lines_of(weights, v, args))
    header = ["variant"]
    header += ["perplexity", "against the default", "older than 2 budgets", "stays"] if args.texts is not None else []
    header += [f"{d} lines, %" for d in DISTANCES] if args.lines is not None else []
    rows = rows_of(found)
    print_table(header, rows)
    if args.plot and args.texts is not None:
        slopes = [(float(t.partition("bias_slope=")[2]), r) for t, r in found.items() if "bias_slope=" in t]
        points = sorted([(2.0, found[DEFAULT.title]), *slopes], key=lambda pair: pair[0])
        drawn = [(slope, r) for slope, r in points if slope]
        curves = {
            "perplexity by slope": {args.text: [(s, float(np.exp(r["loss"]))) for s, r in drawn]},
            "share of the kept set that stays": {args.text: [(s, r["stays"] or 0.0) for s, r in drawn]},
        }
        draw_points(curves, "attention bias slope", "", args.plot, log=True)
    report("ablations", {**common, "text": args.text, "header": header, "rows": rows}, args.out)


if __name__ == "__main__":
    main()
