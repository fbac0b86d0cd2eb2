"""Where attention goes while a text is read: maps, shares by kind and age of token, and how long a saddle lives.

    python demos/bench/quality/saddles.py --data FOLDER_OF_TEXTS --text war_and_peace --tokens 4096 \
        --layers 0 8 16 24 29 --out saddles.jsonl --plot saddles.png

Nothing is evicted, so what is seen is what a policy would have to choose from. In every round one chunk is read, and
what attention each token receives from it is noted per layer and key/value head (its queries averaged). A saddle is a
token that gets more than `--times` its equal share; its life is the number of rounds in a row in which it is one,
counted from the first round after the one it came in. The paper's three kinds are told apart: recent tokens, the first
ones, and scattered others (arXiv 2409.09086).
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from rich.progress import track

sys.path.append(str(Path(__file__).parents[1]))
from common import print_table, report
from perplexity import text_tags
from texts import read_text

from inf_stream.base.config import settings_from_mapping
from inf_stream.cache.policies.full import Full
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.build import load_weights
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel

FIRST = 4
"""Tokens that count as the first ones."""
KINDS = ("first", "recent", "line break", "punctuation", "digit", "capital", "other")


@dataclass(frozen=True)
class FullByHead(Full):
    """Keeps everything, and tells the key/value heads apart."""

    name: ClassVar[str] = "full-by-head"

    @property
    def per_head(self) -> bool:
        return True


def kind_of(token: str) -> str:
    """What kind of token a piece of text is, by what it looks like."""
    word = token.strip(" ")
    if "\n" in word:
        return "line break"
    if not any(c.isalnum() for c in word):
        return "punctuation"
    if word.isdigit():
        return "digit"
    return "capital" if word[0].isupper() else "other"


@torch.inference_mode()
def attention_maps(model: StreamModel, ids: torch.Tensor, chunk: int) -> np.ndarray:
    """``[rounds, layers, kv_heads, tokens]``: mean attention of a round's queries to each token."""
    cache = StreamCache(
        model.layout, FullByHead(), model.rotation, budget_tokens=len(ids), chunk_tokens=chunk, evict_every_tokens=chunk
    )
    rounds = len(ids) // chunk
    maps = np.zeros((rounds, model.layout.layers, model.layout.kv_heads, rounds * chunk), dtype=np.float32)
    for number in track(range(rounds), "reading", transient=True):
        first = number * chunk
        tags = text_tags(first, chunk)
        step = cache.begin(tags, watched=True)
        model.forward(Chunk(model.embed(ids[first : first + chunk]), tags), step)
        for layer, received in enumerate(step.received):
            maps[number, layer, :, : first + chunk] = received.float().cpu().numpy()[:, : first + chunk] / chunk
        cache.commit(step)
    return maps


def shares_by_kind(maps: np.ndarray, kinds: list[str], chunk: int) -> dict[str, float]:
    """Share of all attention by kind of token; the last chunk and the one being read are recent, whatever they are."""
    total: Counter[str] = Counter()
    kind = np.array(kinds[: maps.shape[-1]])
    kind[:FIRST] = "first"
    for number, one in enumerate(maps):
        received = one.mean((0, 1))
        recent = np.arange(len(received)) >= max(FIRST, (number - 1) * chunk)
        total["recent"] += float(received[recent].sum())
        for name in KINDS:
            total[name] += float(received[~recent & (kind == name)].sum())
    whole = sum(total.values())
    return {name: total[name] / whole for name in KINDS}


def shares_by_age(maps: np.ndarray, chunk: int) -> dict[str, float]:
    """Share of all attention by how many rounds ago a token came, the first tokens left out, in doublings."""
    total: Counter[int] = Counter()
    for number, one in enumerate(maps):
        received = one.mean((0, 1))[FIRST:]
        age = number - np.arange(FIRST, maps.shape[-1]) // chunk
        for edge in (0, 1, 2, 4, 8, 16, 32):
            inside = (age >= edge) & (age < max(1, 2 * edge))
            total[edge] += float(received[inside].sum())
    whole = sum(total.values())
    return {str(edge): total[edge] / whole for edge in sorted(total)}


def lives(saddle: np.ndarray, chunk: int) -> list[int]:
    """How many rounds in a row each saddle stays one, from the round after it came; ``saddle`` is ``[rounds, tokens]``.

    Lives that the end of the text cuts off count as long as they were seen.
    """
    found = []
    for token in range(saddle.shape[1]):
        run = 0
        for is_one in saddle[token // chunk + 1 :, token]:
            if is_one:
                run += 1
            elif run:
                found.append(run)
                run = 0
        if run:
            found.append(run)
    return found


def saddles_of(maps: np.ndarray, times: float, chunk: int) -> dict[str, Any]:
    """Lives of all saddles, the first tokens left out, by layer averaged over heads."""
    found: list[int] = []
    for layer in range(maps.shape[1]):
        received = maps[:, layer].mean(1)
        seen = (np.arange(len(received)) + 1) * chunk
        saddle = received > times / seen[:, None]
        saddle[:, :FIRST] = False
        found += lives(saddle, chunk)
    counted = np.array(found or [0])
    return {
        "saddles": len(found),
        "median_life_tokens": float(np.median(counted)) * chunk,
        "mean_life_tokens": float(counted.mean()) * chunk,
        "longest_life_tokens": int(counted.max()) * chunk,
        "one_round_only": float((counted == 1).mean()),
    }


def draw(maps: np.ndarray, layers: list[int], head: int, path: Path) -> None:
    """One map a layer: rounds downwards, tokens to the right, in bins of eight tokens by their largest value."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm

    figure, axes = plt.subplots(1, len(layers), figsize=(3.2 * len(layers), 2.6), squeeze=False)
    for axis, layer in zip(axes[0], layers, strict=True):
        one = maps[:, layer, head]
        binned = one[:, : one.shape[1] // 8 * 8].reshape(len(one), -1, 8).max(-1)
        axis.imshow(np.maximum(binned, 1e-6), norm=LogNorm(1e-5, 1e-1), aspect="auto", interpolation="nearest")
        axis.set_title(f"layer {layer}, KV head {head}", fontsize=8)
        axis.set_xlabel("token / 8", fontsize=7)
        axis.set_ylabel("round", fontsize=7)
        axis.tick_params(labelsize=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", dpi=90)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of texts")
    parser.add_argument("--text", default="war_and_peace")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=64, help="tokens of a round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=float, default=8.0, help="a saddle gets so many times its equal share")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 8, 16, 24, 29], help="to draw")
    parser.add_argument("--head", type=int, default=0, help="key/value head to draw")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append the JSON line to this file")
    parser.add_argument("--plot", type=Path, help="write the maps here")
    args = parser.parse_args()
    settings = {"name": args.model, "device": args.device, "dtype": args.dtype, "threads": args.threads}
    model = StreamModel(load_weights(settings_from_mapping({"model": settings})))
    ids = model.ids(read_text(args.data, args.text, 8 * args.tokens, args.seed))[: args.tokens]
    maps = attention_maps(model, ids, args.chunk)
    kinds = [kind_of(model.tokenizer.decode([int(i)])) for i in ids]
    by_kind, by_age = shares_by_kind(maps, kinds, args.chunk), shares_by_age(maps, args.chunk)
    counts = Counter(kinds)
    print_table(
        ["kind", "% of the attention", "% of the tokens"],
        [
            [k, f"{100 * v:.1f}", f"{100 * counts[k] / len(kinds):.1f}" if k in counts else "-"]
            for k, v in by_kind.items()
        ],
    )
    print_table(["rounds ago", "% of the attention"], [[f"{k}+", f"{100 * v:.1f}"] for k, v in by_age.items()])
    found = saddles_of(maps, args.times, args.chunk)
    print_table(list(found), [[f"{v:.4g}" for v in found.values()]])
    if args.plot:
        draw(maps, [n for n in args.layers if n < maps.shape[1]], args.head, args.plot)
    named = {k: getattr(args, k) for k in ("text", "tokens", "chunk", "seed", "times")}
    result = {"model": Path(args.model).name, **named, "by_kind": by_kind, "by_age": by_age, **found}
    report("saddles", result, args.out)


if __name__ == "__main__":
    main()
