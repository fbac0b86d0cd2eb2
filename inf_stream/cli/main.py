"""The program: runs one command, tells what is refused in one line, and leaves the standard streams in order."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from inf_stream.base.allocator import keep_few_kernels, keep_one_arena
from inf_stream.base.errors import InfStreamError
from inf_stream.cli import ask, chat, demo, doctor, models, serve
from inf_stream.cli.parsing import Parser

COMMANDS = (ask.COMMAND, chat.COMMAND, serve.COMMAND, demo.COMMAND, models.COMMAND, doctor.COMMAND)

UNWRITTEN, REFUSED, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141
"""Exit statuses besides those of the commands."""
_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Why output cannot be written; files that a run writes have errors of their own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0 for success, 1 if standard output cannot be written (a full disk), 2 for refused input (one line on standard error
    in either case), 130 after Ctrl-C, and 141, as a shell reports it of any tool, when whoever read the output has left
    (`| head -1`).
    """
    _prepare_standard_streams()
    keep_one_arena()
    keep_few_kernels()
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    except BrokenPipeError:
        _silence_broken_streams()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in _OF_A_DISK:
            raise
        print_error(f"standard output cannot be written: {error.strerror}")
        _silence_broken_streams()
        return UNWRITTEN


def _run(argv: list[str]) -> int:
    try:
        try:
            command, arguments = Parser(COMMANDS).parse(argv)
            return command.run(arguments)
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
    except OSError:
        return True
    return False
