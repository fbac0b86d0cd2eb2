"""From words to a command and its arguments."""

import argparse
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from itertools import groupby
from typing import NoReturn

from inf_stream.base.config import nearest
from inf_stream.base.errors import ConfigError
from inf_stream.cli.command import Command


class Parser:
    """The words of a command line, read as one of `commands`."""

    def __init__(self, commands: Sequence[Command]):
        self._program = _Parser(
            prog="inf-stream", description="Ask an endless stream of video or text, in a cache whose size never grows."
        )
        self._program.add_argument("--version", action="version", version=f"inf-stream {version('inf-stream')}")
        listed = self._program.add_subparsers(title="commands", metavar="COMMAND")
        self._parsers: dict[str, argparse.ArgumentParser] = {}
        for command in commands:
            parser = listed.add_parser(
                command.name,
                help=command.summary,
                description=f"{command.summary[0].upper()}{command.summary[1:]}.",
                epilog=command.epilog,
                usage=f"%(prog)s {command.usage}",
                formatter_class=_Help,
                allow_abbrev=False,
            )
            command.add_flags(parser)
            parser.set_defaults(command=command)
            self._parsers[command.name] = parser

    def parse(self, words: Sequence[str]) -> tuple[Command, argparse.Namespace]:
        """The command that was named, and its arguments.

        Raises:
            ConfigError: a word is not understood.
            SystemExit: help or version was asked for, and printed.
        """
        if words[:1] == ["help"]:
            words = [*words[1:], "--help"]
        if words and not words[0].startswith("-") and words[0] not in self._parsers:
            raise ConfigError(f"unknown command '{words[0]}'{nearest(words[0], list(self._parsers))}")
        arguments, rest = self._program.parse_known_args(words)
        if "command" not in arguments:
            if rest:
                raise ConfigError(_unexpected(rest, self._program))
            self._program.print_help()
            raise SystemExit(0)
        if len(rest) == 1 and not rest[0].startswith("-") and getattr(arguments, "question", "") is None:
            arguments.question = rest.pop()  # argparse gives up on an optional word once flags came between
        if rest:
            raise ConfigError(_unexpected(rest, self._parsers[words[0]]))
        command: Command = arguments.command
        return command, arguments


class _Help(argparse.HelpFormatter):
    """Prose is wrapped to the terminal, between words; indented lines, which are examples, stay as they are."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        blocks = [(kept, list(block)) for kept, block in groupby(lines, lambda line: not line or line[0] == " ")]
        return "\n".join("\n".join(b if kept else self._split_lines(" ".join(b), width)) for kept, b in blocks)


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def _unexpected(rest: Sequence[str], parser: argparse.ArgumentParser) -> str:
    known = [o for action in parser._actions for o in action.option_strings]
    flag = next((word for word in rest if word.startswith("-")), None)
    if flag is None:
        hint = "a video is named by --video" if "--video" in known else "quote texts that have spaces"
        return f"unexpected argument '{rest[0]}'; {hint}, see {parser.prog} --help"
    hint = nearest(flag.partition("=")[0], known)
    return f"unknown flag '{flag}'{hint if 'did you mean' in hint else f'; see {parser.prog} --help'}"
