"""What loading gives."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedWeights:
    """A model ready to run and what belongs to it.

    Attributes:
        model: in eval mode, on its device, attention set to SDPA.
        tokenizer: with the chat template the model was trained on, if there is one.
        config: the model's configuration.
        image_processor: how the model wants its images (`preprocessor_config.json`); None for a text model.
        video_processor: how it wants its videos, where it says so.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: PreTrainedConfig
    image_processor: dict[str, Any] | None = None
    video_processor: dict[str, Any] | None = None
