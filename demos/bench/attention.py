"""Which way to attend is the faster: torch's fused kernel, or two products with a softmax between them?

    python demos/bench/attention.py --slots 2048 8192 --out demos/bench/results/attention.jsonl

Random queries, keys and values of one layer of the model's shape, the two ways in turns in one process, by the number
of new tokens; `inf_stream.cache.attend` chooses between them by what came out. The physical limit is the products
alone, without a softmax. Beside the times stands how far each is from float64.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import print_table, report

from inf_stream.cache.attend import attend, attend_by_products, chunk_mask

LAYERS = 12
"""As many that keys and values come from memory, as they do in a model, and not from a core's cache."""
HEADER = ["slots", "tokens", "fused ms", "products ms", "limit ms", "products / fused", "error fused", "error products"]


def interleaved(ways: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median thread time of each, in ms."""
    took: list[list[float]] = [[] for _ in ways]
    for turn in range(repeats + 2):
        for way, times in zip(ways, took, strict=True):
            began = time.thread_time()
            way()
            if turn >= 2:
                times.append(time.thread_time() - began)
    return [1000 * statistics.median(times) for times in took]


def compare(slots: int, tokens: int, args: argparse.Namespace, dtype: torch.dtype) -> list[float]:
    """One row of the table."""
    random = torch.Generator().manual_seed(slots + tokens)
    shape = (LAYERS, args.kv_heads, slots + 64, args.head_dim)
    keys, values = (torch.randn(shape, generator=random).to(dtype)[:, :, :slots] for _ in range(2))
    heads = args.kv_heads * args.group
    queries = (2 * torch.randn(heads, tokens, args.head_dim, generator=random)).to(dtype)
    scaling = args.head_dim**-0.5
    narrow, wide = (
        chunk_mask(slots - tokens, tokens, slots, args.group, None, None, kind, queries.device)
        for kind in (dtype, torch.float32)
    )
    rows = queries.reshape(args.kv_heads, -1, args.head_dim)
    weights = torch.rand(*rows.shape[:2], slots, generator=random).to(dtype)

    def all_layers(one: Callable[[int], object]) -> Callable[[], object]:
        return lambda: [one(layer) for layer in range(LAYERS)]

    def fused(layer: int) -> torch.Tensor:
        return attend(queries, keys[layer], values[layer], scaling, narrow)

    def products(layer: int) -> torch.Tensor:
        return attend_by_products(queries, keys[layer], values[layer], scaling, wide)

    def limit(layer: int) -> None:
        rows.float() @ keys[layer].float().transpose(1, 2)
        weights @ values[layer]

    took = [ms / LAYERS for ms in interleaved([all_layers(way) for way in (fused, products, limit)], args.repeats)]
    exact = attend_by_products(queries.double(), keys[0].double(), values[0].double(), scaling, wide.double())
    errors = [float((way(0).double() - exact).norm() / exact.norm()) for way in (fused, products)]
    return [slots, tokens, *(round(ms, 3) for ms in took), round(took[1] / took[0], 2), *(round(e, 5) for e in errors)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[2048])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 32, 64, 256], help="new ones")
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--group", type=int, default=3, help="query heads that share a key/value head")
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file to append the result to")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [compare(s, t, args, getattr(torch, args.dtype)) for s in args.slots for t in args.tokens]
    print_table(HEADER, [[f"{cell:g}" for cell in row] for row in rows])
    sizes = {k: getattr(args, k) for k in ("kv_heads", "group", "head_dim", "dtype")}
    report("attention", {**sizes, "header": HEADER, "rows": rows}, args.out)


if __name__ == "__main__":
    main()
