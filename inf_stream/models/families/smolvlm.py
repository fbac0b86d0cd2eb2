"""SmolVLM, SmolVLM2 and Idefics3: one square per frame, named by its time."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from inf_stream.models.chunk import VisualTokens
from inf_stream.models.families.nested import WithTextFamily
from inf_stream.models.families.vision import SquareFrames, VisionAdapter, per_frame, without_axes
from inf_stream.models.weights.loaded import LoadedWeights


class SmolVision(SquareFrames):
    """The global view alone, as the models' processor does with the frames of a video; no tiles."""

    time_format: ClassVar[str] = "\nFrame from {clock}:"
    after_frames: ClassVar[str] = "\n\n"

    def __init__(self, weights: LoadedWeights, frame_tokens: int | None = None):
        super().__init__(weights, frame_tokens)
        tokenizer = weights.tokenizer
        self._around: str = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
        self._global: str = getattr(tokenizer, "global_image_token", "<global-img>")
        self._require_tokens(self._around, self._global)

    def tokens(self, width: int, height: int) -> int:
        """The patches, `scale_factor` by `scale_factor` of them folded into one."""
        return (self.patches // int(self.weights.config.scale_factor)) ** 2

    def wrapping(self) -> tuple[str, str]:
        """The marks around a single, untiled image."""
        return self._around + self._global, self._around

    def _encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> list[VisualTokens]:
        found = self.weights.model.model.get_image_features(pixels[:, None], return_dict=True)
        return without_axes(per_frame(found.pooler_output, len(pixels)))


class SmolVLM(WithTextFamily):
    """SmolVLM, SmolVLM2 and Idefics3."""

    model_types = ("smolvlm", "idefics3")
    title = "SmolVLM, Idefics3"

    def vision(self, weights: LoadedWeights, frame_tokens: int | None = None) -> VisionAdapter:
        """Frames as those of a video."""
        return SmolVision(weights, frame_tokens)
