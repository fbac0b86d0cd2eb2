"""Branch coverage of the rooms that must have nearly all of it, judged at the end of a run of the whole suite.

Only these rooms are traced, and only by their own tests: tracing makes every call of Python dearer, so that the tests
of models would take half as long again. A run of some tests, one spread over processes, and one under a debugger or
another coverage tool are neither traced nor judged.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("base", "session", "cache")
LEAST_PERCENT = 99.0
"""Of lines and branches together, in each room."""


class BranchCoverage:
    """A plugin of pytest that must `start` before any traced room is imported.

    Args:
        folders: rooms to trace, each judged by itself.
        tests: how the ids of the tests begin that are traced.
        least_percent: what each must reach, or the run fails.
    """

    def __init__(self, folders: Sequence[Path], tests: tuple[str, ...], least_percent: float = LEAST_PERCENT):
        self._folders, self._tests, self._least_percent = folders, tests, least_percent
        self._tool = coverage.Coverage(
            data_file=None,
            branch=True,
            source=[str(folder) for folder in folders],
            config_file=str(ROOT / "pyproject.toml"),
        )
        self._traces = self._pauses = self._is_part = False
        self._lines: list[str] = []

    def start(self) -> None:
        """Trace from here on, unless somebody else does."""
        self._traces = sys.gettrace() is None
        if self._traces:
            self._tool.start()

    def stop(self) -> None:
        """Trace no more."""
        self._pause(True)
        self._traces = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """Called when the plugin is registered: only the whole suite, in one process, is judged."""
        from_testpaths = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        asks_for_less = any(config.getoption(name, None) for name in ("numprocesses", "collectonly", "lf"))
        if not from_testpaths or asks_for_less or hasattr(config, "workerinput"):
            self.stop()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self._pause(not nodeid.startswith(self._tests))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Some tests were left out (`-k`, `-m`, ...)."""
        self._is_part = self._is_part or bool(items)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge a whole suite that passed."""
        was_traced = self._traces
        self.stop()
        if was_traced and not self._is_part and session.exitstatus == pytest.ExitCode.OK and not self._judge():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """What the rooms reached, and where they did not."""
        for line in self._lines:
            terminalreporter.write_line(line)

    def _pause(self, pauses: bool) -> None:
        if self._traces and pauses != self._pauses:
            self._pauses = pauses
            (self._tool.stop if pauses else self._tool.start)()

    def _judge(self) -> bool:
        reached: dict[str, float] = {}
        for folder in self._folders:
            missing = io.StringIO()
            include = [f"{folder}/*"]
            reached[folder.name] = self._tool.report(
                include=include, file=missing, show_missing=True, skip_covered=True
            )
            if reached[folder.name] < self._least_percent:
                self._lines.append(missing.getvalue())
        shown = ", ".join(f"{room} {percent:.1f} %" for room, percent in reached.items())
        passed = min(reached.values()) >= self._least_percent
        verdict = "" if passed else "FAILED: "
        self._lines.append(f"{verdict}lines and branches covered: {shown} (at least {self._least_percent:g} % each)")
        return passed


def of_rooms() -> BranchCoverage:
    """Coverage of the rooms of inf_stream that must have nearly all of it."""
    return BranchCoverage([ROOT / "inf_stream" / room for room in ROOMS], tuple(f"tests/{room}/" for room in ROOMS))
