"""What is saved by reading the tokens of several answers in one pass over the weights.

    python demos/bench/together.py --model demo --answers 1 2 4 8

So many engines on one set of weights, each with a full cache of its own, give an answer at the same time: once token by
token in turns, once with the tokens read together. Both go on in turns in one process; the medians of the thread time
of one token of every engine are compared. Physical limit: a pass over the weights costs what it costs for one token,
so the ratio is never above the number of answers; attention over each engine's own cache is never shared.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from archive_latency import S, picture
from common import print_table, report
from rich.console import Console
from rich.progress import track

from inf_stream.base.config import settings_from_mapping
from inf_stream.base.events import Question
from inf_stream.engine.build import build_engine, load_weights
from inf_stream.engine.engine import Engine
from inf_stream.engine.together import read_together
from inf_stream.models.weights.loaded import LoadedWeights

TEXT = "The quick brown fox jumps over the lazy dog. "


def answering(weights: LoadedWeights, count: int, budget: int, console: Console) -> list[Engine]:
    """Engines with full caches and an answer open that does not end."""
    settings = settings_from_mapping({"cache": {"budget_tokens": budget}, "answer": {"max_tokens": 10_000}})
    engines = [build_engine(settings, weights) for _ in range(count)]
    for number, engine in enumerate(track(engines, f"{count} caches of {budget} tokens", console=console)):
        step = 0
        while engine.cache.used_tokens < budget:
            if engine.model.vision is None:
                engine.ingest_text(TEXT * 10, step * S)
            else:
                engine.ingest_frames([picture(1000 * number + step)])
            step += 1
        engine.model.stop_ids = frozenset()
        engine.begin_answer(Question("q", "What is there to see?", step * S))
        engine.step_answer()
    return engines


def token_of_each(engines: list[Engine], *, together: bool) -> float:
    """Seconds of this thread, and of the device where there is one."""
    began_s = _now_s(engines[0])
    if together:
        read_together(engines)
    for engine in engines:
        engine.step_answer()
    return _now_s(engines[0]) - began_s


def _now_s(engine: Engine) -> float:
    if engine.model.device.type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--answers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=40, help="of each answer, for each of the two ways")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file to append the result to")
    args = parser.parse_args()
    console = Console(stderr=True)
    model = {"name": args.model, "device": args.device, "threads": args.threads}
    weights = load_weights(settings_from_mapping({"model": model}))
    rows = []
    for count in args.answers:
        engines = answering(weights, count, args.budget, console)
        alone, together = [], []
        for number in range(args.tokens):
            for is_together, times in ((False, alone), (True, together)):
                took_s = token_of_each(engines, together=is_together)
                if number >= 3:
                    times.append(took_s)
        alone_s, together_s = statistics.median(alone), statistics.median(together)
        rows.append(
            {
                "answers": count,
                "alone_ms": round(1000 * alone_s, 1),
                "together_ms": round(1000 * together_s, 1),
                "ratio": round(alone_s / together_s, 2),
                "limit": count,
            }
        )
    print_table(list(rows[0]), [[f"{value:g}" for value in row.values()] for row in rows])
    report("together", {"model": args.model, "budget": args.budget, "result": rows}, args.out)


if __name__ == "__main__":
    main()
