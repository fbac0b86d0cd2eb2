"""Reading a GGUF file: typed metadata and dequantised tensors; every damage is reported as a `ModelError`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from jaxtyping import Float
from torch import Tensor

from inf_stream.base.errors import ModelError

T = TypeVar("T")

_MAGIC = b"GGUF"
_REQUIRED: Any = object()


class GgufFile:
    """An open GGUF file. Tensors stay on disk until they are asked for."""

    def __init__(self, path: Path) -> None:
        """Open `path` and read its metadata.

        Raises:
            ModelError: the file is missing, is not GGUF, or ends before its contents do.
        """
        self.path = path
        _check_magic(path)
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
            raise self._damaged(error) from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model family, e.g. `llama` or `qwen2`."""
        return self.text("general.architecture")

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Names of all tensors, in file order."""
        return tuple(self._tensors)

    def weight_count(self) -> int:
        """How many numbers all tensors hold together."""
        return sum(int(tensor.n_elements) for tensor in self._reader.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, slowest axis first, as torch has it.

        Raises:
            ModelError: there is no tensor of this name.
        """
        if name not in self._tensors:
            raise ModelError(f"'{self.path}' has no tensor '{name}'; download the file again")
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def tensor(self, name: str) -> Float[Tensor, "..."]:
        """Dequantised float32 values of one tensor.

        Raises:
            ModelError: the quantisation is unknown to the installed gguf package, or the data is damaged.
        """
        found = self._tensors[name]
        try:
            values = dequantize(found.data, found.tensor_type)
        except NotImplementedError as error:
            raise ModelError(
                f"tensor '{name}' of '{self.path}' is quantised as {found.tensor_type.name}, which the "
                "installed gguf package cannot read; update gguf, or use a Q4_K_M, Q8_0 or F16 file"
            ) from error
        except (ValueError, IndexError) as error:
            raise self._damaged(error) from error
        return torch.from_numpy(np.array(values, dtype=np.float32, order="C")).reshape(self.shape(name))

    def has(self, key: str) -> bool:
        """Whether the metadata holds `key`."""
        return key in self._reader.fields

    def integer(self, key: str, default: int = _REQUIRED) -> int:
        """A whole number; raises `ModelError` when absent (and no default is given) or of another type."""
        return self._scalar(key, int, default)

    def number(self, key: str, default: float = _REQUIRED) -> float:
        """A number; raises as `integer`."""
        if isinstance(value := self._value(key, default), int) and not isinstance(value, bool):
            return float(value)
        return self._scalar(key, float, default)

    def flag(self, key: str, default: bool = _REQUIRED) -> bool:
        """A yes or no; raises as `integer`."""
        return self._scalar(key, bool, default)

    def text(self, key: str, default: str = _REQUIRED) -> str:
        """A string; raises as `integer`."""
        return self._scalar(key, str, default)

    def texts(self, key: str) -> Sequence[str]:
        """A list of strings; raises as `integer`."""
        return [str(item) for item in self._list(key, str)]

    def numbers(self, key: str) -> Sequence[float]:
        """A list of numbers; raises as `integer`."""
        return [float(item) for item in self._list(key, (int, float))]

    def _scalar(self, key: str, kind: type[T], default: T) -> T:
        value = self._value(key, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ModelError(
                f"'{key}' of '{self.path}' is {_short(value)}, not a single {kind.__name__}; "
                "this variant of the model is not supported"
            )
        return value

    def _list(self, key: str, kind: Any) -> list[Any]:
        value = self._value(key, _REQUIRED)
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise ModelError(f"'{key}' of '{self.path}' is {_short(value)}, not a list of the expected kind")
        return value

    def _value(self, key: str, default: Any) -> Any:
        field = self._reader.fields.get(key)
        if field is None:
            if default is _REQUIRED:
                raise ModelError(
                    f"'{self.path}' lacks the metadata '{key}'; it was made by a foreign or very old "
                    "converter: convert the model again with llama.cpp's convert_hf_to_gguf.py"
                )
            return default
        try:
            return field.contents()
        except (UnicodeDecodeError, ValueError, IndexError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ModelError:
        return ModelError(
            f"GGUF file '{self.path}' ({self.path.stat().st_size} bytes) is truncated or damaged: {error}; "
            "download it again"
        )


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelError(f"GGUF file '{path}' cannot be read: {error.strerror or error}") from error
    if magic != _MAGIC:
        raise ModelError(f"'{path}' is not a GGUF file: it begins with {magic!r} instead of {_MAGIC!r}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
