"""What the frozen lower part of the encoder sees, computed once: the tapped map at stride 16 of every picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from captions import Picture
from clips import Clip, render
from encoder import PIXEL_MEAN, PIXEL_STD
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from inf_stream.models.towers import EfficientNetLite

BATCH = 16


def split_block(tower: EfficientNetLite) -> int:
    """Index of the first trainable block: the one behind the first tap."""
    return int(tower.config.taps[0]) + 1


def scaled(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """RGB pictures as the encoder takes them."""
    return (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() - PIXEL_MEAN) / PIXEL_STD


def read_picture(path: Path, edge: int) -> NDArray[np.uint8]:
    """A photograph as the runtime would deliver it: one square, the whole picture in it."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise SystemExit(f"{path} cannot be read; point --data at the folder that holds flickr8k/")
    return cv2.resize(picture, (edge, edge), interpolation=cv2.INTER_LINEAR)


@torch.inference_mode()
def mid_maps(
    tower: EfficientNetLite, pictures: Iterable[NDArray[np.uint8]], total: int, name: str
) -> NDArray[np.float16]:
    """The first tapped map of each picture, ``[pictures, channels, height, width]``."""
    found: list[NDArray[np.float16]] = []
    batch: list[NDArray[np.uint8]] = []
    upto = split_block(tower)
    for number, picture in enumerate(track(pictures, name, total), 1):
        batch.append(picture)
        if len(batch) == BATCH or number == total:
            found.append(tower.maps(scaled(batch), upto=upto)[0].half().numpy())
            batch.clear()
    return np.concatenate(found)


def photo_maps(tower: EfficientNetLite, pictures: Sequence[Picture], cache: Path) -> NDArray[np.float16]:
    """Maps of photographs as they are, then of their mirror images: ``[2, pictures, ...]``."""
    if not cache.exists():
        edge = int(tower.config.image_size)
        read = (read_picture(p.path, edge) for p in pictures)
        mirrored = (read_picture(p.path, edge)[:, ::-1] for p in pictures)
        both = [mid_maps(tower, r, len(pictures), f"{cache.stem} {n}") for n, r in enumerate((read, mirrored), 1)]
        np.save(cache, np.stack(both))
    return np.load(cache, mmap_mode="r")


def clip_maps(tower: EfficientNetLite, seeds: range, cache: Path) -> tuple[list[Clip], list[NDArray[np.float16]]]:
    """Rendered clips and the maps of their frames."""
    clips = [render(np.random.default_rng(seed)) for seed in seeds]
    lengths = [len(c.frames) for c in clips]
    if not cache.exists():
        np.save(cache, mid_maps(tower, (f for c in clips for f in c.frames), sum(lengths), cache.stem))
    maps = np.load(cache, mmap_mode="r")
    for clip in clips:
        clip.frames.clear()
    return clips, [maps[e - n : e] for e, n in zip(np.cumsum(lengths), lengths, strict=True)]
