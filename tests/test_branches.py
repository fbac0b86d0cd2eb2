"""The judge of branch coverage: tried on a small project of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent
CONFTEST = """
import sys
from pathlib import Path
sys.path.insert(0, {support!r})
from support.branches import BranchCoverage
judge = BranchCoverage([Path(__file__).parents[1] / "room"], ("tests/",), 90)
judge.start()
import room.side

def pytest_configure(config):
    config.pluginmanager.register(judge)
"""
ROOM = "def side(x):\n    if x > 0:\n        return 'right'\n    return 'left'\n"
RIGHT = "from room.side import side\n\ndef test_right():\n    assert side(1) == 'right'\n"
LEFT = "from room.side import side\n\ndef test_left():\n    assert side(-1) == 'left'\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("room", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\ntestpaths = ["tests"]\npythonpath = ["."]\n')
    (tmp_path / "room" / "__init__.py").touch()
    (tmp_path / "room" / "side.py").write_text(ROOM)
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST.format(support=str(SUPPORT)))
    (tmp_path / "tests" / "test_right.py").write_text(RIGHT)
    return tmp_path


def run(project: Path, *words: str) -> tuple[int, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_whole_suite_that_leaves_a_branch_out_fails_and_says_which(project: Path) -> None:
    status, shown = run(project)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "1 passed" in shown
    assert "FAILED: lines and branches covered: room 66.7 % (at least 90 % each)" in shown
    assert "side.py" in shown


def test_a_whole_suite_that_takes_every_branch_passes_in_one_line(project: Path) -> None:
    (project / "tests" / "test_left.py").write_text(LEFT)
    status, shown = run(project)
    assert status == pytest.ExitCode.OK
    assert "lines and branches covered: room 100.0 % (at least 90 % each)" in shown
    assert "side.py" not in shown


@pytest.mark.parametrize("words", [("tests/test_right.py",), ("-k", "right"), ("--collect-only",), ("-n", "1")])
def test_a_part_is_not_judged(project: Path, words: tuple[str, ...]) -> None:
    (project / "tests" / "test_left.py").write_text("def test_left():\n    pass\n")
    status, shown = run(project, *words)
    assert status == pytest.ExitCode.OK
    assert "covered" not in shown


def test_a_suite_that_fails_anyway_is_not_judged(project: Path) -> None:
    (project / "tests" / "test_wrong.py").write_text("def test_wrong():\n    assert False\n")
    status, shown = run(project)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "covered" not in shown


def test_only_the_tests_of_the_rooms_are_traced(project: Path) -> None:
    (project / "tests" / "test_left.py").write_text(LEFT)
    conftest = project / "tests" / "conftest.py"
    conftest.write_text(conftest.read_text().replace('("tests/",)', '("tests/test_right",)'))
    status, shown = run(project)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "room 66.7 %" in shown
