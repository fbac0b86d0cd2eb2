"""The head of a saved session's file: what it is and the facts in it, read without a tensor, and without torch."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from inf_stream.base.errors import StateError

FORMAT, VERSION = "inf-stream session", 1


def read_facts(path: Path) -> dict[str, Any]:
    """The facts alone, without the tensors and before the checksum could be judged; for settings and messages.

    Raises:
        StateError: as `read_state`, as far as the head of the file tells.
    """
    return parse_facts(path, read_header(path)[0])


def read_header(path: Path) -> tuple[str, str]:
    """The facts, not yet parsed, and the checksum of everything.

    Raises:
        StateError: there is no such file, it is damaged, of something else, or of a newer version.
    """
    if not path.is_file():
        raise StateError(f"saved session '{path}' does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise damaged(path, str(error)) from error
    version = metadata.get("version", "")
    if metadata.get("format") != FORMAT or not version.isdecimal():
        raise StateError(f"'{path}' is not a saved session of inf-stream; give a file that --save wrote")
    if int(version) != VERSION:
        raise StateError(
            f"saved session '{path}' is of version {version[:12]}; this program reads version {VERSION}: update it"
        )
    if "facts" not in metadata or "sha256" not in metadata:
        raise damaged(path, "its description is missing")
    return metadata["facts"], metadata["sha256"]


def parse_facts(path: Path, facts: str) -> dict[str, Any]:
    """The facts of the file `path`.

    Raises:
        StateError: they are not a JSON object.
    """
    try:
        values = json.loads(facts)
    except (ValueError, RecursionError) as error:
        raise damaged(path, "its description is not JSON") from error
    if not isinstance(values, dict):
        raise damaged(path, "its description is not an object")
    return values


def damaged(path: Path, what: str) -> StateError:
    """The error for a file that cannot be trusted."""
    return StateError(f"saved session '{path}' is damaged: {what}; nothing of it was used")
