"""The checks that are not about behaviour: format, lint, types, layers, documents. `pytest` alone runs them all."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
INSTALL = 'pip install -c configs/constraints.txt -e ".[test]"'
TEST = "pytest"
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*")
    if path.suffix in {".md", ".toml", ".txt", ".html", ".css", ".js"}
    and not any(part.startswith(".") or part in {"build", "dist", "venv"} for part in path.relative_to(ROOT).parts)
    and not any(part.endswith(".egg-info") for part in path.parts)
)
MODULES = sorted([*ROOT.glob("inf_stream/**/*.py"), *ROOT.glob("edge/**/*.py")])


def run(*command: str) -> None:
    """Run a tool of this environment in the project's root; its output is the failure's message."""
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_format() -> None:
    run("-m", "ruff", "format", "--check", ".")


def test_lint() -> None:
    run("-m", "ruff", "check", ".")


def test_types() -> None:
    run("-m", "mypy")


def test_layers() -> None:
    run("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_says_what_it_is_for(path: Path) -> None:
    assert (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").strip()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_names_no_folder_of_one_machine(path: Path) -> None:
    found = re.findall(r"(?<![\w.:/~])/(?:home|root|work|Users|mnt|opt)/\S*", path.read_text(encoding="utf-8"))
    assert not found


def test_ci_runs_what_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{INSTALL} && {TEST}" in readme or f"{INSTALL}\n{TEST}\n" in readme
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert script[-2:] == [INSTALL, TEST]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_constraints_pin_what_is_declared_and_nothing_local() -> None:
    lines = (ROOT / "configs" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) and not pin.url for pin in pins)
    assert not {"pip", "setuptools"} & {canonicalize_name(pin.name) for pin in pins}
    here = {canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate()}
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *extras["demo"], *extras["test"]]:
        wanted = Requirement(text)
        if wanted.name == "inf-stream" or (wanted.marker is not None and not wanted.marker.evaluate()):
            continue
        version = str(here[canonicalize_name(wanted.name)].specifier).removeprefix("==")
        assert wanted.specifier.contains(version), wanted
    assert str(here["torch"].specifier) == "==2.13.0"


def test_licence_is_the_declared_one() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in ROOT.glob("tests/**/test_*.py")]
    assert len(names) == len(set(names))
