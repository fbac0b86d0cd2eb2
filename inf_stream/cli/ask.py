"""`inf-stream ask`: its flags."""

import argparse
import os
from pathlib import Path

from inf_stream.app.questions import plan_questions
from inf_stream.base.config import Settings
from inf_stream.base.errors import ConfigError
from inf_stream.cli.command import Command
from inf_stream.cli.settings import (
    ENGINE_FLAGS,
    SOURCE_FLAGS,
    add_configuration_flags,
    add_engine_flags,
    merge,
    overrides,
)
from inf_stream.cli.shared import add_output_flags, add_session_flags, add_stream_flags, keeping, refuse_early

_EXAMPLES = """\
examples:
  inf-stream ask party.mp4 "What is happening?"
  inf-stream ask lecture.mp4 "What is on the board?" --at 12:30 --at 45:00
  inf-stream ask rtsp://camera.local/door --questions questions.jsonl --duration 1:00:00 --json
  inf-stream ask photos/ "Is there a dog?" --memory-map map.png --stats
  inf-stream ask party.mp4 "What is happening?" --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct

With --save the session outlives the program: tomorrow `inf-stream ask --resume FILE QUESTION` asks it about what it
has seen, and `inf-stream ask --resume FILE VIDEO QUESTION` goes on with the stream.

The question is asked once at every --at, or at the end if there is none; with the last answer the run ends, or goes
on to --duration. A questions file has one JSON object a line: {"at_s": 750, "text": "What happened?"}. A recording
made with --record is a VIDEO too: it brings its questions along and gives the same answers. The built-in model is a
very small one, for trying things out; name a larger one with --model as in the last example, or in a --config FILE.
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is asked")
    group.add_argument(
        "video",
        metavar="VIDEO",
        nargs="?",
        help="a file, a folder of images, camera:0, /dev/video0, rtsp://..., http(s)://..., or a recording; may be "
        "left out with --resume",
    )
    group.add_argument("question", metavar="QUESTION", nargs="?", help="what you want to know")
    group.add_argument(
        "--at", metavar="TIME", action="append", default=[], help="ask at this stream time (12:30 or 750); repeatable"
    )
    group.add_argument("--questions", metavar="FILE", type=Path, help="JSON lines with at_s and text")
    group.add_argument("--aside", action="store_true", help="neither questions nor answers leave a trace in the memory")
    add_stream_flags(parser)
    add_output_flags(parser)
    add_engine_flags(parser)
    add_session_flags(parser)
    add_configuration_flags(parser)


def _run(arguments: argparse.Namespace) -> int:
    refuse_early(arguments)
    _place_words(arguments)
    planned = plan_questions(arguments.question, arguments.at, arguments.questions, aside=arguments.aside)
    settings = merge(arguments.config, overrides(arguments, ENGINE_FLAGS | SOURCE_FLAGS), _recorded(arguments))
    from inf_stream.app.ask import AskRequest, ask
    from inf_stream.app.showing import Output

    return ask(
        AskRequest(
            video=arguments.video,
            planned=planned,
            question=arguments.question,
            at=arguments.at,
            questions=arguments.questions,
            settings=settings,
            output=Output(arguments.json, arguments.stats, arguments.memory_map),
            duration=arguments.duration,
            loop=arguments.loop,
            record=arguments.record,
            keeping=keeping(arguments),
        )
    )


def _recorded(arguments: argparse.Namespace) -> Settings | None:
    """The settings of the session or recording that is gone on with; None for a fresh one."""
    from inf_stream.app.keeping import saved_settings
    from inf_stream.app.recordings import is_recording, recorded_settings

    if arguments.resume is not None:
        return saved_settings(arguments.resume)
    if not is_recording(arguments.video):
        return None
    if arguments.aside:
        raise ConfigError(f"'{arguments.video}' is a recording, which says what was asked and how; leave --aside out")
    return recorded_settings(Path(arguments.video))


def _place_words(arguments: argparse.Namespace) -> None:
    """A resumed session needs no VIDEO: one word alone is then the QUESTION, unless it is the address of something."""
    if arguments.resume is None:
        if arguments.video is None:
            raise ConfigError("no VIDEO is named; see inf-stream ask --help")
        return
    is_alone = arguments.question is None and arguments.questions is None
    if arguments.video is not None and is_alone and not _is_address(arguments.video):
        arguments.video, arguments.question = None, arguments.video


def _is_address(word: str) -> bool:
    return "://" in word or word.startswith("camera:") or os.path.lexists(word)


COMMAND = Command(
    "ask",
    "ask questions about a video, a folder of images, a camera or an address",
    "VIDEO QUESTION [flags]",
    _add_flags,
    _run,
    _EXAMPLES,
)
