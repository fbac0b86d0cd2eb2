"""Scripts of what is said and asked, played to one column after the other, and what came of it."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

sys.path.append(str(Path(__file__).parents[1]))
from columns import Conversation, Sizes
from common import Parts, print_table, report
from facts import Item
from plots import draw_points

from inf_stream.base.config import settings_from_mapping
from inf_stream.engine.build import load_weights
from inf_stream.models.weights.loaded import LoadedWeights

COLUMNS = [
    "full", "inf-mllm", "streaming-llm", "h2o", "tova", "sliding-window",
    "inf-mllm+recall", "streaming-llm+recall", "streaming-llm+rekv",
]  # fmt: skip


@dataclass(frozen=True)
class Say:
    """A piece of the stream and the items in it."""

    text: str
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Ask:
    """A question about an item that was said `age` ago (in the unit of the bench), as the `turn`-th of its kind."""

    item: Item
    turn: int
    age: int
    aside: bool = True


Script = Sequence[Say | Ask]


def play(conversation: Conversation, script: Script, title: str) -> list[dict[str, Any]]:
    """What became of each question, as far as the model's context goes for a policy that keeps everything."""
    found, said = [], 0
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for event in progress.track(script, description=title):
            is_said = isinstance(event, Say)
            if not conversation.fits(event.text if is_said else event.item.question + event.item.lead):
                break
            if is_said:
                conversation.read(event.text, event.items, said)
                said += 1
            else:
                reply = conversation.ask(event.item, said, aside=event.aside)
                found.append({"turn": event.turn, "age": event.age, **asdict(reply)})
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What all benches of retrieval ask."""
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--model", required=True, help="as inf-stream takes it: a name, a folder, or a GGUF file")
    parser.add_argument("--columns", nargs="+", default=COLUMNS)
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument("--recall", type=int, default=512, help="tokens that come back for a question")
    parser.add_argument("--archive", type=int, default=2048, help="MiB of it")
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--evict-every", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file of JSON lines; what is there is not measured again")
    parser.add_argument("--plot", type=Path, help="write a picture here")


def load(args: argparse.Namespace) -> LoadedWeights:
    """The model the arguments name."""
    model = {"name": args.model, "device": args.device, "dtype": args.dtype, "threads": args.threads}
    return load_weights(settings_from_mapping({"model": model}))


def compare(bench: str, args: argparse.Namespace, facts: dict[str, Any], scripts: list[Script]) -> dict[str, Any]:
    """Records of every column over all scripts; `facts` name what the scripts depend on besides the seed."""
    sizes = Sizes(args.budget, args.recall, args.chunk, args.evict_every, args.archive)
    weights = load(args)
    parts = Parts(bench, args.out)
    found: dict[str, Any] = {}
    for column in args.columns:
        found[column] = []
        for number, script in enumerate(scripts):
            part = {"model": Path(args.model).name, "column": column, "script": number, "seed": args.seed}

            def measure(column: str = column, number: int = number, script: Script = script) -> dict[str, Any]:
                title = f"{column} {number + 1}/{len(scripts)}"
                return {"replies": play(Conversation(weights, column, sizes), script, title)}

            found[column] += parts.result(part | asdict(sizes) | facts, measure)["replies"]
    return found


def accuracy(replies: list[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> dict[Any, float]:
    """Share of right answers by what `key` says of a reply, in its order."""
    groups: dict[Any, list[bool]] = {}
    for reply in replies:
        groups.setdefault(key(reply), []).append(reply["right"])
    return {name: sum(groups[name]) / len(groups[name]) for name in sorted(groups)}


def show(
    bench: str,
    args: argparse.Namespace,
    facts: dict[str, Any],
    found: dict[str, Any],
    keys: dict[str, Callable[[dict[str, Any]], Any]],
) -> None:
    """Print a table by each of `keys`, draw them, and report."""
    summary: dict[str, Any] = {
        column: {"right": round(sum(r["right"] for r in replies) / max(1, len(replies)), 3), "asked": len(replies)}
        for column, replies in found.items()
    }
    for title, key in keys.items():
        by = {column: accuracy(replies, key) for column, replies in found.items()}
        names = sorted({name for accuracies in by.values() for name in accuracies})
        rows = [
            [column, *(f"{100 * a[n]:.0f}" if n in a else "-" for n in names), f"{100 * summary[column]['right']:.0f}",
             *_whereabouts(found[column])]
            for column, a in by.items()
        ]  # fmt: skip
        print(f"\n% right by {title}")
        print_table(["column", *map(str, names), "all", "kept", "recalled"], rows)
        for column, accuracies in by.items():
            summary[column][title] = {str(n): round(v, 3) for n, v in accuracies.items()}
        if args.plot:
            path = args.plot.with_stem(f"{args.plot.stem}_{title.split()[0]}")
            curves = {column: [(n, 100 * v) for n, v in a.items()] for column, a in by.items()}
            draw_points({f"budget {args.budget}": curves}, title, "% right", path, log=True)
    sizes = {k: getattr(args, k) for k in ("budget", "recall", "chunk", "evict_every", "seed")}
    report(bench, {"model": Path(args.model).name, **sizes, **facts, "summary": summary}, args.out)


def _whereabouts(replies: list[dict[str, Any]]) -> list[str]:
    """How much of what is asked for was live, and in how many layers it was recalled, on average."""
    if not replies:
        return ["-", "-"]
    kept = sum(r["kept"] for r in replies) / len(replies)
    recalled = [r["recalled"] for r in replies if r["recalled"] is not None]
    return [f"{kept:.2f}", f"{sum(recalled) / len(recalled):.2f}" if recalled else "-"]
