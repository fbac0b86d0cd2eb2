"""What can be said of a model by its name, before it is fetched or loaded, and without torch."""

import dataclasses

from inf_stream.base.config import Settings
from inf_stream.base.errors import ModelError
from inf_stream.models.weights.builtin import BUILTIN, require_findable, resolve_auto
from inf_stream.models.weights.checkpoint import local_path, read_json

VISION_MODEL = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
"""A small model for real work that sees, for messages."""


def with_model(settings: Settings, *, sees: bool) -> Settings:
    """The settings with the model's name in the place of ``auto``; `sees` says whether it will be given frames."""
    name = resolve_auto(settings.model.name, sees=sees)
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, name=name))


def check_model(name: str, *, sees: bool) -> None:
    """Refuse a model whose name cannot be one, or, for video, which is known to be blind.

    Raises:
        ModelError: no built-in, file, folder or hub id is called `name`; or what is called so holds a text model.
    """
    require_findable(name)
    if sees and _is_blind(name):
        raise blind(name)


def blind(name: str) -> ModelError:
    """The error for a text model where there is video."""
    remedy = f"name one that sees, e.g. --model {VISION_MODEL}, or leave --model out"
    return ModelError(f"model '{name}' reads text only and cannot see video; {remedy}")


def _is_blind(name: str) -> bool:
    path = local_path(name)
    if name in BUILTIN:
        return not BUILTIN[name].sees
    if path.is_dir():
        config = read_json(path / "config.json")
        return config is not None and "vision_config" not in config
    return path.suffix.lower() == ".gguf" and path.is_file()
