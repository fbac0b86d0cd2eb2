"""Frames brought to the size the encoder takes, where the source has not done so already."""

from collections.abc import Callable

import cv2
import torch
from jaxtyping import UInt8
from torch import Tensor

from inf_stream.base.events import Pixels


def fit_pixels(
    pixels: Pixels, frame_size: Callable[[int, int], tuple[int, int]]
) -> UInt8[Tensor, "new_height new_width 3"]:
    """The picture at the encoder's size: as it is if it fits, else resized by area averaging or cubic interpolation."""
    height, width = pixels.shape[:2]
    wanted = frame_size(width, height)
    if wanted != (width, height):
        shrinks = wanted[0] * wanted[1] < width * height
        pixels = cv2.resize(pixels, wanted, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return torch.from_numpy(pixels.copy() if not pixels.flags.writeable else pixels)
