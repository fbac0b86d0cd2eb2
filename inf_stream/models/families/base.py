"""What differs from one model family to the next; one file a family, and this contract."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig

from inf_stream.base.errors import ModelError
from inf_stream.base.rotation import Table
from inf_stream.models.families.vision import VisionAdapter
from inf_stream.models.weights.loaded import LoadedWeights

_UNSUPPORTED_ROPE = ("dynamic", "longrope")
"""Rotary embeddings that change with the length of the text; positions inside a bounded cache have no length."""


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

    def vision(self, weights: LoadedWeights, frame_tokens: int | None = None) -> VisionAdapter | None:
        """How frames are encoded, at most `frame_tokens` visual tokens each if given; None for a text model.

        Raises:
            ModelError, ConfigError: as `VisionAdapter`.
        """
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
        return tuple(unscaled(rotary(like, where), rotary.attention_scaling) for _ in kinds)

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


def unscaled(table: Table, scaling: float) -> Table:
    """A table divided by the factor that a rotary embedding multiplies its cosines and sines with (1 for most)."""
    cos, sin = table
    return (cos, sin) if scaling == 1.0 else (cos / scaling, sin / scaling)
