"""The vision tower of our own, against a straightforward writing of the same network."""

import pytest
import torch
from support.tiny_models import LITE_TOWER
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from inf_stream.models.towers import EfficientNetLite, EfficientNetLiteConfig
from inf_stream.models.towers.efficientnet_lite import SameConv


def tower(**changes: object) -> EfficientNetLite:
    torch.manual_seed(0)
    fields = {k: v for k, v in LITE_TOWER.items() if k != "model_type"} | changes
    made = EfficientNetLite(EfficientNetLiteConfig(**fields)).eval()
    for parameter in made.parameters():
        parameter.data.normal_(std=0.3)
    return made


def padded(features: Tensor, conv: SameConv) -> Tensor:
    """Convolution after padding to ceil(size / stride) positions, the odd one at the end."""
    size, (kernel, stride) = features.shape[-1], (conv.kernel_size[0], conv.stride[0])
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    features = F.pad(features, (total // 2, total - total // 2) * 2)
    return F.conv2d(features, conv.weight, conv.bias, stride, groups=conv.groups)


def slowly(model: EfficientNetLite, pixels: Tensor) -> Tensor:
    features = padded(pixels, model.stem).clamp(0, 6)
    cells = model.config.image_size // model.config.patch_size
    found: list[list[Tensor]] = [[] for _ in range(cells**2)]
    for index, block in enumerate(model.blocks):
        before = features
        if block.expand is not None:
            features = F.conv2d(features, block.expand.weight, block.expand.bias).clamp(0, 6)
        features = padded(features, block.depthwise).clamp(0, 6)
        features = F.conv2d(features, block.project.weight, block.project.bias)
        if features.shape == before.shape:
            features = features + before
        if index in model.config.taps:
            edge = features.shape[-1] // cells
            for cell in range(cells**2):
                y, x = divmod(cell, cells)
                patch = features[:, :, y * edge : (y + 1) * edge, x * edge : (x + 1) * edge]
                found[cell].append(patch.flatten(1))
    tokens = torch.stack([torch.cat(parts, dim=1) for parts in found], dim=1)
    return F.layer_norm(tokens, tokens.shape[-1:], model.norm.weight, model.norm.bias) + model.position


def test_tokens_are_those_of_the_network_written_out() -> None:
    model = tower()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        out = model(pixels)
        expected = slowly(model, pixels)
    assert out.last_hidden_state.shape == (2, 16, model.config.hidden_size)
    assert out.hidden_states[-1] is out.last_hidden_state
    torch.testing.assert_close(out.last_hidden_state, expected, rtol=1e-5, atol=1e-5)


def test_the_upper_part_goes_on_from_the_maps_of_the_lower() -> None:
    model = tower()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        (lower,) = model.maps(pixels, upto=2)
        whole = model.maps(pixels)
        upper = model.maps(lower, first=2)
    assert torch.equal(lower, whole[0])
    torch.testing.assert_close(upper[0], whole[1])


@pytest.mark.parametrize(
    ("kernel", "stride", "size"), [(3, 1, 7), (3, 2, 8), (3, 2, 7), (5, 2, 8), (5, 1, 6), (5, 2, 9)]
)
def test_convolutions_are_padded_as_tensorflow_pads(kernel: int, stride: int, size: int) -> None:
    conv = SameConv(2, 3, kernel, stride)
    pixels = torch.randn(1, 2, size, size)
    out = conv(pixels)
    assert out.shape[-1] == -(-size // stride)
    torch.testing.assert_close(out, padded(pixels, conv))


def test_width_and_strides_follow_from_the_blocks() -> None:
    config = tower().config
    assert [config.stride(i) for i in range(4)] == [2, 4, 8, 8]
    assert config.hidden_size == 8 * (8 // 4) ** 2 + 16 * (8 // 8) ** 2


def test_transformers_finds_it(tmp_path) -> None:
    model = tower()
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), EfficientNetLiteConfig)
    again = AutoModel.from_pretrained(tmp_path).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(pixels).last_hidden_state, model(pixels).last_hidden_state)
