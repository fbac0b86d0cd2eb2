"""`inf_stream/server/README.md` lists what the code can say: error codes, limits, reasons of frames, close codes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_session import LIMITS, WATCH_LIMITS, FakeSession, told

from inf_stream.base.events import FinishReason
from inf_stream.server import connections
from inf_stream.server.protocols import adapter, realtime_response
from inf_stream.server.protocols.pictures import PictureError
from inf_stream.server.protocols.stream import StreamAdapter
from inf_stream.server.protocols.watches import Watchman
from inf_stream.server.sessions import live_session
from inf_stream.server.web.metrics import _CLOSE_CODES
from inf_stream.session import machine
from inf_stream.session.queue import QueueRule

SERVER = Path(connections.__file__).parents[1]
PAGE = (SERVER / "README.md").read_text(encoding="utf-8")
TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SERVER.rglob("*.py"))]
CODE_AT = {"error_response": 2, "_error": 1}
"""Functions that take an error code, and as which argument."""


def table(head: str) -> dict[str, str]:
    """The rows of the table with this head: the first column's words, each with what is said about it."""
    rows = PAGE.partition(head)[2].partition("\n\n")[0].splitlines()[2:]
    assert rows, f"there is a table {head}"
    columns = [row.strip("|").split("|") for row in rows]
    return {name: " ".join(more) for first, *more in columns for name in re.findall(r"`([^`]+)`", first)}


def texts(nodes: Iterator[ast.expr | None]) -> set[str]:
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def said_codes() -> Iterator[ast.expr | None]:
    """Where the code writes an error code down."""
    for node in (node for tree in TREES for node in ast.walk(tree)):
        match node:
            case ast.Call(func, arguments, keywords):
                yield from (word.value for word in keywords if word.arg == "code")
                name = func.id if isinstance(func, ast.Name) else ""
                yield from arguments[CODE_AT[name] :][:1] if name in CODE_AT else ()
            case ast.arguments(kwonlyargs=names, kw_defaults=defaults):
                yield from (value for name, value in zip(names, defaults, strict=True) if name.arg == "code")
            case ast.Dict(keys, values):
                named = zip(keys, values, strict=True)
                yield from (value for key, value in named if isinstance(key, ast.Constant) and key.value == "code")


def test_every_error_code_is_listed_and_no_other() -> None:
    said = texts(said_codes()) | set(realtime_response._ERROR_CODE.values())
    assert len(said) > 20
    assert set(table("| code | when |")) == said


def test_every_limit_that_a_client_is_told_is_listed() -> None:
    (hello,) = told(StreamAdapter(FakeSession(), LIMITS, Watchman(WATCH_LIMITS), "handle").opened())
    assert list(table("| `limits` | what |")) == list(hello["limits"])


def test_every_reason_of_a_frame_is_listed() -> None:
    dropped = {rule.value for rule in QueueRule} - {"wait"}
    dropped |= {live_session.TOO_FAST, live_session.ENDING, live_session.LOST, machine.STOPPED}
    errors = {machine.FAILED, "invalid_value", "unsupported_content", *picture_codes()}
    rows = table("| `reason` | outcome |")
    assert {reason for reason, said in rows.items() if said.startswith(" dropped: ")} == dropped
    assert {reason for reason, said in rows.items() if said.startswith(" error: ")} == errors
    assert rows.keys() == dropped | errors


def picture_codes() -> set[str]:
    """Codes of images that come as they are or are fetched; those in data URIs have more."""
    files = [SERVER / "protocols" / "pictures.py", SERVER / "connections" / "image_fetcher.py"]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    codes = texts(word.value for call in calls for word in call.keywords if word.arg == "code")
    return codes | {PictureError("").code}


def test_every_way_in_which_an_image_is_invalid_is_listed() -> None:
    tree = ast.parse((SERVER / "protocols" / "pictures.py").read_text(encoding="utf-8"))
    errors = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "PictureError"]
    invalid = texts(error.args[0] for error in errors if not error.keywords)
    assert len(invalid) > 3
    listed = table("| code | when |")["invalid_image"]
    for message in invalid:
        what = message.partition(";")[0].removeprefix("the image").strip().removeprefix("is ").removeprefix("'s ")
        assert what in listed, what


def test_every_end_of_an_answer_is_listed() -> None:
    (listed,) = re.findall(r"An answer's `reason` is (.*?)\.\n", PAGE, re.DOTALL)
    assert set(re.findall(r"`([a-z]+)`", listed)) == {reason.value for reason in FinishReason}


@pytest.mark.parametrize("code", sorted(_CLOSE_CODES - {1006}))
def test_every_close_code_is_listed(code: int) -> None:
    names = ("NORMAL", "GOING_AWAY", "INVALID", "POLICY", "INTERNAL", "TRY_LATER")
    assert {getattr(adapter, name) for name in names} <= _CLOSE_CODES
    assert re.search(rf"\b{code}\b", PAGE.partition("**Close codes**")[2].partition("\n\n")[0])
