"""EfficientNet-Lite as a vision tower: a picture becomes a grid of tokens that keep what two depths saw in each cell.

The network is that of Tan and Le, 2019 (arXiv 1905.11946) in the Lite variant of the TensorFlow authors: no squeeze
and excitation, ReLU6 throughout. Batch normalisation is folded into the convolutions, so a block is three of them. For
every cell of the grid, all positions of the tapped feature maps that lie in it are laid side by side: nothing is
averaged away, which is what counting and telling left from right need.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class EfficientNetLiteConfig(PreTrainedConfig):  # type: ignore[misc]
    """What a tower consists of.

    Attributes:
        image_size: edge of the square picture, in pixels.
        patch_size: edge of the cell that becomes one token, in pixels.
        stem_channels: of the first convolution.
        blocks: per inverted residual block: expansion, kernel size, stride, channels of its output.
        taps: indices of the blocks whose outputs make up the tokens.
        hidden_size: numbers a token; follows from the rest.
    """

    model_type = "efficientnet_lite"
    base_config_key = "vision_config"

    def __init__(
        self,
        image_size: int = 256,
        patch_size: int = 64,
        stem_channels: int = 32,
        blocks: Sequence[Sequence[int]] = (),
        taps: Sequence[int] = (),
        **kwargs: Any,
    ):
        self.image_size, self.patch_size, self.stem_channels = image_size, patch_size, stem_channels
        self.blocks, self.taps = [list(block) for block in blocks], list(taps)
        kwargs["hidden_size"] = sum(self.blocks[t][3] * (patch_size // self.stride(t)) ** 2 for t in self.taps)
        super().__init__(**kwargs)

    def stride(self, block: int) -> int:
        """Pixels from one position of a block's output to the next."""
        stride = 2
        for _, _, step, _ in self.blocks[: block + 1]:
            stride *= step
        return stride


class SameConv(nn.Conv2d):
    """A convolution whose output has ``ceil(size / stride)`` positions, padded as TensorFlow pads: more at the end."""

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d y x"]:
        """Pad and convolve."""
        pads = [
            max((-(-size // step) - 1) * step + kernel - size, 0)
            for size, step, kernel in zip(pixels.shape[2:], self.stride, self.kernel_size, strict=True)
        ]
        top, left = (p // 2 for p in pads)
        if pads[0] == 2 * top and pads[1] == 2 * left:
            return F.conv2d(pixels, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        padded = F.pad(pixels, (left, pads[1] - left, top, pads[0] - top))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class InvertedResidual(nn.Module):
    """Widen, look around in every channel for itself, narrow; added to the input where the shapes allow."""

    def __init__(self, channels: int, expansion: int, kernel: int, stride: int, out_channels: int):
        super().__init__()
        wide = channels * expansion
        self.expand = nn.Conv2d(channels, wide, 1) if expansion > 1 else None
        self.depthwise = SameConv(wide, wide, kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, out_channels, 1)
        self.residual = stride == 1 and channels == out_channels

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d y x"]:
        """One block."""
        wide = features if self.expand is None else F.relu6(self.expand(features))
        out: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return out + features if self.residual else out


class EfficientNetLite(PreTrainedModel):  # type: ignore[misc]
    """Pixels to tokens in reading order."""

    config_class = EfficientNetLiteConfig
    base_model_prefix = "vision_tower"
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("InvertedResidual",)

    def __init__(self, config: EfficientNetLiteConfig):
        super().__init__(config)
        self.stem = SameConv(3, config.stem_channels, 3, 2)
        widths = [config.stem_channels, *(b[3] for b in config.blocks)]
        self.blocks = nn.ModuleList(
            InvertedResidual(width, *block) for width, block in zip(widths, config.blocks, strict=False)
        )
        self.norm = nn.LayerNorm(config.hidden_size)
        self.position = nn.Parameter(torch.zeros((config.image_size // config.patch_size) ** 2, config.hidden_size))
        self.post_init()

    def forward(self, pixel_values: Float[Tensor, "n 3 h w"], **_: Any) -> BaseModelOutput:
        """Tokens of pictures of `image_size`: ``[pictures, cells, hidden_size]``, as the last and only hidden state."""
        tokens = self.tokens(self.maps(pixel_values))
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))

    def maps(
        self, features: Float[Tensor, "n c h w"], first: int = 0, upto: int | None = None
    ) -> list[Float[Tensor, "n _c _h _w"]]:
        """Outputs of the tapped blocks among `first` to `upto`; from pixels if `first` is 0, else from its input."""
        if first == 0:
            features = F.relu6(self.stem(features))
        found = []
        for index, block in enumerate(self.blocks[first:upto], first):
            features = block(features)
            if index in self.config.taps:
                found.append(features)
        return found

    def tokens(self, maps: Sequence[Float[Tensor, "n _c _h _w"]]) -> Float[Tensor, "n cells hidden"]:
        """Tapped maps, cell by cell, scaled, with each cell's place added."""
        cells = self.config.image_size // self.config.patch_size
        parts = [F.pixel_unshuffle(one, one.shape[-1] // cells).flatten(2).transpose(1, 2) for one in maps]
        return self.norm(torch.cat(parts, dim=-1)) + self.position  # type: ignore[no-any-return]


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLite, exist_ok=True)
