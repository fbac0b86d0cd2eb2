"""What a run shows and leaves behind."""

from dataclasses import dataclass
from pathlib import Path

from inf_stream.app.outputs import require_memory_map
from inf_stream.app.progress import StreamProgress
from inf_stream.app.reports import JsonReport, Report, Screen
from inf_stream.app.text_report import TextReport


@dataclass(frozen=True)
class Output:
    """What a run shows and leaves behind.

    Attributes:
        json: JSON lines instead of text.
        stats: numbers after each answer.
        memory_map: picture of the cache at the end, or None.
    """

    json: bool = False
    stats: bool = False
    memory_map: Path | None = None

    def check(self) -> None:
        """Refuse a picture that could not be drawn at the end.

        Raises:
            ConfigError: see `require_memory_map`.
        """
        if self.memory_map is not None:
            require_memory_map(self.memory_map)

    def report(
        self, screen: Screen, progress: StreamProgress | None = None, *, questions: bool = False, times: bool = True
    ) -> Report:
        """The report that was asked for; see `TextReport` for `progress`, `questions` and `times`."""
        if self.json:
            return JsonReport(screen)
        return TextReport(screen, progress, stats=self.stats, questions=questions, times=times)
