"""What every command of the program is made of."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: as it is typed.
        summary: one line, beginning in lower case.
        usage: what follows its name, in short.
        add_flags: adds its arguments to a parser.
        run: runs it with what was parsed; returns the exit status.
        epilog: what follows its flags in the help; indented lines keep their ends.
    """

    name: str
    summary: str
    usage: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    epilog: str = ""
