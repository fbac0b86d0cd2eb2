"""InternVL: one square tile per frame, numbered."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from inf_stream.models.chunk import VisualTokens
from inf_stream.models.families.nested import WithTextFamily
from inf_stream.models.families.vision import SquareFrames, VisionAdapter, per_frame, without_axes
from inf_stream.models.weights.loaded import LoadedWeights


class InternVision(SquareFrames):
    """One tile per frame, as the models' processor does with the frames of a video."""

    time_format: ClassVar[str] = "Frame{number}: "

    def __init__(self, weights: LoadedWeights, frame_tokens: int | None = None):
        super().__init__(weights, frame_tokens)
        tokenizer = weights.tokenizer
        self._start: str = getattr(tokenizer, "start_image_token", "<img>")
        self._end: str = getattr(tokenizer, "end_image_token", "</img>")
        self._require_tokens(self._start, self._end)

    def tokens(self, width: int, height: int) -> int:
        """The patches, shrunk by `downsample_ratio` on each side."""
        return int(self.patches * float(self.weights.config.downsample_ratio)) ** 2

    def wrapping(self) -> tuple[str, str]:
        """The image marks; each frame ends its line."""
        return self._start, self._end + "\n"

    def _encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> list[VisualTokens]:
        found = self.weights.model.model.get_image_features(pixels, return_dict=True)
        return without_axes(per_frame(found.pooler_output, len(pixels)))


class InternVL(WithTextFamily):
    """InternVL in transformers' own format (checkpoints named `-hf`)."""

    model_types = ("internvl",)
    title = "InternVL"

    def vision(self, weights: LoadedWeights, frame_tokens: int | None = None) -> VisionAdapter:
        """Frames as those of a video."""
        return InternVision(weights, frame_tokens)
