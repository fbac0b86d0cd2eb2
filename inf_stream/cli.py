"""The command line: parsing only. What a command does is in `inf_stream.app`, imported once it is known."""

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO, TypeAlias

from inf_stream.app.flags import (
    MODEL_FLAGS,
    SERVE_FLAGS,
    SOURCE_FLAGS,
    Override,
    add_configuration_flags,
    add_setting_flags,
    merge,
    overrides,
)
from inf_stream.app.outputs import require_memory_map
from inf_stream.app.questions import parse_duration, plan_questions
from inf_stream.base.allocator import keep_one_arena
from inf_stream.base.config import nearest
from inf_stream.base.errors import ConfigError, InfStreamError

if TYPE_CHECKING:
    from inf_stream.app.saving import Keeping

Command: TypeAlias = Callable[[argparse.Namespace], int]

DEMO_FLAGS = {f: MODEL_FLAGS[f] for f in ("--model", "--policy", "--budget", "--device", "--dtype", "--threads")}
DEMO_DEFAULTS = (
    Override("the demo", "cache.budget_tokens", 768),
    Override("the demo", "archive.host_mib", 64),
    Override("the demo", "answer.max_tokens", 40),
    Override("the demo", "answer.repetition_penalty", 1.1),
)

REFUSED, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
"""Exit statuses besides those of the commands."""

_ASK_EXAMPLES = """\
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
_SERVE_EXAMPLES = """\
examples:
  inf-stream serve
  inf-stream serve --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct --sessions 8
  inf-stream serve --host 0.0.0.0 --keys-file keys.txt --self-signed

A page for people is at http://127.0.0.1:8765/. Clients of OpenAI's Realtime interface connect to
ws://127.0.0.1:8765/v1/realtime as they are; /v1/chat/completions, /v1/models, /v1/stream (binary frames), /v1/sessions,
/metrics and /health are beside it. Every session has a memory of its own, on one model. Ctrl-C and SIGTERM let answers
end; a second one stops at once. API keys come from --keys-file and from the environment variable INF_STREAM_API_KEYS;
beyond this machine the server asks for one.
"""
_CHAT_EXAMPLES = """\
examples:
  inf-stream chat
  inf-stream chat --video camera:0
  cat book.txt | inf-stream chat --then "Who is the narrator?" --then "Where are we now?"

On a terminal every line is a question; /quit, /cancel, /stats and /map FILE.png are orders, and Ctrl-C cancels a
running answer. Text piped in is read as the stream, and the questions given with --then are asked at its end.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 for success, 2 for refused input (one line on standard error), 130 after Ctrl-C, and 141, as a shell reports it
    of any tool, when whoever read the output has left (`| head -1`).
    """
    _prepare_standard_streams()
    keep_one_arena()
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except BrokenPipeError:
        _silence_broken_streams()
        return BROKEN_PIPE


def _run(argv: list[str]) -> int:
    try:
        try:
            arguments = _parse(argv)
            command: Command = arguments.command
            return command(arguments)
        finally:
            sys.stdout.flush()
    except InfStreamError as error:
        print_error(str(error))
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED


def print_error(message: str) -> None:
    """One line on standard error, whatever the message holds."""
    sys.stderr.write(f"inf-stream: {' '.join(message.split())}\n")


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser, commands = _make_parser()
    if argv and not argv[0].startswith("-") and argv[0] not in commands:
        raise ConfigError(f"unknown command '{argv[0]}'{nearest(argv[0], list(commands))}")
    arguments, rest = parser.parse_known_args(argv)
    if "command" not in arguments:
        parser.print_help()
        raise SystemExit(0)
    if len(rest) == 1 and not rest[0].startswith("-") and getattr(arguments, "question", "") is None:
        arguments.question = rest.pop()  # argparse gives up on an optional word once flags came between
    if rest:
        raise ConfigError(_unexpected(rest, commands[argv[0]]))
    return arguments


def _unexpected(rest: list[str], parser: argparse.ArgumentParser) -> str:
    flag = next((word for word in rest if word.startswith("-")), None)
    if flag is None:
        return f"unexpected argument '{rest[0]}'; quote texts that have spaces, see {parser.prog} --help"
    known = [o for action in parser._actions for o in action.option_strings]
    hint = nearest(flag.partition("=")[0], known)
    return f"unknown flag '{flag}'{hint if 'did you mean' in hint else f'; see {parser.prog} --help'}"


def _make_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(
        prog="inf-stream", description="Ask an endless stream of video or text, in a cache whose size never grows."
    )
    parser.add_argument("--version", action="version", version=f"inf-stream {version('inf-stream')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    made: dict[str, argparse.ArgumentParser] = {}
    for name, summary, fill in (
        ("ask", "ask questions about a video, a folder of images, a camera or an address", _add_ask),
        ("chat", "an endless conversation, with a video or piped text running beside it", _add_chat),
        ("serve", "a server that many clients stream video to and ask, on one model", _add_serve),
        (
            "demo",
            "see it work: a minute of video through a small cache, with questions about now and before",
            _add_demo,
        ),
        ("models", "what is built in, which model families run, which cache policies there are", _add_models),
        ("doctor", "what this machine has, what is missing, and what to do about it", _add_doctor),
    ):
        made[name] = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        fill(made[name])
    return parser, made


# ---- the commands' flags ---------------------------------------------------------------------------


def _add_ask(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_ask)
    parser.epilog = _ASK_EXAMPLES
    parser.add_argument(
        "video",
        metavar="VIDEO",
        nargs="?",
        help="a file, a folder of images, camera:0, /dev/video0, rtsp://..., http(s)://..., or a recording; may be "
        "left out with --resume",
    )
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="what you want to know")
    parser.add_argument(
        "--at", metavar="TIME", action="append", default=[], help="ask at this stream time (12:30 or 750); repeatable"
    )
    parser.add_argument("--questions", metavar="FILE", type=Path, help="JSON lines with at_s and text")
    parser.add_argument(
        "--aside", action="store_true", help="neither questions nor answers leave a trace in the memory"
    )
    _add_stream_flags(parser)
    _add_session_flags(parser)
    _add_output_flags(parser)
    add_setting_flags(parser, MODEL_FLAGS | SOURCE_FLAGS)
    add_configuration_flags(parser)


def _add_chat(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_chat)
    parser.epilog = _CHAT_EXAMPLES
    parser.add_argument("--video", metavar="ADDRESS", help="a video that runs beside the conversation")
    parser.add_argument(
        "--then", metavar="QUESTION", action="append", default=[], help="ask this after the piped text; repeatable"
    )
    _add_stream_flags(parser)
    _add_session_flags(parser)
    _add_output_flags(parser)
    add_setting_flags(parser, MODEL_FLAGS | SOURCE_FLAGS)
    add_configuration_flags(parser)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_serve)
    parser.epilog = _SERVE_EXAMPLES
    add_setting_flags(parser, SERVE_FLAGS | MODEL_FLAGS)
    add_configuration_flags(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_demo)
    parser.add_argument(
        "--memory-map", metavar="FILE", type=Path, default=Path("memory-map.png"), help="[default: memory-map.png]"
    )
    add_setting_flags(parser, DEMO_FLAGS, DEMO_DEFAULTS)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_models)
    parser.add_argument("--policies", action="store_true", help="list cache policies and their options instead")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_doctor)
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _add_stream_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("stream")
    group.add_argument("--duration", metavar="TIME", help="stop after this much of the stream")
    group.add_argument(
        "--loop", action="store_true", help="play the video again and again, until --duration (a file or folder)"
    )
    group.add_argument("--record", metavar="FOLDER", type=Path, help="write what the model is given into a recording")


def _add_session_flags(parser: argparse.ArgumentParser) -> None:
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


def _add_output_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--json", action="store_true", help="answers as JSON lines on standard output, other events on standard error"
    )
    group.add_argument("--stats", action="store_true", help="tokens, memory and speed after each answer")
    group.add_argument(
        "--memory-map", metavar="FILE", type=Path, help="draw what is still in the cache at the end (PNG)"
    )


# ---- the commands ----------------------------------------------------------------------------------


def _ask(arguments: argparse.Namespace) -> int:
    given = overrides(arguments, MODEL_FLAGS | SOURCE_FLAGS)
    settings = merge(arguments.config, given)
    _refuse_early(arguments)
    _place_words(arguments)
    planned = plan_questions(arguments.question, arguments.at, arguments.questions, aside=arguments.aside)
    from inf_stream.app.ask import AskRequest, ask
    from inf_stream.app.recordings import is_recording, recorded_settings
    from inf_stream.app.running import Output
    from inf_stream.app.saving import saved_settings

    if arguments.resume is not None:
        settings = merge(arguments.config, given, saved_settings(arguments.resume))
    elif is_recording(arguments.video):
        settings = merge(arguments.config, given, recorded_settings(Path(arguments.video)))
        if arguments.aside:
            raise ConfigError(
                f"'{arguments.video}' is a recording, which says what was asked and how; leave --aside out"
            )

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
            keeping=_keeping(arguments),
        )
    )


def _place_words(arguments: argparse.Namespace) -> None:
    """A resumed session needs no VIDEO: one word alone is then the QUESTION, unless something lies there."""
    if arguments.video is None:
        if arguments.resume is None:
            raise ConfigError("no VIDEO is named; see inf-stream ask --help")
    elif arguments.resume is not None and arguments.question is None and arguments.questions is None:
        arguments.video, arguments.question = None, arguments.video


def _keeping(arguments: argparse.Namespace) -> "Keeping":
    from inf_stream.app.saving import Keeping

    every_ns = parse_duration(arguments.save_every, "--save-every")
    more = {} if every_ns is None else {"every_ns": every_ns}
    return Keeping(save=arguments.save, resume=arguments.resume, **more)


def _chat(arguments: argparse.Namespace) -> int:
    given = overrides(arguments, MODEL_FLAGS | SOURCE_FLAGS)
    settings = merge(arguments.config, given)
    _refuse_early(arguments)
    from inf_stream.app.chat import ChatRequest, chat
    from inf_stream.app.running import Output
    from inf_stream.app.saving import saved_settings

    if arguments.resume is not None:
        settings = merge(arguments.config, given, saved_settings(arguments.resume))

    return chat(
        ChatRequest(
            video=arguments.video,
            then=arguments.then,
            settings=settings,
            output=Output(arguments.json, arguments.stats, arguments.memory_map),
            duration=arguments.duration,
            loop=arguments.loop,
            record=arguments.record,
            keeping=_keeping(arguments),
        )
    )


def _refuse_early(arguments: argparse.Namespace) -> None:
    """Refuse what can be judged before the slow imports."""
    parse_duration(arguments.duration)
    if parse_duration(arguments.save_every, "--save-every") is not None and arguments.save is None:
        raise ConfigError("--save-every says how often, but not where; add --save FILE")
    if arguments.resume is not None and arguments.resume == arguments.save and not arguments.resume.exists():
        arguments.resume = None  # the first run of a service that is always started with both
    if arguments.memory_map is not None:
        require_memory_map(arguments.memory_map)


def _demo(arguments: argparse.Namespace) -> int:
    settings = merge(None, [*DEMO_DEFAULTS, *overrides(arguments, DEMO_FLAGS)])
    from inf_stream.app.demo import demo

    return demo(settings, arguments.memory_map)


def _serve(arguments: argparse.Namespace) -> int:
    settings = merge(arguments.config, overrides(arguments, SERVE_FLAGS | MODEL_FLAGS))
    from inf_stream.server.serve import serve

    return serve(settings)


def _models(arguments: argparse.Namespace) -> int:
    from inf_stream.app import models
    from inf_stream.app.piped_console import PipedConsole

    if arguments.json:
        found = models.policies_as_mapping() if arguments.policies else models.models_as_mapping()
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    elif arguments.policies:
        models.show_policies(PipedConsole())
    else:
        models.show_models(PipedConsole())
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from inf_stream.app import doctor
    from inf_stream.app.piped_console import PipedConsole

    report = doctor.checks(doctor.gather())
    if arguments.json:
        sys.stdout.write(doctor.as_json(report) + "\n")
    else:
        PipedConsole().print(doctor.as_table(report))
    return doctor.exit_status(report)


def _prepare_standard_streams() -> None:
    """Closed streams (`>&-`) become empty ones; what standard input and output cannot code is replaced."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (open to the end)
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(io.UnsupportedOperation):  # somebody has read from it already
                stream.reconfigure(errors="replace")


def _silence_broken_streams() -> None:
    """Let the interpreter's own flush at exit go nowhere where nobody reads any more."""
    for stream in (sys.stdout, sys.stderr):
        if _is_broken(stream):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_broken(stream: TextIO) -> bool:
    try:
        stream.flush()
    except BrokenPipeError:
        return True
    return False
