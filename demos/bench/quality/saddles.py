"""Where attention goes while a stream is read: maps, shares by kind and age of token, and how long a saddle lives.

    python demos/bench/quality/saddles.py --data FOLDER_OF_TEXTS --text war_and_peace --tokens 4096 \
        --layers 0 8 16 24 29 --out saddles.jsonl --plot saddles.png
    python demos/bench/quality/saddles.py --video CLIP --frames 120 --out saddles_video.jsonl --plot saddles_video.png

Nothing is evicted, so what is seen is what a policy would have to choose from. In every round one chunk of a text or
one frame of a video is read, and what attention each token receives from it is noted per layer and key/value head (its
queries averaged). A saddle is a token that gets more than `--times` its equal share; its life is the number of rounds
in a row in which it is one, counted from the first round after the one it came in. The paper's three kinds are told
apart: recent tokens, the first ones, and scattered others (arXiv 2409.09086).

Of a video the others are a frame's time text, its first visual token, the rest of them, and the text after them. Every
`--ask-every` frames each of `--questions` is asked aside, and where its own queries look is counted by itself: by kind,
`question` being its own text, and by how many frames ago a frame came.
"""

import argparse
import itertools
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

sys.path.append(str(Path(__file__).parents[1]))
from attention_maps import QUESTION, TEXT_KINDS, VIDEO_KINDS, AttentionMaps, text_maps, video_maps
from common import print_table, report
from texts import read_text

from inf_stream.base.config import settings_from_mapping
from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import FrameArrived
from inf_stream.engine.build import load_weights
from inf_stream.models.stream_model import StreamModel
from inf_stream.sources.door import open_source


def shares_by_kind(maps: AttentionMaps, names: tuple[str, ...]) -> dict[str, float]:
    """Share of all attention by kind of token; the last round and the one being read are recent, whatever they are.

    The first tokens and a question's own are not.
    """
    total: Counter[str] = Counter()
    aged = _aged(maps)
    for at, one in zip(maps.at, maps.received, strict=True):
        received = one.mean((0, 1))
        recent = aged & (maps.came >= at - 1)
        total["recent"] += float(received[recent].sum())
        for name in names:
            total[name] += float(received[~recent & (maps.kinds == name)].sum())
    whole = sum(total.values())
    return {name: total[name] / whole for name in names}


def shares_by_age(maps: AttentionMaps) -> dict[str, float]:
    """Share of all attention by how many rounds ago a token came, in doublings.

    The first tokens and a question's own are left out.
    """
    edges = [0, *itertools.takewhile(lambda edge: edge <= maps.at[-1], (2**n for n in itertools.count()))]
    total: Counter[int] = Counter()
    aged = _aged(maps)
    for at, one in zip(maps.at, maps.received, strict=True):
        received, age = one.mean((0, 1))[aged], at - maps.came[aged]
        for edge in edges:
            inside = (age >= edge) & (age < max(1, 2 * edge))
            total[edge] += float(received[inside].sum())
    whole = sum(total.values())
    return {str(edge): total[edge] / whole for edge in edges}


def _aged(maps: AttentionMaps) -> np.ndarray:
    return ~np.isin(maps.kinds, ("first", QUESTION))


def lives(saddle: np.ndarray, came: np.ndarray) -> list[int]:
    """How many rounds in a row each saddle stays one, from the round after it came; ``saddle`` is ``[rounds, tokens]``.

    Lives that the end of the stream cuts off count as long as they were seen.
    """
    found = []
    for token in range(saddle.shape[1]):
        run = 0
        for is_one in saddle[came[token] + 1 :, token]:
            if is_one:
                run += 1
            elif run:
                found.append(run)
                run = 0
        if run:
            found.append(run)
    return found


def saddles_of(maps: AttentionMaps, times: float, unit: str, per_round: int = 1) -> dict[str, Any]:
    """Lives of all saddles, the first tokens left out, by layer averaged over heads; `per_round` units are a round."""
    found: list[int] = []
    seen = np.searchsorted(maps.came, maps.at, side="right")
    for layer in range(maps.received.shape[1]):
        received = maps.received[:, layer].mean(1)
        saddle = received > times / seen[:, None]
        saddle[:, ~_aged(maps)] = False
        found += lives(saddle, maps.came)
    counted = np.array(found or [0])
    return {
        "saddles": len(found),
        f"median_life_{unit}": float(np.median(counted)) * per_round,
        f"mean_life_{unit}": float(counted.mean()) * per_round,
        f"longest_life_{unit}": int(counted.max()) * per_round,
        "one_round_only": float((counted == 1).mean()),
    }


def draw(maps: AttentionMaps, layers: list[int], head: int, path: Path) -> None:
    """One map a layer: rounds downwards, tokens to the right, in bins of eight tokens by their largest value."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm

    figure, axes = plt.subplots(1, len(layers), figsize=(3.2 * len(layers), 2.6), squeeze=False)
    for axis, layer in zip(axes[0], layers, strict=True):
        one = maps.received[:, layer, head]
        binned = one[:, : one.shape[1] // 8 * 8].reshape(len(one), -1, 8).max(-1)
        axis.imshow(np.maximum(binned, 1e-6), norm=LogNorm(1e-5, 1e-1), aspect="auto", interpolation="nearest")
        axis.set_title(f"layer {layer}, KV head {head}", fontsize=8)
        axis.set_xlabel("token / 8", fontsize=7)
        axis.set_ylabel("round", fontsize=7)
        axis.tick_params(labelsize=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", dpi=90)
    plt.close(figure)


def measure_text(model: StreamModel, args: argparse.Namespace) -> tuple[AttentionMaps, dict[str, Any]]:
    """The maps of a text, and the result."""
    ids = model.ids(read_text(args.data, args.text, 8 * args.tokens, args.seed))[: args.tokens]
    maps = text_maps(model, ids, args.chunk)
    named = {k: getattr(args, k) for k in ("text", "tokens", "chunk", "seed", "times")}
    return maps, {**named, **shares(maps, TEXT_KINDS)}


def measure_video(model: StreamModel, args: argparse.Namespace) -> tuple[AttentionMaps, dict[str, Any]]:
    """The maps of a clip's frames, and the result with that of the questions.

    Raises:
        SourceError: the clip cannot be read.
        ModelError: the model reads text only.
        BudgetError: no frame fits its trained context.
    """
    settings = settings_from_mapping({"source": {"fps": args.fps}})
    with open_source(str(args.video), settings.source) as source:
        arrived = (event.frame for event in source if isinstance(event, FrameArrived))
        frames = itertools.islice(arrived, args.frames)
        bar = track(frames, "watching", args.frames, console=Console(stderr=True), transient=True)
        maps, asked = video_maps(model, bar, args.questions, args.ask_every)
    sizes = {"frames": len(maps.at), "tokens": len(maps.came)}
    named = {"video": args.video.name, "fps": args.fps, **sizes, "ask_every": args.ask_every, "times": args.times}
    questions = {text: shares(one, (*VIDEO_KINDS, QUESTION)) for text, one in asked.items()}
    return maps, {**named, **shares(maps, VIDEO_KINDS), "questions": questions}


def shares(maps: AttentionMaps, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Shares of the attention, by kind and by age, and of the tokens."""
    counts = Counter(maps.kinds.tolist())
    tokens = {name: counts[name] / len(maps.kinds) for name in names if name in counts}
    return {"by_kind": shares_by_kind(maps, names), "by_age": shares_by_age(maps), "tokens_by_kind": tokens}


def show(title: str, found: dict[str, Any]) -> None:
    """Two tables of `shares`."""
    print(f"\n{title}")
    tokens = {name: f"{100 * part:.1f}" for name, part in found["tokens_by_kind"].items()}
    rows = [[name, f"{100 * part:.1f}", tokens.get(name, "-")] for name, part in found["by_kind"].items()]
    print_table(["kind", "% of the attention", "% of the tokens"], rows)
    print_table(["rounds ago", "% of the attention"], [[f"{k}+", f"{100 * v:.1f}"] for k, v in found["by_age"].items()])


def parse_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stream = parser.add_mutually_exclusive_group(required=True)
    stream.add_argument("--data", type=Path, help="folder of texts")
    stream.add_argument("--video", type=Path, help="a clip, or a folder of pictures")
    parser.add_argument("--text", default="war_and_peace")
    parser.add_argument("--tokens", type=int, default=4096, help="of the text")
    parser.add_argument("--chunk", type=int, default=64, help="tokens of a round of text")
    parser.add_argument("--seed", type=int, default=0, help="where the text begins")
    parser.add_argument("--frames", type=int, default=120, help="of the video")
    parser.add_argument("--fps", type=float, default=1.0, help="frames of a second of the video")
    parser.add_argument("--questions", nargs="*", default=["What do you see?", "What was shown at 00:05?"])
    parser.add_argument("--ask-every", type=int, default=10, help="frames from one asking to the next")
    parser.add_argument("--times", type=float, default=8.0, help="a saddle gets so many times its equal share")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 8, 16, 24, 29], help="to draw")
    parser.add_argument("--head", type=int, default=0, help="key/value head to draw")
    parser.add_argument("--model", help="default: smollm2-135m for a text, demo for a video")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append the JSON line to this file")
    parser.add_argument("--plot", type=Path, help="write the maps here")
    args = parser.parse_args()
    if args.frames < 1 or args.ask_every < 1:
        parser.error(f"--frames {args.frames} and --ask-every {args.ask_every} must be at least 1")
    return args


def main() -> None:
    args = parse_arguments()
    name = args.model or ("demo" if args.video else "smollm2-135m")
    settings = {"name": name, "device": args.device, "dtype": args.dtype, "threads": args.threads}
    model = StreamModel(load_weights(settings_from_mapping({"model": settings})))
    try:
        maps, found = (measure_video if args.video else measure_text)(model, args)
    except InfStreamError as error:
        sys.exit(str(error))
    lived = saddles_of(maps, args.times, "frames") if args.video else saddles_of(maps, args.times, "tokens", args.chunk)
    show("The stream", found)
    for text, one in found.get("questions", {}).items():
        show(text, one)
    print_table(list(lived), [[f"{v:.4g}" for v in lived.values()]])
    if args.plot:
        draw(maps, [n for n in args.layers if n < maps.received.shape[1]], args.head, args.plot)
    stream = "video" if args.video else "text"
    report("saddles", {"stream": stream, "model": Path(name).name, **found, **lived}, args.out)


if __name__ == "__main__":
    main()
