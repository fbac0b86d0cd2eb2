"""`inf-stream demo`: its flags."""

import argparse
from pathlib import Path

from inf_stream.cli.command import Command
from inf_stream.cli.settings import MODEL_FLAGS, Override, add_setting_flags, merge, overrides

FLAGS = {f: MODEL_FLAGS[f] for f in ("--model", "--policy", "--budget", "--device", "--dtype", "--threads")}
DEFAULTS = (
    Override("the demo", "cache.budget_tokens", 768),
    Override("the demo", "archive.host_mib", 64),
    Override("the demo", "answer.max_tokens", 40),
    Override("the demo", "answer.repetition_penalty", 1.1),
)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory-map", metavar="FILE", type=Path, default=Path("memory-map.png"), help="[default: memory-map.png]"
    )
    add_setting_flags(parser, FLAGS, DEFAULTS)


def _run(arguments: argparse.Namespace) -> int:
    settings = merge(None, [*DEFAULTS, *overrides(arguments, FLAGS)])
    from inf_stream.app.demo import demo

    return demo(settings, arguments.memory_map)


COMMAND = Command(
    "demo",
    "see it work: a minute of video through a small cache, with questions about now and before",
    _add_flags,
    _run,
)
