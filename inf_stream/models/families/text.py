"""Text families that need nothing of their own: Llama, Mistral, Qwen2/2.5, Qwen3."""

from transformers import PreTrainedConfig

from inf_stream.models.families.base import Family


class Llama(Family):
    """Llama and what shares its architecture (SmolLM2, Vicuna, ...)."""

    model_types = ("llama",)
    title = "Llama"


class Mistral(Family):
    """Mistral; where it has a sliding window, all layers have it."""

    model_types = ("mistral",)
    title = "Mistral"

    def sliding_windows(self, config: PreTrainedConfig) -> tuple[int | None, ...]:
        """The one window for every layer, or None."""
        return (config.sliding_window,) * int(config.num_hidden_layers)


class Qwen2(Family):
    """Qwen2 and Qwen2.5."""

    model_types = ("qwen2",)
    title = "Qwen2/2.5"


class Qwen3(Family):
    """Qwen3 (dense)."""

    model_types = ("qwen3",)
    title = "Qwen3"


class GPTNeoX(Family):
    """GPT-NeoX and Pythia: partial rotary embedding."""

    model_types = ("gpt_neox",)
    title = "GPT-NeoX (Pythia)"


TEXT_FAMILIES: tuple[type[Family], ...] = (Llama, Mistral, Qwen2, Qwen3, GPTNeoX)
