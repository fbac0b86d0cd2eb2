"""What is still known of an hour of video, by what is asked for and how long ago it was.

    python demos/bench/quality/video.py quiet --data FOLDER_WITH_FLICKR8K --out video.jsonl --plot video.png
    python demos/bench/quality/video.py dense --data FOLDER_WITH_FLICKR8K --every 10 --budget 1024 --out video.jsonl

`quiet`: 3 600 frames of one slowly changing scene with 60 events of three seconds strewn in, held-out photographs and
rendered shapes. Some photographs show a thing that nothing else in the hour does. `dense`: no two frames are alike; a
bounded cache cannot hold them, recall from an archive can. The same questions are asked in every column:

    at      What was shown at mm:ss?                    one of four captions of the same stream
    appear  Did X appear?                               yes or no, as often the one as the other
    when    When did X appear?                          one of four times at which something appeared
    first   Which came first, X or Y?                   one of the two
    now     What do you see?                            one of four captions, while an event is shown

An answer is right if the model finds it likelier, by the mean over its tokens, than the wrong ones. `above chance` is
the mean of what is right (1 or 0) less what guessing would reach, in points. `kept` is how much of the event's first
frame is live when it is asked for, `recalled` how much of it comes back, over all layers.

Questions are asides and change nothing, unless `--stay` makes each a turn of the conversation, with its right answer.
`--cost` also measures thread time to the first token, with the recall and right after it without. A column that keeps
everything ends with the trained context. Finished columns are lines of `--out`; a rerun goes on with the others.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2] / "train_demo_model"))
from captions import load_pictures
from columns import Sizes
from common import Parts, print_table, report
from hours import Hour, dense_hour, quiet_hour
from plots import draw_points
from rich.console import Console
from rich.progress import track
from watching import Asked, Watcher, make_questions

from inf_stream.base.config import settings_from_mapping
from inf_stream.engine.build import load_weights

BENCH = "video"
COLUMNS = {
    "quiet": ["last-frames", "streaming-llm", "inf-mllm", "inf-mllm+recall"],
    "dense": ["inf-mllm", "inf-mllm+recall", "inf-mllm+attended", "streaming-llm+rekv"],
}


def watch_hour(watcher: Watcher, hour: Hour, questions: list[Asked], args: argparse.Namespace, title: str) -> list[Any]:
    """What became of each question, as far as the column goes."""
    due: dict[int, list[Asked]] = defaultdict(list)
    for asked in questions:
        due[asked.at_s // hour.every_s * hour.every_s].append(asked)
    found = []
    for at_s in track(range(0, hour.seconds, hour.every_s), title, console=Console(stderr=True), transient=True):
        if not watcher.fits:
            break
        watcher.watch(hour, at_s)
        for asked in due[at_s]:
            found.append(watcher.judge(asked, timed=args.cost))
            if args.stay:
                watcher.keep(asked)
    return found


def above_chance(replies: list[dict[str, Any]]) -> float:
    """In points."""
    return 100 * float(np.mean([r["right"] - r["chance"] for r in replies]))


def summary(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """Right answers by kind and by age in percent, and above chance without those about now."""
    past = [r for r in replies if r["kind"] != "now"]
    costs = [r["cost"] for r in replies if "cost" in r]
    return {
        "asked": len(replies),
        "above_chance": round(above_chance(past), 1) if past else None,
        "by_age": _means(past, lambda r: r["age"], above_chance),
        "by_kind": _means(replies, lambda r: r["kind"], _right),
        "at_by_age": _means([r for r in past if r["kind"] == "at"], lambda r: r["age"], _right),
        "kept_by_age": _means(past, lambda r: r["age"], lambda rs: float(np.mean([r["kept"] for r in rs]))),
        "recalled_by_age": _means(
            [r for r in past if r["recalled"] is not None],
            lambda r: r["age"],
            lambda rs: float(np.mean([r["recalled"] for r in rs])),
        ),
        "first_token_ratio": round(float(np.median(costs)), 3) if costs else None,
    }


def _right(replies: list[dict[str, Any]]) -> float:
    return 100 * float(np.mean([r["right"] for r in replies]))


def _means(
    replies: list[dict[str, Any]], key: Callable[[Any], Any], mean: Callable[[list[dict[str, Any]]], float]
) -> dict[str, float]:
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for reply in replies:
        groups[key(reply)].append(reply)
    return {str(name): round(mean(groups[name]), 2) for name in sorted(groups)}


def show(found: dict[str, dict[str, Any]]) -> None:
    """Tables by age and by kind."""
    for what in ("by_age", "kept_by_age", "recalled_by_age", "by_kind"):
        names = list(dict.fromkeys(name for s in found.values() for name in s[what]))
        rows = [[c, *(str(s[what].get(n, "-")) for n in names), str(s["above_chance"])] for c, s in found.items()]
        print(f"\n{what.replace('_', ' ')}")
        print_table(["column", *names, "above chance"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", choices=list(COLUMNS))
    parser.add_argument("--data", type=Path, required=True, help="folder that holds flickr8k/")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--columns", nargs="+", help="see columns.py")
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--every", type=int, default=1, help="seconds from one frame of a dense hour to the next")
    parser.add_argument("--events", type=int, default=60, help="of a quiet hour")
    parser.add_argument("--each", type=int, default=15, help="questions of a kind and an age")
    parser.add_argument("--ages", type=int, nargs="+", default=[10, 60, 300, 1800, 3300], help="in seconds")
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument("--recall", type=int, default=512, help="tokens that come back for a question")
    parser.add_argument("--archive", type=int, default=1024, help="MiB of it")
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--evict-every", type=int, default=64)
    parser.add_argument("--stay", action="store_true", help="each question becomes a turn of the conversation")
    parser.add_argument("--cost", action="store_true", help="measure the time to the first token, too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file of JSON lines; what is there is not measured again")
    parser.add_argument("--plot", type=Path, help="write a picture here")
    args = parser.parse_args()
    pictures, rng = load_pictures(args.data / "flickr8k", "dev"), np.random.default_rng(args.seed)
    if args.stream == "quiet":
        hour = quiet_hour(pictures, args.seconds, args.events, rng)
        facts = {"events": args.events}
    else:
        hour = dense_hour(pictures, args.seconds, args.every, rng)
        facts = {"every": args.every}
    questions = make_questions(hour, args.ages, args.each, rng)
    sizes = Sizes(args.budget, args.recall, args.chunk, args.evict_every, args.archive)
    facts |= {k: getattr(args, k) for k in ("stream", "model", "seconds", "each", "ages", "stay", "cost", "seed")}
    weights = load_weights(settings_from_mapping({"model": {"name": args.model, "threads": args.threads}}))
    parts, found = Parts(BENCH, args.out), dict[str, dict[str, Any]]()
    for column in args.columns or COLUMNS[args.stream]:

        def measure(column: str = column) -> dict[str, Any]:
            watcher = Watcher(weights, column, sizes)
            replies = watch_hour(watcher, hour, questions, args, column)
            stats = {k: v for k, v in watcher.engine.stats().items() if k.startswith("archive")}
            return {"replies": replies, "archive": stats}

        found[column] = summary(parts.result(facts | asdict(sizes) | {"column": column}, measure)["replies"])
    show(found)
    if args.plot:
        curves = {c: [(float(age), value) for age, value in s["by_age"].items()] for c, s in found.items()}
        title = f"{args.stream} hour, budget {args.budget}"
        draw_points({title: curves}, "seconds ago", "points above chance", args.plot, log=True)
    report(BENCH, facts | asdict(sizes) | {"summary": found}, args.out)


if __name__ == "__main__":
    main()
