"""`inf-stream demo`: its flags."""

import argparse
from pathlib import Path

from inf_stream.app.outputs import require_memory_map
from inf_stream.cli.command import Command
from inf_stream.cli.settings import MEMORY_FLAGS, MODEL_FLAGS, Override, add_setting_flags, merge, overrides

_MODEL_FLAGS = {flag: MODEL_FLAGS[flag] for flag in ("--model", "--device", "--dtype", "--threads")}
_MEMORY_FLAGS = {flag: MEMORY_FLAGS[flag] for flag in ("--budget", "--policy")}
_DEFAULTS = (
    Override("the demo", "cache.budget_tokens", 768),
    Override("the demo", "archive.host_mib", 64),
    Override("the demo", "answer.max_tokens", 40),
    Override("the demo", "answer.repetition_penalty", 1.1),
)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument_group("output").add_argument(
        "--memory-map",
        metavar="FILE",
        type=Path,
        default=Path("memory-map.png"),
        help="where to draw what is still in the cache at the end, a PNG picture in the place of any older one "
        "[default: memory-map.png, in this folder]",
    )
    add_setting_flags(parser.add_argument_group("model"), _MODEL_FLAGS, _DEFAULTS)
    add_setting_flags(parser.add_argument_group("memory"), _MEMORY_FLAGS, _DEFAULTS)


def _run(arguments: argparse.Namespace) -> int:
    settings = merge(None, [*_DEFAULTS, *overrides(arguments, _MODEL_FLAGS | _MEMORY_FLAGS)])
    require_memory_map(arguments.memory_map)
    from inf_stream.app.model_names import check_model, with_model
    from inf_stream.app.progress import starting

    check_model(with_model(settings, sees=True).model.name, sees=False)
    with starting():
        from inf_stream.app.demo import demo

    return demo(settings, arguments.memory_map)


COMMAND = Command(
    "demo",
    "see it work: a minute of video through a small cache, with questions about now and before",
    "[flags]",
    _add_flags,
    _run,
)
