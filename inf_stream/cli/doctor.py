"""`inf-stream doctor`: its flags."""

import argparse
import sys

from inf_stream.cli.command import Command


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _run(arguments: argparse.Namespace) -> int:
    from inf_stream.app.piped_console import PipedConsole
    from inf_stream.app.progress import starting

    with starting():
        from inf_stream.app import doctor

        report = doctor.checks(doctor.gather())
    if arguments.json:
        sys.stdout.write(doctor.as_json(report) + "\n")
    else:
        PipedConsole().print(doctor.as_table(report))
    return doctor.exit_status(report)


COMMAND = Command(
    "doctor",
    "what this machine has, what is missing, and what to do about it",
    "[--json]",
    _add_flags,
    _run,
)
