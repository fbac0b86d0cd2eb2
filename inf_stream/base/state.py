"""What a part of a session remembers, as tensors and facts, and the one file that all of it is kept in.

The file is safetensors, so nothing in it is ever executed. Its metadata hold a format name, a version, the facts as
JSON, and the SHA-256 of everything: a file that was cut short, changed, or written by something else is refused before
a single tensor is used.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inf_stream.base.errors import StateError
from inf_stream.base.state_facts import FORMAT, VERSION, damaged, parse_facts, read_header

_PRIVATE = 0o600
_PART_BYTES = 16 << 20


@dataclass
class State:
    """Tensors and facts by name.

    Attributes:
        tensors: of any format, on any device.
        facts: whatever JSON can hold.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Mapping[str, "State"], **facts: Any) -> "State":
        """One state of several, each under its name, and facts beside them."""
        tensors = {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.tensors.items()}
        return cls(tensors, {name: part.facts for name, part in parts.items()} | facts)

    def part(self, name: str) -> "State":
        """What `of` was given under `name`.

        Raises:
            StateError: there is no such part.
        """
        facts = self.fact(name, dict)
        prefix = f"{name}."
        return State({k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}, facts)

    def fact(self, name: str, kind: type) -> Any:
        """A fact that must be there and of a kind.

        Raises:
            StateError: it is not.
        """
        value = self.facts.get(name)
        if type(value) is not kind:
            raise StateError(f"the saved session has no {kind.__name__} called '{name}'; it cannot be used")
        return value

    def count(self, name: str) -> int:
        """A whole number from 0 on.

        Raises:
            StateError: it is missing, or something else.
        """
        value: int = self.fact(name, int)
        if value < 0:
            raise StateError(f"the saved session has {value} as '{name}'; it cannot be used")
        return value

    def tensor(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor that must be there, of a shape and format.

        Raises:
            StateError: it is not.
        """
        found = self.tensors.get(name)
        if found is None or tuple(found.shape) != shape or found.dtype != dtype:
            has = "none" if found is None else f"{list(found.shape)} {found.dtype}"
            raise StateError(f"the saved session has {has} as '{name}', {list(shape)} {dtype} is expected")
        return found

    def copy(self) -> "State":
        """A copy that shares no tensor with what it was taken from, each where it was."""
        return State({k: t.clone() for k, t in self.tensors.items()}, self.facts)

    def on_cpu(self) -> "State":
        """A copy that shares nothing with what it was taken from."""
        return State({k: t.to("cpu", copy=True).contiguous() for k, t in self.tensors.items()}, self.facts)


class StateCopy:
    """A copy of a state on the CPU, made part by part, so that no part takes long.

    What it is taken from must not change until it is whole.

    Attributes:
        is_whole: whether all parts are there.
        parts_s: what each part took so far.
    """

    def __init__(self, state: State, part_bytes: int = _PART_BYTES):
        self.is_whole, self.parts_s = False, list[float]()
        self._copy = State({}, state.facts)
        self._part_bytes = part_bytes
        self._parts = self._lay_out(state)

    @property
    def state(self) -> State:
        """The copy."""
        assert self.is_whole, "a copy is used when it is whole"
        return self._copy

    def go_on(self) -> None:
        """Copy about one part more.

        Raises:
            StateError: there is no memory for it; the copy is of no use then.
        """
        began_s, left_bytes = time.perf_counter(), self._part_bytes
        try:
            for source, target in self._parts:
                target.copy_(source)
                left_bytes -= source.nbytes
                if left_bytes <= 0:
                    return
            self.is_whole = True
        except (RuntimeError, MemoryError) as error:
            raise StateError(f"no memory for a copy of the session: {error}") from error
        finally:
            self.parts_s.append(time.perf_counter() - began_s)

    def _lay_out(self, state: State) -> Iterator[tuple[Tensor, Tensor]]:
        for name, tensor in state.tensors.items():
            copy = self._copy.tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
            source, target = (tensor, copy) if tensor.ndim else (tensor.view(1), copy.view(1))
            rows = max(1, self._part_bytes * len(source) // max(1, source.nbytes))
            for start in range(0, len(source), rows):
                yield source[start : start + rows], target[start : start + rows]


def write_state(state: State, path: Path) -> int:
    """Write a state that is `on_cpu` to `path`; a file that is there stays until the new one is whole.

    Only its owner may read the file; it is not encrypted. Returns its size in bytes.

    Raises:
        StateError: it cannot be written.
    """
    facts = json.dumps(state.facts, sort_keys=True)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "facts": facts,
        "sha256": _digest(facts, state.tensors),
    }
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))
        save_file(state.tensors, unfinished, metadata)
        unfinished.chmod(_PRIVATE)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        size_bytes = unfinished.stat().st_size
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        raise StateError(f"session cannot be saved to '{path}': {reason}") from error
    return size_bytes


def read_state(path: Path) -> State:
    """Read what `write_state` wrote.

    Raises:
        StateError: there is no such file, it is damaged, of something else, or of a newer version.
    """
    facts, expected = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if _digest(facts, tensors) != expected:
        raise damaged(path, "its checksum does not match its content")
    return State(tensors, parse_facts(path, facts))


def _digest(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the facts and of every tensor's name, format, shape and bytes, in order of names."""
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
