"""Flags that `ask` and `chat` share, and what can be said of them before anything slow is loaded."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from inf_stream.app.outputs import require_memory_map
from inf_stream.app.questions import parse_duration
from inf_stream.base.errors import ConfigError
from inf_stream.cli.settings import SOURCE_FLAGS, add_setting_flags

if TYPE_CHECKING:
    from inf_stream.app.keeping import Keeping


def add_stream_flags(parser: argparse.ArgumentParser) -> None:
    """Add how much of the stream is taken in, how densely, and whether it is recorded."""
    group = parser.add_argument_group("stream")
    group.add_argument("--duration", metavar="TIME", help="stop after this much of the stream")
    group.add_argument(
        "--loop", action="store_true", help="play the video again and again, until --duration (a file or folder)"
    )
    add_setting_flags(group, SOURCE_FLAGS)
    group.add_argument("--record", metavar="FOLDER", type=Path, help="write what the model is given into a recording")


def add_session_flags(parser: argparse.ArgumentParser) -> None:
    """Add where the session comes from and is kept."""
    group = parser.add_argument_group("session")
    group.add_argument(
        "--save",
        metavar="FILE",
        type=Path,
        help="keep the session in this file, while it runs and at its end; readable by you alone, not encrypted",
    )
    group.add_argument("--save-every", metavar="TIME", help="wall time between two saves [default: 1:00]")
    group.add_argument(
        "--resume",
        metavar="FILE",
        type=Path,
        help="go on with a session that was kept with --save; with the same FILE as --save, also if there is none yet",
    )


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add what is shown and drawn."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--json", action="store_true", help="answers as JSON lines on standard output, other events on standard error"
    )
    group.add_argument("--stats", action="store_true", help="tokens, memory and speed after each answer")
    group.add_argument(
        "--memory-map", metavar="FILE", type=Path, help="draw what is still in the cache at the end (PNG)"
    )


def keeping(arguments: argparse.Namespace) -> "Keeping":
    """What was said about saving and resuming.

    Raises:
        ConfigError: `--save-every` is no time.
    """
    from inf_stream.app.keeping import Keeping

    every_ns = parse_duration(arguments.save_every, "--save-every")
    more = {} if every_ns is None else {"every_ns": every_ns}
    return Keeping(save=arguments.save, resume=arguments.resume, **more)


def refuse_early(arguments: argparse.Namespace) -> None:
    """Refuse what can be judged before the slow imports.

    Raises:
        ConfigError: a time cannot be read, flags do not go together, or a picture could not be written.
    """
    parse_duration(arguments.duration)
    if parse_duration(arguments.save_every, "--save-every") is not None and arguments.save is None:
        raise ConfigError("--save-every says how often, but not where; add --save FILE")
    if arguments.resume is not None and arguments.resume == arguments.save and not arguments.resume.exists():
        arguments.resume = None  # the first run of a service that is always started with both
    if arguments.memory_map is not None:
        require_memory_map(arguments.memory_map)
