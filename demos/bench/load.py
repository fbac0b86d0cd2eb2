"""How many clients one server bears: N cameras at a frame a second, each asking every ten seconds, for ten minutes.

    python demos/bench/load.py --out demos/bench/results/load.jsonl --plot demos/bench/results/load.png

For N = 1, 2, 4, ... until the 95th percentile of the time to the first token has doubled, a server is started as users
start it (or the one at `--url` is used, whose memory is not seen). N clients warm it up and leave; then N clients come
for `--seconds`. Frames are those of the clip that `inf-stream demo` shows, questions are asides. The clients time
themselves, from a question's sending to the first word of its answer, in a process beside the server. It must not want
for a core: `lag_s` says by how much it was late with anything, at most. Every event is checked against the schema of
OpenAI's client.

Memory is the server's resident set. It is flat if its peak in the last quarter of the run is at most 2 % above that of
the second quarter, and what is left when all have gone at most 2 % above what it was before they came.

An N that `--out` already has, of the same settings, is not run again: stop it and go on when you like.
"""

import argparse
import asyncio
import base64
import json
import sys
import time
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import report
from load_client import Heard, LoadClient, Plan
from load_figures import Memory, draw, figures, has_doubled, judge_memory, show
from load_server import Server, ServerError, running_server
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from inf_stream.base.config import SourceSettings
from inf_stream.base.events import FrameArrived
from inf_stream.sources import open_source

NAME = "load"
SPARE_CONNECTIONS = 16
EDGE = 448


def load_images() -> list[str]:
    """The clip's frames, one a second, as data URIs."""
    found = []
    with (
        as_file(files("inf_stream.app") / "data" / "places.mp4") as path,
        open_source(str(path), SourceSettings(fps=1.0), lambda width, height: (EDGE, EDGE * height // width)) as clip,
    ):
        for event in clip:
            if isinstance(event, FrameArrived):
                _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(event.frame.pixels, cv2.COLOR_RGB2BGR))
                found.append("data:image/jpeg;base64," + base64.b64encode(jpeg).decode())
    return found


class Load:
    """Runs of clients against a server.

    Args:
        args: of the command line.
        images: what the clients' cameras see.
    """

    def __init__(self, args: argparse.Namespace, images: Sequence[str]):
        self._args, self._images = args, images
        self._console = Console(stderr=True)

    async def measure(self, clients: int) -> dict[str, Any]:
        """One run with so many clients.

        Raises:
            ServerError: there is no server, or no longer.
        """
        args = self._args
        plan = Plan(args.seconds, args.every, args.fps, args.answer_tokens)
        warm_up = Plan(args.warm_up, min(args.every, args.warm_up / 2), args.fps, args.answer_tokens)
        if args.url is not None:
            await self._crowd(None, args.url, clients, warm_up, "warming up")
            heard, _ = await self._crowd(None, args.url, clients, plan, "measuring")
            return figures(clients, heard, None, None)
        flags = ["--model", args.model, "--budget", args.budget, "--threads", args.threads, "--sessions", clients]
        for setting in (f"server.connections={clients + SPARE_CONNECTIONS}", *args.set):
            flags += ["--set", setting]
        async with running_server([str(flag) for flag in flags]) as server:
            await self._crowd(server, server.url, clients, warm_up, "warming up")
            await server.empty()
            idle_mib = server.memory_mib()
            heard, memory = await self._crowd(server, server.url, clients, plan, "measuring")
            await server.empty()
            judged = judge_memory(idle_mib, memory, server.memory_mib(), plan.seconds)
            return figures(clients, heard, judged, server.log_errors)

    async def _crowd(
        self, server: Server | None, url: str, clients: int, plan: Plan, what: str
    ) -> tuple[Heard, Memory]:
        """All clients at once: what they heard together, and the server's memory meanwhile."""
        memory: Memory = []
        sampling = asyncio.create_task(self._sample(server, memory, plan.seconds, f"{clients} clients, {what}"))
        rngs = [np.random.default_rng([self._args.seed, number]) for number in range(clients)]
        everyone = [LoadClient(self._images, plan, rng) for rng in rngs]
        running = asyncio.gather(*(client.run(url, self._args.key) for client in everyone))
        try:
            await asyncio.wait({sampling, running}, return_when=asyncio.FIRST_COMPLETED)
            if sampling.done():
                sampling.result()
            return Heard.of_all(await running), memory
        finally:
            for task in (sampling, running):
                task.cancel()
            await asyncio.gather(sampling, running, return_exceptions=True)

    async def _sample(self, server: Server | None, memory: Memory, seconds: float, what: str) -> None:
        """Once a second, until cancelled: the server's memory, and how far the run is."""
        began_s = time.perf_counter()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        is_shown = self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=not is_shown) as progress:
            task = progress.add_task(what, total=seconds)
            while True:
                at_s = time.perf_counter() - began_s
                progress.update(task, completed=min(at_s, seconds))
                if server is not None:
                    memory.append((at_s, server.memory_mib()))
                await asyncio.sleep(1.0)


def setup(args: argparse.Namespace) -> dict[str, Any]:
    """What must be the same for two runs to be comparable."""
    names = ("model", "budget", "threads", "seconds", "warm_up", "every", "fps", "answer_tokens", "seed", "set")
    return {name: getattr(args, name) for name in names} | {"own_server": args.url is None}


def earlier(out: Path | None, wanted: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Runs of the same settings that the file has, by their clients."""
    lines = out.read_text().splitlines() if out is not None and out.exists() else []
    found = [line for line in map(json.loads, lines) if line["bench"] == NAME and line["setup"] == wanted]
    return {line["clients"]: line for line in found}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--budget", type=int, default=2048, help="tokens of each session's cache")
    parser.add_argument("--threads", type=int, default=1, help="of the server's model")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE, as of `inf-stream serve`")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each run")
    parser.add_argument("--warm-up", type=float, default=120.0, help="seconds before each run")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two questions of a client")
    parser.add_argument("--fps", type=float, default=1.0, help="frames a second of a client")
    parser.add_argument("--answer-tokens", type=int, default=32)
    parser.add_argument("--clients", type=int, nargs="+", help="just these numbers of clients")
    parser.add_argument("--most", type=int, default=64, help="no more clients than these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="a server that runs already, http://HOST:PORT")
    parser.add_argument("--key", default="none needed", help="to it")
    parser.add_argument("--plot", type=Path, help="write a picture here")
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file")
    args = parser.parse_args(argv)
    load = Load(args, load_images())
    done, results = earlier(args.out, setup(args)), list[dict[str, Any]]()
    for clients in args.clients or [2**n for n in range(args.most.bit_length())]:
        if clients in done:
            results.append(done[clients])
        else:
            results.append(asyncio.run(load.measure(clients)))
            report(NAME, {"setup": setup(args), **results[-1]}, args.out)
        if args.clients is None and has_doubled(results):
            break
    show(results)
    if args.plot:
        draw(results, f"{args.model}, {args.fps:g} frames a second, a question every {args.every:g} s", args.plot)


if __name__ == "__main__":
    try:
        main()
    except ServerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
