"""The console that everything but answers is printed on."""

from typing import NoReturn

from rich.console import Console


class PipedConsole(Console):
    """A console that leaves it to the command what happens when nobody reads any more; rich's own exits with 1."""

    def on_broken_pipe(self) -> NoReturn:
        """Say so.

        Raises:
            BrokenPipeError: always.
        """
        raise BrokenPipeError
