"""What a bounded cache still knows of an hour in which nothing repeats, with and without recall from the archive.

    python demos/bench/recall.py --data FOLDER_WITH_FLICKR8K --budget 2048 --recall 512 --archive 512

Held-out pictures follow one another, each once, one every `--every` seconds. On the way, every so often, questions
are asked about pictures of certain ages: "What was shown at mm:ss?", judged by which of four captions of the same
stream the model finds likeliest (chance 25 %); "now" is the newest picture, by the same four captions. And "Did X
appear?", of things that few pictures have shown, judged by what is recalled for it: how many times likelier a
recalled frame shows X than an archived one (lift; 1 is chance). All questions are asides, so they change nothing.

The configurations go through the same stream, each by itself: `alone` has no archive; `recall` is what ships;
`untimed` is the same without reading times from the question; `all-vote` is that with a vote and a choice of every
layer; `mean-query` chooses as ReKV (arXiv 2503.00540) does, each layer by itself by the question's mean query,
without reading times; `attended` is `recall` with `archive.choose_by = "attention"`. What a question costs before its
first answer token is measured in thread time, with the recall and right after it without, so that both have the same
machine.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from common import ago, print_table, report
from options import likelihoods
from rich.console import Console
from rich.progress import track
from rivals import choose_as, take_queries_as_they_are

sys.path.append(str(Path(__file__).parents[1] / "train_demo_model"))
from captions import CONCEPTS, Picture, load_pictures, sentence
from features import read_picture

from inf_stream.base.clock import format_clock
from inf_stream.base.config import settings_from_mapping
from inf_stream.base.events import Frame
from inf_stream.engine.build import build_engine, load_weights
from inf_stream.engine.engine import Engine
from inf_stream.engine.moments import read_span
from inf_stream.models.weights.loaded import LoadedWeights

S = 1_000_000_000
CONFIGURATIONS = ("alone", "recall", "untimed", "all-vote", "mean-query", "attended")
EDGE = 256
THINGS, FEW = 3, 0.15
"""Things that are asked after in a round, and of how many of the pictures such a thing is in, at most."""


@dataclass
class Asked:
    """A question about a picture that was shown `age_s` ago; the first option is right."""

    age_s: float
    kind: str
    text: str
    options: tuple[str, ...]


@dataclass
class Told:
    """Figures of one configuration."""

    right: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    lift: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)


class Listener:
    """An engine in one configuration."""

    def __init__(self, weights: LoadedWeights, configuration: str, args: argparse.Namespace):
        choose_by = "attention" if configuration == "attended" else "means"
        archive = {"host_mib": args.archive, "recall_tokens": args.recall, "choose_by": choose_by}
        archive = {} if configuration == "alone" else archive
        settings = settings_from_mapping({"cache": {"budget_tokens": args.budget}, "archive": archive})
        self.engine: Engine = build_engine(settings, weights)
        self.configuration, self.told = configuration, Told()
        if configuration == "mean-query":
            take_queries_as_they_are(self.engine.cache)

    def archived_seconds(self) -> set[int]:
        """Of all that could be recalled."""
        archive = self.engine.cache.archive
        assert archive is not None, "something was recalled"
        return {t // S for t in archive.times_ns()[archive.candidates()].tolist()}

    @torch.inference_mode()
    def likelihoods(
        self, asked: Asked, now_ns: int, *, with_recall: bool = True
    ) -> tuple[list[float], float, set[int]]:
        """Mean log likelihood a token of each option, thread seconds to the first, seconds that were recalled."""
        engine, cache, model = self.engine, self.engine.cache, self.engine.model
        began = time.thread_time()
        asked_in = engine._assembler.place()
        cache.set_mark()
        seconds: set[int] = set()
        try:
            if with_recall:
                span = read_span(asked.text, now_ns) if self.configuration in ("recall", "attended") else None
                cache.open_recall(span)
                choose_as(self.configuration, cache, span)
            chunk = engine._assembler.question(asked.text, now_ns)
            hidden = engine._reader.read(chunk)
            cache.end_choice(learn=False)
            engine._assembler.accept(chunk, engine._assembler.turn)
            first = model.logits(hidden[-1:])
            took = time.thread_time() - began
            if cache.recall is not None:
                # Most layers recall what the last one does.
                places = cache.recall.chosen(cache.layout.layers - 1)
                seconds = {t // S for t in cache.recall.archive.times_ns()[places].tolist()}
            found = likelihoods(engine, first, asked.options)
        finally:
            cache.close_recall()
            cache.return_to_mark()
            engine._assembler.return_to(asked_in)
        return found, took, seconds


def questions(rng: np.random.Generator, seen: list[Picture], every_s: int, ages_s: list[float]) -> list[Asked]:
    """About pictures of these ages, as far as the stream goes back."""
    now_s, found = (len(seen) - 1) * every_s, []
    for age_s in [0.0, *ages_s]:
        place = len(seen) - 1 - round(age_s / every_s)
        if place < 0:
            continue
        others = [int(i) for i in rng.permutation(len(seen)) if i != place][:3]
        clock = format_clock((now_s - round(age_s / every_s) * every_s) * S)
        options = tuple(sentence(seen[i].captions[0]) for i in (place, *others))
        if age_s:
            options = tuple(f"{clock} {option}" for option in options)
            found.append(Asked(age_s, "at", f"What was shown at {clock}?", options))
        else:
            found.append(Asked(0.0, "now", "What do you see?", options))
    few = [c for c in CONCEPTS if 3 <= sum(bool(p.mentions[c]) for p in seen) <= FEW * len(seen)]
    things = [few[int(n)] for n in rng.permutation(len(few))[:THINGS]]
    return found + [Asked(0.0, thing, f"Did {thing} appear?", ("Yes.",)) for thing in things]


def run(listener: Listener, pictures: list[Picture], args: argparse.Namespace, console: Console) -> None:
    """The whole stream, with its questions."""
    told, seen = listener.told, list[Picture]()
    for number, picture in enumerate(track(pictures, listener.configuration, console=console)):
        frame = Frame(read_picture(picture.path, EDGE), number * args.every * S, number)
        listener.engine.ingest_frames([frame])
        seen.append(picture)
        if (number + 1) % args.ask_every or number < args.ask_every:
            continue
        rng = np.random.default_rng([args.seed, number])
        for asked in questions(rng, seen, args.every, args.ages):
            likely, took, seconds = listener.likelihoods(asked, number * args.every * S)
            if asked.kind in ("now", "at"):
                told.right[ago(asked.age_s) if asked.kind == "at" else "now"].append(likely[0] == max(likely))
            elif seconds:
                archived = listener.archived_seconds()
                shows = {s for s in archived if seen[s // args.every].mentions[asked.kind]}
                if shows:
                    told.lift.append((len(shows & seconds) / len(seconds)) / (len(shows) / len(archived)))
            if listener.configuration != "alone" and seconds:
                _, without, _ = listener.likelihoods(asked, number * args.every * S, with_recall=False)
                told.cost.append(took / without)


def figures(told: Told) -> dict[str, object]:
    """What a configuration reached."""
    return {
        "at": {age: round(float(np.mean(right)), 3) for age, right in told.right.items()},
        "asked": {age: len(right) for age, right in told.right.items()},
        "lift": round(float(np.mean(told.lift)), 2) if told.lift else None,
        "lift_questions": len(told.lift),
        "first_token_ratio": round(float(np.median(told.cost)), 3) if told.cost else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds flickr8k/")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pictures", type=int, default=720, help="length of the stream; at most 1000")
    parser.add_argument("--every", type=int, default=5, help="seconds from one picture to the next")
    parser.add_argument("--ask-every", type=int, default=20, help="pictures between two rounds of questions")
    parser.add_argument("--ages", type=float, nargs="+", default=[10, 60, 300, 900, 1800, 3300], help="in seconds")
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--recall", type=int, default=512, help="tokens that come back for a question")
    parser.add_argument("--archive", type=int, default=1024, help="MiB of it")
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file to append the result to")
    args = parser.parse_args()
    console = Console(stderr=True)
    pictures = load_pictures(args.data / "flickr8k", "dev")
    order = np.random.default_rng(args.seed).permutation(len(pictures))[: args.pictures]
    settings = settings_from_mapping({"model": {"name": args.model, "threads": args.threads}})
    weights = load_weights(settings)
    result: dict[str, dict[str, object]] = {}
    archives = {}
    for configuration in args.configurations:
        listener = Listener(weights, configuration, args)
        run(listener, [pictures[int(i)] for i in order], args, console)
        result[configuration] = figures(listener.told)
        archives[configuration] = {k: v for k, v in listener.engine.stats().items() if k.startswith("archive")}
        console.print(configuration, json.dumps(result[configuration]))
        del listener
    ages = list(dict.fromkeys(age for r in result.values() for age in r["at"]))  # type: ignore[attr-defined]
    rows = [
        [name, *(f"{100 * r['at'][age]:.0f}" if age in r["at"] else "-" for age in ages), str(r["lift"] or "-"),
         str(r["first_token_ratio"] or "-")]  # type: ignore[index,operator]
        for name, r in result.items()
    ]  # fmt: skip
    print_table(["shown at, % right", *ages, "lift", "first token, times as long"], rows)
    size = {k: getattr(args, k) for k in ("pictures", "every", "ask_every", "budget", "recall", "archive", "seed")}
    report("recall", {"model": args.model, **size, "archives": archives, "result": result}, args.out)


if __name__ == "__main__":
    main()
