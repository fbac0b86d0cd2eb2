"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: frames of their own shape, positions of time, height and width (M-RoPE)."""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.models.chunk import VisualTokens
from inf_stream.models.families.base import Family
from inf_stream.models.families.vision import VisionAdapter, grid_offsets, per_frame
from inf_stream.models.weights.loaded import LoadedWeights

DEFAULT_FRAME_TOKENS = 256
"""Keeps a frame of a long stream cheap; the checkpoints' own limit is thousands of tokens."""


class QwenVision(VisionAdapter):
    """A frame keeps its shape, rounded to whole tokens, and shrinks until it has at most `frame_tokens` of them.

    The encoder reads pictures in pairs (`temporal_patch_size` 2); a frame alone is paired with itself, as the
    models' own processors do with a single image.
    """

    def __init__(self, weights: LoadedWeights, frame_tokens: int | None = None):
        super().__init__(weights, frame_tokens)
        self._require_tokens("<|vision_start|>", "<|vision_end|>")
        vision = weights.config.vision_config
        self.patch: int = vision.patch_size
        self.merge: int = vision.spatial_merge_size
        self.repeats: int = vision.temporal_patch_size
        self.token_edge: int = self.patch * self.merge
        area = self.token_edge**2
        least, most = self._pixel_limits()
        self.most_tokens = max(min(most // area, frame_tokens or DEFAULT_FRAME_TOKENS), 1)
        self.least_pixels = min(least, self.most_tokens * area)

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """The nearest size in whole tokens within the limits; as the models' processors round, but never above."""
        edge, most = self.token_edge, self.most_tokens
        columns, rows = max(round(width / edge), 1), max(round(height / edge), 1)
        if columns * rows > most:
            shrink = math.sqrt(width * height / (most * edge**2))
            columns = min(max(math.floor(width / shrink / edge), 1), most)
            rows = min(max(math.floor(height / shrink / edge), 1), most // columns)
        elif columns * rows * edge**2 < self.least_pixels:
            columns, rows = self._enlarged((width, height), (columns * edge, rows * edge))
        return columns * edge, rows * edge

    def _enlarged(self, picture: tuple[int, int], rounded: tuple[int, int]) -> tuple[int, int]:
        """Columns and rows of at least `least_pixels`, or of `rounded` where the limits leave no room between them."""
        edge = self.token_edge
        for width, height in (picture, rounded):
            stretch = math.sqrt(self.least_pixels / (width * height))
            columns, rows = math.ceil(width * stretch / edge), math.ceil(height * stretch / edge)
            if columns * rows <= self.most_tokens:
                return columns, rows
        return rounded[0] // edge, rounded[1] // edge

    def tokens(self, width: int, height: int) -> int:
        """One for each square of `token_edge` pixels."""
        fitted_width, fitted_height = self.frame_size(width, height)
        return fitted_width * fitted_height // self.token_edge**2

    def wrapping(self) -> tuple[str, str]:
        """The vision marks."""
        return "<|vision_start|>", "<|vision_end|>"

    def _encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> list[VisualTokens]:
        frames, _, height, width = pixels.shape
        rows, columns = height // self.patch, width // self.patch
        grid = torch.tensor([[1, rows, columns]] * frames, device=pixels.device)
        found = self.weights.model.model.get_image_features(self._patches(pixels), grid, return_dict=True)
        offsets = grid_offsets(rows // self.merge, columns // self.merge)
        deepstack = self._deepstack(found, frames)
        return [
            VisualTokens(embeds, offsets, deepstack[frame])
            for frame, embeds in enumerate(per_frame(found.pooler_output, frames))
        ]

    def _patches(self, pixels: Float[Tensor, "frames 3 height width"]) -> Float[Tensor, "patches numbers"]:
        """Patches in the order the encoder merges them: token by token, each `merge` by `merge`."""
        frames, channels, height, width = pixels.shape
        edge, merge = self.patch, self.merge
        blocks = pixels.reshape(
            frames, channels, height // edge // merge, merge, edge, width // edge // merge, merge, edge
        )
        blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        return blocks.expand(-1, -1, -1, -1, -1, -1, self.repeats, -1, -1).reshape(
            frames * (height // edge) * (width // edge), -1
        )

    def _deepstack(self, found: Any, frames: int) -> list[Tensor] | list[None]:
        levels = getattr(found, "deepstack_features", None)
        if levels is None:
            return [None] * frames
        split = [per_frame(level, frames) for level in levels]
        return [torch.stack([level[frame] for level in split]) for frame in range(frames)]

    def _pixel_limits(self) -> tuple[int, int]:
        """(least, most) pixels of a picture, under the names that releases of the models have given them."""
        size = self.processor.get("size") or {}
        least = self.processor.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels")
        most = self.processor.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels")
        return int(least or 0), int(most or DEFAULT_FRAME_TOKENS * self.token_edge**2)


class Qwen3Vision(QwenVision):
    """As the earlier ones; trained on frames that carry their time."""

    time_format: ClassVar[str] = "<{seconds:.1f} seconds>"


class Qwen2VL(Family):
    """Qwen2-VL and Qwen2.5-VL."""

    model_types = ("qwen2_vl", "qwen2_5_vl")
    title = "Qwen2-VL, Qwen2.5-VL"
    segmented = True

    def vision(self, weights: LoadedWeights, frame_tokens: int | None = None) -> VisionAdapter:
        """Frames as images of one moment each."""
        return QwenVision(weights, frame_tokens)


class Qwen3VL(Family):
    """Qwen3-VL (dense): QK-norm, and visual features added to the first layers as well (deepstack)."""

    model_types = ("qwen3_vl",)
    title = "Qwen3-VL"
    segmented = True

    def vision(self, weights: LoadedWeights, frame_tokens: int | None = None) -> VisionAdapter:
        """Frames as those of a video, each behind its time."""
        return Qwen3Vision(weights, frame_tokens)
