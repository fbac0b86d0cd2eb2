"""From settings to an engine that is ready, with early refusals and a progress line meanwhile."""

import dataclasses
import textwrap
from collections.abc import Sequence

import transformers
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from inf_stream.app.progress import loading
from inf_stream.app.questions import PlannedQuestion
from inf_stream.app.reports import Screen
from inf_stream.base.config import Settings
from inf_stream.base.errors import BudgetError, ModelError
from inf_stream.cache.policies import make_policy
from inf_stream.engine.build import build_engine, load_weights
from inf_stream.engine.engine import Engine
from inf_stream.models.weights import (
    BUILTIN,
    LoadedWeights,
    machine_facts,
    resolve_auto,
    resolve_device,
    resolve_dtype,
)
from inf_stream.models.weights.checkpoint import local_path, read_json

VISION_MODEL = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
"""A small model for real work that sees, for messages."""


def with_model(settings: Settings, *, sees: bool) -> Settings:
    """The settings with the model's name in the place of ``auto``; `sees` says whether it will be given frames."""
    name = resolve_auto(settings.model.name, sees=sees)
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, name=name))


def check_settings(settings: Settings) -> None:
    """Refuse what can be refused without the model: policy and its options, device, number format.

    Raises:
        ConfigError, ModelError: naming the setting and the remedy.
    """
    make_policy(settings.cache.policy, settings.policy)
    facts = machine_facts()
    resolve_dtype(settings.model.dtype, resolve_device(settings.model.device, facts), facts)


def require_sight(name: str) -> None:
    """Refuse a model for video that is known to be blind before it is fetched or loaded.

    Raises:
        ModelError: the built-in, GGUF file or folder called `name` holds a text model.
    """
    path = local_path(name)
    if name in BUILTIN:
        blind = not BUILTIN[name].sees
    elif path.is_dir():
        config = read_json(path / "config.json")
        blind = config is not None and "vision_config" not in config
    else:
        blind = path.suffix.lower() == ".gguf" and path.is_file()
    if blind:
        raise ModelError(_blind(name))


def load_engine(settings: Settings, screen: Screen, *, sees: bool) -> Engine:
    """Load the model and build an engine on it; `sees` says whether it will be given frames.

    Raises:
        InfStreamError: the model cannot be loaded, does not see, or does not fit; see `build_engine`.
    """
    engine = build_engine(settings, load_shown_weights(settings, screen))
    if sees and engine.model.vision is None:
        raise ModelError(_blind(settings.model.name))
    return engine


def require_questions_fit(engine: Engine, planned: Sequence[PlannedQuestion]) -> None:
    """Refuse questions before the stream begins that could not be asked later.

    Raises:
        BudgetError: a question has more tokens than half of the cache budget.
    """
    limit = engine.cache.budget_tokens // 2
    for question in planned:
        tokens = len(engine.model.ids(question.text + engine.model.turns.ask))
        if tokens > limit:
            shown = textwrap.shorten(question.text, 40, placeholder="…")
            raise BudgetError(
                f"question '{shown}' has {tokens} tokens; at most {limit}, half of the cache budget, are allowed: "
                "shorten it or raise --budget"
            )


def load_shown_weights(settings: Settings, screen: Screen) -> LoadedWeights:
    """The weights the settings name, with a progress line meanwhile and none of the libraries' own talk.

    Raises:
        ModelError: see `load_weights`.
    """
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    name = settings.model.name
    is_hub_id = name not in BUILTIN and not local_path(name).exists()
    if is_hub_id and screen.errors.is_terminal:
        screen.note(f"loading {name} from the hub", "dim")  # whose library draws progress of its own
        return load_weights(settings)
    disable_progress_bars()
    with loading(screen.errors, name) as progress:
        return load_weights(settings, progress)


def _blind(name: str) -> str:
    remedy = f"name one that sees, e.g. --model {VISION_MODEL}, or leave --model out"
    return f"model '{name}' reads text only and cannot see video; {remedy}"
