"""A text stream of a million tokens with questions along the way: memory and time to first token stay flat.

    python demos/bench/endless_text.py book.txt another.txt --tokens 1000000 --plot endless_text.png

The files are read one after the other, again and again, until the stream is long enough; Ctrl-C ends it early, and what
was measured until then is judged. Time to first token is that of the engine's thread (`--clock thread`) or of the wall;
on a busy machine only the former says something about us.
"""

import argparse
import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from common import report
from rich.progress import Progress
from steadiness import Sample, draw, judge

from inf_stream.base.config import Settings, settings_from_mapping
from inf_stream.base.events import Question
from inf_stream.engine.build import build_engine, load_weights
from inf_stream.engine.engine import Engine

QUESTION = "Who is spoken of in the last lines? Answer with one name."
CLOCKS = {"thread": time.thread_time, "wall": time.perf_counter}


def pieces(files: list[Path], characters: int) -> Iterator[str]:
    """The files' text in pieces that end at a space, for ever."""
    for file in itertools.cycle(files):
        text, start = file.read_text(encoding="utf-8", errors="replace"), 0
        while start < len(text):
            stop = text.find(" ", start + characters - 40)
            stop = len(text) if stop < 0 else stop
            yield text[start:stop]
            start = stop


def ask(engine: Engine, number: int, progress: float, clock: str) -> Sample:
    """Ask, answer in full, and measure."""
    now = CLOCKS[clock]
    before = now()
    engine.begin_answer(Question(str(number), QUESTION, 0))
    step = engine.step_answer()
    ttft_s = now() - before
    while step.finished is None:
        step = engine.step_answer()
    engine.end_answer()
    stats = engine.stats()
    return Sample(
        progress,
        ttft_s,
        int(stats["process_bytes"]),
        int(stats["cache_bytes"]),
        int(stats["tokens_seen"]),
        int(stats["tokens_kept"]),
    )


def read_and_ask(engine: Engine, args: argparse.Namespace, samples: list[Sample]) -> None:
    """Read the files over and over, asking at even distances; samples are added as they come."""
    every = args.tokens // args.questions
    with Progress(transient=True) as progress:
        task = progress.add_task("reading", total=args.tokens)
        for piece in pieces(args.files, engine.characters_per_step):
            engine.ingest_text(piece, 0)
            seen = engine.cache.seen_tokens
            progress.update(task, completed=seen)
            if seen >= (len(samples) + 1) * every:
                samples.append(ask(engine, len(samples), seen / args.tokens, args.clock))
                print(f"{seen:9,} tokens  {samples[-1].process_bytes / 2**20:6.0f} MiB", flush=True)
            if seen >= args.tokens:
                return


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="text files")
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--answer-tokens", type=int, default=8)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--policy", default="inf-mllm")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="thread")
    parser.add_argument("--plot", type=Path, help="write a picture here")
    parser.add_argument("--out", type=Path, help="append the JSON line to this file")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    settings: Settings = settings_from_mapping(
        {
            "model": {"name": args.model, "device": args.device, "dtype": args.dtype, "threads": args.threads},
            "cache": {"budget_tokens": args.budget, "policy": args.policy},
            "answer": {"max_tokens": args.answer_tokens},
        }
    )
    engine = build_engine(settings, load_weights(settings))
    samples: list[Sample] = []
    started = time.perf_counter()
    with contextlib.suppress(KeyboardInterrupt):
        read_and_ask(engine, args, samples)
    tokens = engine.cache.seen_tokens
    samples = [dataclasses.replace(s, progress=s.tokens_seen / tokens) for s in samples]
    engine.cache.check()
    if args.plot:
        draw(samples, f"{args.model}, budget {args.budget}, {args.policy}", args.plot)
    result = judge(samples) | {
        "model": args.model,
        "dtype": str(engine.model.layout.dtype).removeprefix("torch."),
        "budget": args.budget,
        "policy": args.policy,
        "clock": args.clock,
        "tokens_per_s": tokens / (time.perf_counter() - started),
        "evictions": engine.cache.evictions,
        "device_memory_mib": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
    }
    for key, value in result.items():
        print(f"{key:28} {value:.4g}" if isinstance(value, float) else f"{key:28} {value}")
    report("endless_text", result, args.out)


if __name__ == "__main__":
    main()
