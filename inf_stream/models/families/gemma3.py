"""Gemma 3: layers that slide between layers that see all, each kind with its own rotation; frames seen both ways."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig

from inf_stream.base.errors import ModelError
from inf_stream.base.rotation import Table
from inf_stream.models.chunk import VisualTokens
from inf_stream.models.families.base import Family, unscaled
from inf_stream.models.families.vision import SquareFrames, VisionAdapter, per_frame, without_axes
from inf_stream.models.weights.loaded import LoadedWeights


class GemmaVision(SquareFrames):
    """One square per frame; no pan and scan, which the models' own processor leaves off too."""

    def __init__(self, weights: LoadedWeights, frame_tokens: int | None = None):
        super().__init__(weights, frame_tokens)
        tokenizer = weights.tokenizer
        self._start: str = getattr(tokenizer, "boi_token", "<start_of_image>")
        self._end: str = getattr(tokenizer, "eoi_token", "<end_of_image>")
        self._require_tokens(self._start, self._end)

    def tokens(self, width: int, height: int) -> int:
        """What the projector pools every picture to."""
        return int(self.weights.config.mm_tokens_per_image)

    def wrapping(self) -> tuple[str, str]:
        """The image marks, set apart by empty lines."""
        return f"\n\n{self._start}", f"{self._end}\n\n"

    def _encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> list[VisualTokens]:
        found = self.weights.model.model.get_image_features(pixels, return_dict=True)
        return without_axes(per_frame(found.pooler_output, len(pixels)))


class Gemma3Text(Family):
    """Gemma 3 without vision (the 1B and 270M sizes): QK-norm, sliding layers."""

    model_types = ("gemma3_text",)
    title = "Gemma 3 (text)"

    def layer_kinds(self, config: PreTrainedConfig) -> tuple[str, ...]:
        """Sliding layers turn at a local base frequency, the others at a global one."""
        return tuple(config.layer_types)

    def tables(self, decoder: nn.Module, kinds: Sequence[str], positions: Tensor, like: Tensor) -> tuple[Table, ...]:
        """Rotation tables, one per kind of layer, for positions ``[1, rows, tokens]``."""
        rotary: Any = decoder.rotary_emb
        return tuple(
            unscaled(rotary(like, positions[0], kind), getattr(rotary, f"{kind}_attention_scaling")) for kind in kinds
        )

    def logits(self, model: nn.Module, hidden: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """The output layer, float32, softly capped where the configuration says so."""
        logits = super().logits(model, hidden)
        cap = getattr(model.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def refuse_unfit(self, config: PreTrainedConfig) -> None:
        """Raise for variants that cannot work.

        Raises:
            ModelError: text is read in both directions (an embedding model), or as `Family.refuse_unfit`.
        """
        if self.text_config(config).use_bidirectional_attention:
            raise ModelError(
                "this Gemma 3 reads text in both directions (use_bidirectional_attention), as embedding models do; "
                "it cannot read a stream: choose a generative one, e.g. google/gemma-3-4b-it"
            )
        super().refuse_unfit(config)


class Gemma3(Gemma3Text):
    """Gemma 3 with vision; the tokens of a frame see each other in both directions."""

    model_types = ("gemma3",)
    title = "Gemma 3"
    bidirectional_frames = True

    def vision(self, weights: LoadedWeights, frame_tokens: int | None = None) -> VisionAdapter:
        """Frames as images."""
        return GemmaVision(weights, frame_tokens)
