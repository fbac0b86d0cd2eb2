"""The file of a saved session: what goes in comes out, and whatever is not quite that is refused."""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inf_stream.base import state as module
from inf_stream.base.errors import StateError
from inf_stream.base.state import State, StateCopy, read_state, write_state
from inf_stream.base.state_facts import read_facts


def made() -> State:
    tensors = {
        "keys": torch.randn(2, 3, 4, dtype=torch.bfloat16),
        "index": torch.arange(5),
        "nothing": torch.zeros(2, 0),
        "flag": torch.tensor(True),
    }
    return State.of({"part": State(tensors, {"used": 5})}, name="süß", saved_s=1.5)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    path, state = tmp_path / "s.ifs", made()
    assert write_state(state.on_cpu(), path) == path.stat().st_size
    found = read_state(path)
    assert found.facts == state.facts == read_facts(path)
    assert found.tensors.keys() == state.tensors.keys()
    for name, tensor in state.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    part = found.part("part")
    assert set(part.tensors) == {"keys", "index", "nothing", "flag"}
    assert part.count("used") == 5


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "s.ifs"
    path.write_text("old")
    path.chmod(0o644)
    write_state(made().on_cpu(), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["s.ifs"]


def test_what_a_killed_process_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".s.ifs.part").write_bytes(b"half")
    write_state(made().on_cpu(), tmp_path / "s.ifs")
    assert [p.name for p in tmp_path.iterdir()] == ["s.ifs"]


def test_a_disk_that_is_full_leaves_the_older_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.ifs"
    write_state(made().on_cpu(), path)
    before = path.read_bytes()

    def full(_tensors: object, target: Path, _metadata: object) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(StateError, match=r"s.ifs': No space left on device"):
        write_state(made().on_cpu(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.ifs"]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def with_metadata(path: Path, **changed: str | None) -> None:
    with module.safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), **changed}
    save_file(load_file(path), path, {k: v for k, v in metadata.items() if v is not None})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: p.unlink(), "does not exist"),
        (lambda p: p.write_bytes(b""), "is damaged"),
        (lambda p: p.write_text("hello, this is a text"), "is damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "is damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:40]), "is damaged"),
        (lambda p: flip(p, -1), "its checksum does not match its content; nothing of it was used"),
        (lambda p: with_metadata(p, facts='{"name": "other"}'), "its checksum does not match"),
        (lambda p: with_metadata(p, facts=None), "its description is missing"),
        (lambda p: with_metadata(p, version="2"), "version 2; this program reads version 1: update it"),
        (lambda p: with_metadata(p, version="new"), "is not a saved session of inf-stream"),
        (
            lambda p: with_metadata(p, format="else"),
            "give a file that --save wrote",
        ),
        (lambda p: save_file({"a": torch.zeros(2)}, p), "is not a saved session of inf-stream"),
    ],
)
def test_what_is_not_a_whole_session_is_refused(harm: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.ifs"
    write_state(made().on_cpu(), path)
    harm(path)
    with pytest.raises(StateError, match=re.escape(message)):
        read_state(path)


@pytest.mark.parametrize("facts", ["[1]", "{", "[" * 100_000])
def test_facts_that_are_none_are_refused(facts: str, tmp_path: Path) -> None:
    path = tmp_path / "s.ifs"
    write_state(made().on_cpu(), path)
    with_metadata(path, facts=facts, sha256=module._digest(facts, load_file(path)))
    for read in (read_state, read_facts):
        with pytest.raises(StateError, match="its description is not"):
            read(path)


def test_every_byte_counts(tmp_path: Path) -> None:
    path = tmp_path / "s.ifs"
    write_state(State({"a": torch.arange(4)}, {"b": 1}).on_cpu(), path)
    size = path.stat().st_size
    for place in range(8, size):
        flip(path, place)
        with pytest.raises(StateError):
            read_state(path)
        flip(path, place)
    assert json.dumps(read_state(path).facts) == '{"b": 1}'


@pytest.mark.parametrize("part_bytes", [1, 20, 1 << 20])
def test_a_copy_is_made_in_parts_and_shares_nothing(part_bytes: int) -> None:
    state = made()
    state.tensors["slice"] = torch.arange(60).view(5, 12)[:, 3:7]
    wanted = {name: tensor.clone() for name, tensor in state.tensors.items()}
    copy = StateCopy(state, part_bytes)
    parts = 0
    while not copy.is_whole:
        with pytest.raises(AssertionError, match="when it is whole"):
            copy.state  # noqa: B018
        copy.go_on()
        parts += 1
    assert parts == {1: 2 + 5 + 1 + 5 + 1, 20: 9, 1 << 20: 1}[part_bytes]
    for tensor in state.tensors.values():
        tensor.zero_()
    assert copy.state.facts == state.facts
    assert copy.state.tensors.keys() == wanted.keys()
    for name, tensor in copy.state.tensors.items():
        assert torch.equal(tensor, wanted[name])
        assert (tensor.dtype, tensor.is_contiguous()) == (wanted[name].dtype, True)
    assert len(copy.parts_s) == parts


def test_a_copy_for_which_there_is_no_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("can't allocate memory: you tried to allocate 999 bytes")

    copy = StateCopy(made())
    monkeypatch.setattr(module.torch, "empty", empty)
    with pytest.raises(StateError, match=r"no memory for a copy of the session: can't allocate"):
        copy.go_on()
