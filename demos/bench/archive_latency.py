"""What an archive costs: a frame's way in, and a question's way to its first token, from minutes to hours of stream.

    python demos/bench/archive_latency.py --hours 0.17 1 10 --host-mib 1200 --disk-mib 10000

The archive is filled with random blocks of the size the model's frames have, as many as a stream of so many hours at
one frame a second leaves behind with no two frames alike, and with one of text every half a minute, as a talk beside it
leaves them; what does not fit the memory lies on disk. Then the same
question is asked with and without recall, in turns, in one process, and the medians of their thread times are compared;
the wall clock, which waits for the disk, stands beside them. Nothing is said about what is found: see `recall.py`. The
same for frames: two engines take the same ones in turns, one with an archive and one without.

The physical limit: a recall reads its tokens' INT8 keys and values once, and the whole index, and the keys of the text
(with `--choose-by attention` those of all blocks instead) in every layer that has a vote.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import print_table, report
from rich.console import Console
from rich.progress import track

from inf_stream.base.config import settings_from_mapping
from inf_stream.base.events import Frame, Question
from inf_stream.base.tokens import NO_FRAME
from inf_stream.cache.archive import Archive
from inf_stream.cache.archive.blocks import TEXT_TOKENS, Block
from inf_stream.engine.build import build_engine, load_weights
from inf_stream.engine.engine import Engine
from inf_stream.models.weights.loaded import LoadedWeights

S = 1_000_000_000
AT_ONCE = 32
MEASURED_FRAMES = 120
STEADY_EVICTIONS = 10
TEXT_EVERY = 30
"""Seconds from one block of text to the next."""


def picture(number: int) -> Frame:
    """Coloured squares, others in every frame."""
    rng = np.random.default_rng(number)
    squares = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Frame(squares.repeat(32, 0).repeat(32, 1), number * S, number)


def fill(archive: Archive, seconds: int, tokens: int, console: Console) -> None:
    """Random blocks, a second's worth of them after the other; a frame of many tokens has several."""
    layout = archive.layout
    pieces = -(-tokens // TEXT_TOKENS)
    tokens, blocks = -(-tokens // pieces), seconds * pieces
    archive._store = store = archive._allocate(tokens)
    random = torch.Generator().manual_seed(0)
    for begin in track(range(0, blocks, AT_ONCE), f"{blocks} blocks", console=console):
        count = min(AT_ONCE, blocks - begin)
        size = (count, layout.layers, layout.kv_heads, tokens, layout.head_dim)
        keys, values = (torch.randn(size, generator=random) for _ in range(2))
        store.write(keys, values)
        for number in range(begin, begin + count):
            at_ns = number // pieces * S
            frame = NO_FRAME if number % (TEXT_EVERY * pieces) == 0 else number // pieces
            block = Block(number * tokens, tokens, at_ns, at_ns, frame)
            archive._enter(number, block, keys[number - begin].mean(2).flatten(1))


def ask(engine: Engine, *, recall: bool) -> tuple[float, float]:
    """Thread and wall seconds until the first token can be drawn."""
    cache, opened = engine.cache, engine.cache.open_recall
    if not recall:
        cache.open_recall = lambda *_: None  # type: ignore[method-assign]
    wall, thread = time.perf_counter(), time.thread_time()
    engine.begin_answer(Question("q", "Did a dog appear?", engine.now_ns, aside=True))
    engine.step_answer()
    took = time.thread_time() - thread, time.perf_counter() - wall
    engine.end_answer()
    cache.open_recall = opened  # type: ignore[method-assign]
    return took


def questions(weights: LoadedWeights, hours: float, args: argparse.Namespace, console: Console) -> dict[str, float]:
    """Medians of asking with and without recall."""
    archive = {
        "host_mib": args.host_mib,
        "disk_mib": args.disk_mib,
        "recall_tokens": args.recall,
        "choose_by": args.choose_by,
    }
    settings = settings_from_mapping({"cache": {"budget_tokens": args.budget}, "archive": archive})
    engine = build_engine(settings, weights)
    frames = 0
    while engine.cache.used_tokens < args.budget:
        engine.ingest_frames([picture(frames)])
        frames += 1
    assert engine.cache.archive is not None
    tokens = engine._counts.frame_tokens or 0
    fill(engine.cache.archive, round(hours * 3600), tokens, console)
    for _ in range(3):
        ask(engine, recall=True)
        ask(engine, recall=False)
    with_recall, without = [], []
    for _ in range(args.repeats):
        with_recall.append(ask(engine, recall=True))
        without.append(ask(engine, recall=False))
    (thread, wall), (thread_alone, wall_alone) = (
        [statistics.median(column) for column in zip(*rows, strict=True)] for rows in (with_recall, without)
    )
    stored = engine.cache.archive
    return {
        "hours": hours,
        "blocks": stored.blocks,
        "archive_mib": round(stored.bytes() / 2**20),
        "index_mib": round(stored._index.nbytes * stored.blocks / max(1, stored._index.shape[1]) / 2**20, 1),
        "thread_ratio": round(thread / thread_alone, 3),
        "wall_ratio": round(wall / wall_alone, 3),
        "first_token_ms": round(1000 * thread, 1),
        "without_ms": round(1000 * thread_alone, 1),
    }


def frames(weights: LoadedWeights, args: argparse.Namespace) -> float:
    """Thread time of a frame with an archive over that without."""
    archives: list[dict[str, Any]] = [{"host_mib": min(args.host_mib, 256), "merge_above": 2.0}, {}]
    engines = [
        build_engine(settings_from_mapping({"cache": {"budget_tokens": args.budget}, "archive": archive}), weights)
        for archive in archives
    ]
    took: list[list[float]] = [[], []]
    number = 0
    while len(took[0]) < MEASURED_FRAMES:
        for engine, times in zip(engines, took, strict=True):
            is_steady = engine.cache.evictions > STEADY_EVICTIONS
            began = time.thread_time()
            engine.ingest_frames([picture(number)])
            if is_steady:
                times.append(time.thread_time() - began)
        number += 1
    return sum(took[0]) / sum(took[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--hours", type=float, nargs="+", default=[1 / 6, 1.0])
    parser.add_argument("--host-mib", type=int, default=1200)
    parser.add_argument("--disk-mib", type=int, default=0)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--recall", type=int, default=512)
    parser.add_argument("--choose-by", choices=("auto", "means", "attention"), default="auto")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file to append the result to")
    args = parser.parse_args()
    console = Console(stderr=True)
    weights = load_weights(settings_from_mapping({"model": {"name": args.model, "threads": args.threads}}))
    frame_ratio = frames(weights, args)
    results = [questions(weights, hours, args, console) for hours in args.hours]
    print_table(list(results[0]), [[f"{value:g}" for value in r.values()] for r in results])
    print(f"a frame's thread time with an archive over without: {frame_ratio:.3f}")
    sizes = {k: getattr(args, k) for k in ("model", "budget", "recall", "host_mib", "disk_mib", "choose_by")}
    report("archive_latency", {**sizes, "frame_ratio": round(frame_ratio, 3), "result": results}, args.out)


if __name__ == "__main__":
    main()
