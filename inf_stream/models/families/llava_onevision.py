"""LLaVA-OneVision: frames as the pooled grids it reads videos with."""

import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.models.chunk import VisualTokens
from inf_stream.models.families.nested import WithTextFamily
from inf_stream.models.families.vision import SquareFrames, VisionAdapter, without_axes
from inf_stream.models.weights.loaded import LoadedWeights


class OneVision(SquareFrames):
    """A video of one frame each time: the grid pooled to half its sides, and the newline that ends a video."""

    def tokens(self, width: int, height: int) -> int:
        """The pooled grid and its newline."""
        return ((self.patches + 1) // 2) ** 2 + 1

    def wrapping(self) -> tuple[str, str]:
        """Nothing before; the chat template ends each video's line."""
        return "", "\n"

    def _encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> list[VisualTokens]:
        model = self.weights.model.model
        found: Tensor = model.get_video_features(pixels[:, None], return_dict=True).pooler_output
        if found.shape[1] < self.tokens(self.edge, self.edge):
            # Releases of transformers differ in whether the newline is among the features.
            newline = model.image_newline.to(found).expand(len(pixels), 1, -1)
            found = torch.cat((found, newline), dim=1)
        return without_axes(list(found))


class LlavaOneVision(WithTextFamily):
    """LLaVA-OneVision."""

    model_types = ("llava_onevision",)
    title = "LLaVA-OneVision"

    def vision(self, weights: LoadedWeights, frame_tokens: int | None = None) -> VisionAdapter:
        """Frames as videos of one frame."""
        return OneVision(weights, frame_tokens)
