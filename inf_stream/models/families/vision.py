"""Frames on their way into a model: pixel values, sizes, and the text around them; what all vision families share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from inf_stream.base.clock import format_clock, seconds
from inf_stream.base.errors import ConfigError, ModelError
from inf_stream.models.chunk import VisualTokens
from inf_stream.models.weights.loaded import LoadedWeights


@dataclass(frozen=True, slots=True)
class PixelScaling:
    """Pixel values of 0 to 255 as the encoder was trained on: ``(value * factor - mean) / std`` per channel."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def read(processor: Mapping[str, Any]) -> "PixelScaling":
        """From the model's image processor configuration (`preprocessor_config.json`).

        Raises:
            ModelError: it asks for normalisation and gives no mean or standard deviation per channel.
        """
        factor = float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 1.0
        if not processor.get("do_normalize", True):
            return PixelScaling(factor, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        mean, std = (_channels(processor.get(key), key) for key in ("image_mean", "image_std"))
        return PixelScaling(factor, mean, std)

    def __call__(
        self, pixels: UInt8[Tensor, "frames height width 3"], dtype: torch.dtype
    ) -> Float[Tensor, "frames 3 height width"]:
        """Scaled in float32, on the device of `pixels`, then given as `dtype`."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return ((pixels.permute(0, 3, 1, 2).float() * self.factor - mean) / std).to(dtype)


class VisionAdapter(ABC):
    """Turns frames into what the language model reads in their place.

    `frame_tokens` is the most visual tokens a frame may take; None leaves it to the family. Families that take
    every frame at one size have no choice and refuse less than that.

    Raises:
        ModelError: the checkpoint lacks its image processor configuration or a special token.
        ConfigError: `frame_tokens` is less than the family can do with.
    """

    time_format: ClassVar[str] = "[{clock}] "
    """Text before each frame in the form the family was trained on, or a plain one where it was trained on none.

    A checkpoint trained on another one says so as `time_format` in its image processor configuration."""

    after_frames: ClassVar[str] = ""
    """Text between the last frame of a turn and the words that follow it, where the family was trained on one."""

    def __init__(self, weights: LoadedWeights, frame_tokens: int | None = None):
        if frame_tokens is not None and frame_tokens < 1:
            raise ConfigError(f"frame_tokens is {frame_tokens}; the least allowed is 1")
        self.weights = weights
        processor = weights.image_processor or weights.video_processor
        if processor is None:
            raise ModelError("the model sees, but its folder has no preprocessor_config.json; download the model again")
        self.processor: Mapping[str, Any] = processor
        self._scaling = PixelScaling.read(processor)

    @abstractmethod
    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels at which the encoder takes a picture of this size."""

    @abstractmethod
    def tokens(self, width: int, height: int) -> int:
        """Visual tokens of a picture of this size brought to `frame_size`, without the text around it."""

    @abstractmethod
    def wrapping(self) -> tuple[str, str]:
        """Text right before and right after a frame's visual tokens, as the model expects it."""

    @torch.inference_mode()
    def encode(self, pixels: UInt8[Tensor, "frames height width 3"]) -> list[VisualTokens]:
        """Encode frames of `frame_size`, RGB, all of one size; each frame for itself."""
        model = self.weights.model
        return self._encode(self._scaling(pixels.to(model.device), model.dtype))

    @abstractmethod
    def _encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> list[VisualTokens]:
        """Encode scaled frames on the model's device and in its number format."""

    def time_text(self, time_format: str, at_ns: int, number: int) -> str:
        """Text that tells the model a frame's stream time, e.g. ``[12:30] ``.

        `time_format` may use ``{clock}``, ``{seconds}`` and ``{number}`` (from 1 on); ``auto`` takes the
        family's form, ``none`` gives no text.

        Raises:
            ConfigError: it uses something else.
        """
        if time_format == "none":
            return ""
        chosen = str(self.processor.get("time_format", self.time_format)) if time_format == "auto" else time_format
        if re.search(r"[0-9]{4}[^{}]*}", chosen):
            raise ConfigError(f"model.time_format is '{chosen}'; widths up to 999 are understood")
        try:
            return chosen.format(clock=format_clock(at_ns), seconds=seconds(at_ns), number=number + 1)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"model.time_format is '{chosen}', which is not understood ({error}); "
                "it may use {clock}, {seconds} and {number}"
            ) from error

    def _require_tokens(self, *tokens: str) -> None:
        for token in tokens:
            if len(self.weights.tokenizer(token, add_special_tokens=False)["input_ids"]) != 1:
                raise ModelError(
                    f"the model's tokenizer has no token '{token}', which must stand beside every frame; "
                    "download the model again, with its tokenizer.json"
                )


class SquareFrames(VisionAdapter):
    """Base of families that bring every frame, whatever its shape, to one square and to one number of tokens."""

    def __init__(self, weights: LoadedWeights, frame_tokens: int | None = None):
        super().__init__(weights, frame_tokens)
        vision = weights.config.vision_config
        self.edge = single(vision.image_size)
        self.patches = self.edge // single(vision.patch_size)
        needed = self.tokens(self.edge, self.edge)
        if frame_tokens is not None and frame_tokens < needed:
            raise ConfigError(
                f"frame_tokens is {frame_tokens}, but a frame of this model always takes {needed}; "
                "leave it out, or choose a model whose frames vary in size (Qwen-VL)"
            )

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """The square, for every picture."""
        return self.edge, self.edge


def single(value: int | Sequence[int]) -> int:
    """The one number that some configurations write as a pair of equal ones."""
    return value if isinstance(value, int) else int(value[0])


def per_frame(features: Tensor | Sequence[Tensor], frames: int) -> list[Tensor]:
    """Features of equally large frames, ``[tokens, width]`` each.

    Releases of transformers give them as one tensor, flat or with a frame axis, or as a sequence of one per frame.
    """
    joined = features if isinstance(features, Tensor) else torch.cat(tuple(features))
    return list(joined.reshape(frames, -1, joined.shape[-1]).unbind(0))


def without_axes(features: Sequence[Float[Tensor, "tokens width"]]) -> list[VisualTokens]:
    """Visual tokens of models whose positions have no height and width."""
    return [VisualTokens(one, torch.zeros(3, len(one), dtype=torch.int64)) for one in features]


def grid_offsets(rows: int, columns: int) -> Int[Tensor, "3 tokens"]:
    """(time, height, width) of the tokens of a picture in reading order."""
    height, width = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack((torch.zeros_like(height).flatten(), height.flatten(), width.flatten()))


def _channels(value: Any, key: str) -> tuple[float, ...]:
    if isinstance(value, (list, tuple)) and len(value) == 3:
        return tuple(float(v) for v in value)
    raise ModelError(f"the model's preprocessor_config.json has {key} = {value!r}; three numbers are expected")
