"""`inf-stream models`: its flags."""

import argparse
import json
import sys

from inf_stream.cli.command import Command


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policies", action="store_true", help="list cache policies and their options instead")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _run(arguments: argparse.Namespace) -> int:
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


COMMAND = Command(
    "models",
    "what is built in, which model families run, which cache policies there are",
    "[--policies] [--json]",
    _add_flags,
    _run,
)
