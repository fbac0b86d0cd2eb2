"""From settings to an engine that is ready, with early refusals and a progress line meanwhile."""

import textwrap
from collections.abc import Sequence

import transformers
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

from inf_stream.app.model_names import blind
from inf_stream.app.progress import loading
from inf_stream.app.questions import PlannedQuestion
from inf_stream.app.reports import Screen
from inf_stream.base.config import Settings
from inf_stream.base.errors import BudgetError
from inf_stream.engine.build import build_engine, load_weights
from inf_stream.engine.engine import Engine
from inf_stream.models.weights.builtin import BUILTIN
from inf_stream.models.weights.checkpoint import local_path
from inf_stream.models.weights.loaded import LoadedWeights


def load_engine(settings: Settings, screen: Screen, *, sees: bool) -> Engine:
    """Load the model and build an engine on it; `sees` says whether it will be given frames.

    Raises:
        InfStreamError: the model cannot be loaded, does not see, or does not fit; see `build_engine`.
    """
    engine = build_engine(settings, load_shown_weights(settings, screen))
    if sees and engine.model.vision is None:
        raise blind(settings.model.name)
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
