"""Progress on a terminal: weights arriving, the stream going by. Off a terminal all of it is silent."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TransferSpeedColumn

from inf_stream.app.piped_console import PipedConsole
from inf_stream.models.weights.fetch import Progress as BytesProgress


@contextmanager
def starting() -> Iterator[None]:
    """Show on standard error that the program is about to start, while the large libraries are imported."""
    with _spinner(PipedConsole(stderr=True)) as spinner:
        spinner.add_task("starting", total=None)
        yield


@contextmanager
def loading(console: Console, name: str) -> Iterator[BytesProgress]:
    """Show that the model `name` is being loaded; what is yielded shows bytes when they are downloaded."""
    with _spinner(console) as spinner:
        spinner.add_task(f"loading {name}", total=None)
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            console=console, transient=True, disable=not _shown(console),
        )  # fmt: skip
        tasks: list[TaskID] = []

        def arrived(done_bytes: int, total_bytes: int) -> None:
            if not tasks:
                spinner.stop()
                tasks.append(bar.add_task(f"downloading {name}", total=total_bytes))
                bar.start()
            bar.update(tasks[0], completed=done_bytes)

        try:
            yield arrived
        finally:
            bar.stop()


class StreamProgress:
    """One line that says how far the stream has been taken in; steps aside while an answer is printed."""

    def __init__(self, console: Console, description: str, total: float | None):
        self._shown = _shown(console)
        self._columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[where]}"),
        )
        self._console = console
        self._description, self.total = description, total
        self._completed, self._where = 0.0, ""
        self._live: tuple[Progress, TaskID] | None = None

    def advance(self, completed: float, where: str) -> None:
        """The stream has come to `completed` (of the total); `where` says so for people."""
        self._completed, self._where = completed, where
        if self._live is None:
            self.show()
        else:
            progress, task = self._live
            progress.update(task, completed=completed, where=where)

    def show(self) -> None:
        """Draw the line."""
        if self._live is None and self._shown:
            progress = Progress(*self._columns, console=self._console, transient=True)
            task = progress.add_task(
                self._description, total=self.total, completed=int(self._completed), where=self._where
            )
            progress.start()
            self._live = progress, task

    def hide(self) -> None:
        """Take the line off the terminal; `advance` or `show` brings it back."""
        if self._live is not None:
            self._live[0].stop()
            self._live = None


def _spinner(console: Console) -> Progress:
    columns = SpinnerColumn(), TextColumn("{task.description}")
    return Progress(*columns, console=console, transient=True, disable=not _shown(console))


def _shown(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal
