"""`inf-stream chat`: its flags."""

import argparse

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
  inf-stream chat
  inf-stream chat --video camera:0
  cat book.txt | inf-stream chat --then "Who is the narrator?" --then "Where are we now?"

On a terminal every line is a question; /quit, /cancel, /stats and /map FILE.png are orders, and Ctrl-C cancels a
running answer. Text piped in is read as the stream, and the questions given with --then are asked at its end.
"""


def _add_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("conversation")
    group.add_argument("--video", metavar="ADDRESS", help="a video that runs beside the conversation")
    group.add_argument(
        "--then", metavar="QUESTION", action="append", default=[], help="ask this after the piped text; repeatable"
    )
    add_stream_flags(parser)
    add_output_flags(parser)
    add_engine_flags(parser)
    add_session_flags(parser)
    add_configuration_flags(parser)


def _run(arguments: argparse.Namespace) -> int:
    refuse_early(arguments)
    from inf_stream.app.chat import ChatRequest, chat
    from inf_stream.app.keeping import saved_settings
    from inf_stream.app.showing import Output

    base = None if arguments.resume is None else saved_settings(arguments.resume)
    settings = merge(arguments.config, overrides(arguments, ENGINE_FLAGS | SOURCE_FLAGS), base)
    return chat(
        ChatRequest(
            video=arguments.video,
            then=arguments.then,
            settings=settings,
            output=Output(arguments.json, arguments.stats, arguments.memory_map),
            duration=arguments.duration,
            loop=arguments.loop,
            record=arguments.record,
            keeping=keeping(arguments),
        )
    )


COMMAND = Command(
    "chat",
    "an endless conversation, with a video or piped text running beside it",
    "[flags]",
    _add_flags,
    _run,
    _EXAMPLES,
)
