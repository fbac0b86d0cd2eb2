"""A GGUF file converted once to safetensors, which load ten times faster.

The converted copy lies in a folder beside the GGUF file, named by number format and converter version. Its
manifest holds the hash of every file: what is damaged, incomplete or of an older converter is made anew.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from inf_stream.base.errors import ModelError
from inf_stream.models.weights.fetch import folder_lock, sha256, staging_folder
from inf_stream.models.weights.folders import CACHE_VARIABLE
from inf_stream.models.weights.gguf import load_gguf

CONVERTER_VERSION = 1
"""Raise it whenever `load_gguf` would give another model or tokenizer."""

_MANIFEST = "manifest.json"


def load_converted(
    path: Path, gguf_sha256: str, dtype: torch.dtype, device: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model of the GGUF file `path`, from its converted copy, which is made first if need be.

    Args:
        path: the GGUF file.
        gguf_sha256: its hash; a file with another one is deleted and refused.
        dtype: number format of the copy and the model.
        device: where the model goes.

    Raises:
        ModelError: the GGUF file is not what it should be, or the copy cannot be written.
    """
    folder = converted_folder(path, dtype)
    if not is_intact(folder, gguf_sha256):
        with folder_lock(path.parent):
            if not is_intact(folder, gguf_sha256):
                _convert(path, gguf_sha256, dtype, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return model.to(device).eval(), tokenizer


def converted_folder(path: Path, dtype: torch.dtype) -> Path:
    """Where the converted copy of a GGUF file lies."""
    return path.parent / f"{str(dtype).removeprefix('torch.')}-v{CONVERTER_VERSION}"


def is_intact(folder: Path, gguf_sha256: str) -> bool:
    """Whether a converted copy is complete, undamaged and made from the file with this hash."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(manifest, dict) or manifest.get("gguf_sha256") != gguf_sha256:
        return False
    files = manifest.get("files")
    return isinstance(files, dict) and bool(files) and all(_matches(folder / n, h) for n, h in files.items())


def _matches(path: Path, expected: Any) -> bool:
    return path.is_file() and sha256(path) == expected


def _convert(path: Path, gguf_sha256: str, dtype: torch.dtype, folder: Path) -> None:
    if (found := sha256(path)) != gguf_sha256:
        path.unlink()
        raise ModelError(
            f"'{path}' has the hash {found}, {gguf_sha256} is expected; it was deleted: run the command "
            "again to "
            "fetch it anew"
        )
    model, tokenizer = load_gguf(path, dtype, torch.device("cpu"))
    size_bytes = sum(weight.nbytes for weight in model.parameters())
    with staging_folder(path.parent, size_bytes) as staging:
        made = staging / "converted"
        try:
            model.save_pretrained(made)
            tokenizer.save_pretrained(made)
        except SafetensorError as error:
            raise ModelError(
                f"the converted copy of '{path}' ({size_bytes / 1e6:.0f} MB) cannot be written: {error}; "
                f"free some space, or set {CACHE_VARIABLE} to another folder"
            ) from error
        files = {file.name: sha256(file) for file in sorted(made.iterdir())}
        manifest = {"gguf_sha256": gguf_sha256, "files": files}
        (made / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)
