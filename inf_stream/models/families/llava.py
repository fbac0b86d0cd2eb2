"""LLaVA: a vision tower, two layers that project its features, a language model; the built-in `demo` is one too."""

from jaxtyping import Float
from torch import Tensor

from inf_stream.models.chunk import VisualTokens
from inf_stream.models.families.nested import WithTextFamily
from inf_stream.models.families.vision import SquareFrames, VisionAdapter, per_frame, without_axes
from inf_stream.models.weights.loaded import LoadedWeights


class LlavaVision(SquareFrames):
    """Every patch of the square is a visual token."""

    def tokens(self, width: int, height: int) -> int:
        """The patches, and the tower's class token where the checkpoint keeps it."""
        whole = self.weights.config.vision_feature_select_strategy == "full"
        return self.patches**2 + int(whole and self.weights.config.vision_config.model_type in _WITH_CLASS_TOKEN)

    def wrapping(self) -> tuple[str, str]:
        """Nothing before; each picture ends its line."""
        return "", "\n"

    def _encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> list[VisualTokens]:
        found = self.weights.model.model.get_image_features(pixels, return_dict=True)
        return without_axes(per_frame(found.pooler_output, len(pixels)))


_WITH_CLASS_TOKEN = ("clip_vision_model",)


class Llava(WithTextFamily):
    """LLaVA 1.5 and models of its shape."""

    model_types = ("llava",)
    title = "LLaVA"

    def vision(self, weights: LoadedWeights, frame_tokens: int | None = None) -> VisionAdapter:
        """Frames as images."""
        return LlavaVision(weights, frame_tokens)
