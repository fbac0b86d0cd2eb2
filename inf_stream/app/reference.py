"""What is generated from the code: the table of all settings, and the lists of families and policies.

`python -m inf_stream.app.reference` rewrites `configs/README.md` and `lists.json`; with `--check` it only says whether
that is needed.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from inf_stream.base.config import Settings
from inf_stream.cache.policies import POLICIES
from inf_stream.models.families import FAMILIES, Family

PATH = Path(__file__).parents[2] / "configs" / "README.md"
LISTS_PATH = Path(__file__).parent / "data" / "lists.json"

_HEAD = """\
# Settings

One TOML file here holds one model on one device: `inf-stream ask VIDEO "…" --config configs/demo.cpu.toml`.
What a file leaves out keeps its default; a key that does not exist is refused with the nearest one that does.
`constraints.txt` holds the tested versions of all dependencies. [`deploy/`](deploy/README.md) runs the server in a
container or as a service, with logs, metrics and a dashboard.

This page is generated: `python -m inf_stream.app.reference` writes it from the code.
"""
_TABLE_HEAD = "| key | default | limits | what |\n|---|---|---|---|"


def reference() -> str:
    """The whole page as Markdown."""
    return "\n".join([_HEAD, *_sections(), *_policies()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both files, or with `--check` report whether they are up to date; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments) not in ([], ["--check"]):
        print("usage: python -m inf_stream.app.reference [--check]", file=sys.stderr)  # noqa: T201
        return 2
    stale = [(path, text) for path, text in ((PATH, reference()), (LISTS_PATH, lists())) if _read(path) != text]
    for path, text in stale:
        if arguments:
            print(f"{path} is out of date; run python -m inf_stream.app.reference", file=sys.stderr)  # noqa: T201
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and arguments else 0


def lists() -> str:
    """Families and policies as `inf-stream models` shows them, as JSON."""
    families = {
        family.title: {
            "takes": "text" if family.vision is Family.vision else "video and text",
            "model_types": family.model_types,
        }
        for family in FAMILIES
    }
    policies = {
        name: {
            "summary": policy.summary,
            "options": {
                option.name: {"default": option.default, "doc": option.metadata["doc"]}
                for option in dataclasses.fields(policy)
            },
        }
        for name, policy in POLICIES.items()
    }
    return json.dumps({"families": families, "policies": policies}, indent=1, ensure_ascii=False) + "\n"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _sections() -> Iterator[str]:
    hints = get_type_hints(Settings)
    for section in dataclasses.fields(Settings):
        if dataclasses.is_dataclass(hints[section.name]):
            yield f"## `[{section.name}]`\n"
            yield _table(hints[section.name])


def _policies() -> Iterator[str]:
    yield "## `[policy]`\n\nThe options depend on `cache.policy`.\n"
    for name, policy in POLICIES.items():
        yield f"### `{name}`\n\n{_sentence(policy.summary)}\n"
        yield _table(policy)


def _table(settings: type[Any]) -> str:
    rows = [_row(field) for field in dataclasses.fields(settings) if field.init]
    return "\n".join([_TABLE_HEAD, *rows]) + "\n" if rows else "No options.\n"


def _row(field: "dataclasses.Field[Any]") -> str:
    doc = str(field.metadata["doc"]).replace("|", "\\|")
    return f"| `{field.name}` | `{_toml(field.default)}` | {_limits(field.metadata)} | {doc} |"


def _limits(metadata: Any) -> str:
    if metadata["choices"]:
        return ", ".join(f"`{choice}`" for choice in metadata["choices"])
    low, high = metadata["low"], metadata["high"]
    if low is None and high is None:
        return ""
    if high is None:
        return f"from {_number(low)}"
    return f"up to {_number(high)}" if low is None else f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


if __name__ == "__main__":
    sys.exit(main())
