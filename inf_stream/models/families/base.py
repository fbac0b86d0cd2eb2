"""What differs from one model family to the next; one file a family, and this contract."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import PreTrainedConfig

from inf_stream.base.clock import format_clock, seconds
from inf_stream.base.errors import ConfigError, ModelError
from inf_stream.base.rotation import Table
from inf_stream.models.chunk import VisualTokens
from inf_stream.models.weights import LoadedWeights

_UNSUPPORTED_ROPE = ("dynamic", "longrope")
"""Rotary embeddings that change with the length of the text; positions inside a bounded cache have no length."""


class VisionAdapter(ABC):
    """Turns frames into what the language model reads in their place."""

    def __init__(self, weights: LoadedWeights):
        self.weights = weights

    time_format: ClassVar[str] = "[{clock}] "
    """Text before each frame in the form the family was trained on, or a plain one where it was trained on none."""

    @abstractmethod
    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels at which the encoder takes a picture of this size."""

    @abstractmethod
    def tokens(self, width: int, height: int) -> int:
        """Visual tokens of a frame of `frame_size`, without the text around it."""

    @abstractmethod
    def encode(self, pixels: UInt8[Tensor, "frames height width 3"]) -> list[VisualTokens]:
        """Encode frames of `frame_size`, RGB, all of one size; each frame for itself."""

    @abstractmethod
    def wrapping(self) -> tuple[str, str]:
        """Text right before and right after a frame's visual tokens, as the model expects it."""

    def time_text(self, time_format: str, at_ns: int, number: int) -> str:
        """Text that tells the model a frame's stream time, e.g. ``[12:30] ``.

        `time_format` may use ``{clock}``, ``{seconds}`` and ``{number}`` (from 1 on); ``auto`` takes the
        family's form, ``none`` gives no text.

        Raises:
            ConfigError: it uses something else.
        """
        if time_format == "none":
            return ""
        chosen = self.time_format if time_format == "auto" else time_format
        try:
            return chosen.format(clock=format_clock(at_ns), seconds=seconds(at_ns), number=number + 1)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"model.time_format is '{chosen}', which is not understood ({error}); "
                "it may use {clock}, {seconds} and {number}"
            ) from error


class Family:
    """Defaults fit Llama-like decoders; a family overrides what differs.

    Class attributes:
        model_types: values of the configuration's `model_type` that belong to the family.
        title: its name for people.
        segmented: M-RoPE positions.
        bidirectional_frames: visual tokens of a frame see each other in both directions.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str] = ""
    segmented: ClassVar[bool] = False
    bidirectional_frames: ClassVar[bool] = False

    def text_config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """The language model's part of the configuration."""
        return config.get_text_config(decoder=True)

    def decoder(self, model: nn.Module) -> nn.Module:
        """The language model without its output layer."""
        return model.get_decoder()  # type: ignore[operator, no-any-return]

    def vision(self, weights: LoadedWeights) -> VisionAdapter | None:
        """How frames are encoded; None for a text model."""
        return None

    def layer_kinds(self, config: PreTrainedConfig) -> tuple[str, ...]:
        """Per layer, which rotation table it uses; equal words share one."""
        return ("",) * int(config.num_hidden_layers)

    def sliding_windows(self, config: PreTrainedConfig) -> tuple[int | None, ...]:
        """Per layer, how many latest tokens it sees, or None for all."""
        types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        unknown = sorted(set(types) - {"full_attention", "sliding_attention"})
        if unknown:
            raise ModelError(f"layers of kind {', '.join(unknown)} have no key/value cache that can be bounded here")
        return tuple(int(config.sliding_window) if t == "sliding_attention" else None for t in types)

    def tables(self, decoder: nn.Module, kinds: Sequence[str], positions: Tensor, like: Tensor) -> tuple[Table, ...]:
        """Rotation tables, one per kind of layer, for positions ``[axes, rows, tokens]``.

        The result is divided by the rotary embedding's own scaling (YaRN), which the model has applied to the
        unrotated queries and keys already.
        """
        rotary: Any = decoder.rotary_emb
        where = positions if self.segmented else positions[0]
        made = []
        for _ in kinds:
            cos, sin = rotary(like, where)
            scaling = float(getattr(rotary, "attention_scaling", 1.0))
            made.append((cos / scaling, sin / scaling) if scaling != 1.0 else (cos, sin))
        return tuple(made)

    def logits(self, model: nn.Module, hidden: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """The output layer, float32."""
        head = model.get_output_embeddings()  # type: ignore[operator]
        return head(hidden).float()  # type: ignore[no-any-return]

    def refuse_unfit(self, config: PreTrainedConfig) -> None:
        """Raise for variants of the family that cannot work.

        Raises:
            ModelError: naming the setting of the model that does not fit.
        """
        text = self.text_config(config)
        parameters = getattr(text, "rope_parameters", None) or {}
        nested = [p for p in parameters.values() if isinstance(p, dict)] or [parameters]
        for one in nested:
            if one.get("rope_type") in _UNSUPPORTED_ROPE:
                raise ModelError(
                    f"rotary embedding of kind '{one['rope_type']}' depends on the length of the text and cannot have "
                    "its positions inside a bounded cache; choose a model with plain, linear, llama3 or YaRN rotary "
                    "embedding"
                )


def grid_offsets(rows: int, columns: int) -> Int[Tensor, "3 tokens"]:
    """(time, height, width) of the tokens of a picture in reading order."""
    height, width = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack((torch.zeros_like(height).flatten(), height.flatten(), width.flatten()))
