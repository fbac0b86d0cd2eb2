"""What lies in a folder of weights, read without loading them: configuration files, formats, sizes."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from inf_stream.base.errors import ModelError

_PICKLED = ("*.bin", "*.pth", "*.pt", "*.ckpt")


def local_path(name: str) -> Path:
    """The file or folder that a model name would be, which need not exist.

    Raises:
        ModelError: it is longer than a file name can be, leads where nobody may look, or names an unknown user's home.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ModelError(
            f"model '{name[:60]}' cannot be looked up: {why}; give a built-in name, a GGUF file, a folder or a hub id"
        ) from error
    return path


def require_checkpoint(folder: Path) -> None:
    """Refuse a folder that holds no configuration or no safetensors weights.

    Raises:
        ModelError: saying what is missing and how to get it.
    """
    if not (folder / "config.json").is_file():
        ggufs = sorted(folder.glob("*.gguf"))
        remedy = f"give the file itself: {ggufs[0]}" if ggufs else "give the folder that save_pretrained wrote"
        raise ModelError(f"folder '{folder}' has no config.json; {remedy}")
    if weight_files(folder):
        return
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if pickled:
        raise ModelError(
            f"folder '{folder}' holds only pickled weights ({pickled[0]}), which can run code when opened; "
            "convert them "
            "once where you trust them: AutoModel.from_pretrained(folder).save_pretrained(new_folder)"
        )
    raise ModelError(f"folder '{folder}' holds no *.safetensors weights; download the model again")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, in name order."""
    return sorted(folder.glob("*.safetensors"))


def weight_count(folder: Path) -> int:
    """How many numbers the safetensors files of a folder hold.

    Raises:
        ModelError: a file is truncated or damaged.
    """
    return sum(_weights_in(path) for path in weight_files(folder))


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if there is no such file.

    Raises:
        ModelError: the file is not a JSON object.
    """
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' is not valid JSON: {error}; download the model again") from error
    if not isinstance(values, dict):
        raise ModelError(f"'{path}' holds a {type(values).__name__}, a JSON object is expected")
    return values


def image_processor_config(folder: Path) -> dict[str, Any] | None:
    """How the model wants its images: resizing, normalisation, patches; None for a text model.

    Raises:
        ModelError: the file is damaged.
    """
    return _processor_config(folder, "preprocessor_config.json", "image_processor")


def video_processor_config(folder: Path) -> dict[str, Any] | None:
    """How the model wants its videos, where it says so.

    Raises:
        ModelError: the file is damaged.
    """
    return _processor_config(folder, "video_preprocessor_config.json", "video_processor")


def chat_template(folder: Path) -> str | None:
    """The processor's chat template, which knows about images where the tokenizer's own may not.

    Raises:
        ModelError: the file is damaged.
    """
    text = (read_json(folder / "chat_template.json") or {}).get("chat_template")
    return text if isinstance(text, str) else None


def _processor_config(folder: Path, file: str, section: str) -> dict[str, Any] | None:
    own = read_json(folder / file)
    if own is not None:
        return own
    shared = (read_json(folder / "processor_config.json") or {}).get(section)
    return shared if isinstance(shared, dict) else None


def _weights_in(path: Path) -> int:
    try:
        with safe_open(path, framework="pt") as file:
            count = 0
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                count += size
            return count
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"weights '{path}' ({path.stat().st_size} bytes) are truncated or damaged: {error}; download them again"
        ) from error
