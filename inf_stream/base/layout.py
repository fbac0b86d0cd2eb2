"""The shape of a model's keys and values: all that the cache needs to know of a model."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class CacheLayout:
    """Sizes of one model's key/value cache.

    Attributes:
        layers: attention layers.
        query_heads: query heads per layer.
        kv_heads: key/value heads per layer; divides `query_heads`.
        head_dim: numbers per head.
        sliding_windows: per layer, how many latest tokens it can see (itself included), or None for all.
        table_of_layer: per layer, which of the model's rotation tables it uses (most models have one).
        segmented: positions have three axes (M-RoPE) and move by segment, instead of one axis and by rank.
        bidirectional_frames: the visual tokens of one frame see each other in both directions.
        dtype: number format of keys and values.
        device: where they live.
    """

    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    sliding_windows: tuple[int | None, ...]
    table_of_layer: tuple[int, ...]
    segmented: bool
    bidirectional_frames: bool
    dtype: torch.dtype
    device: torch.device

    def __post_init__(self) -> None:
        assert self.query_heads % self.kv_heads == 0, "query heads come in equal groups per key/value head"
        assert len(self.sliding_windows) == len(self.table_of_layer) == self.layers, "one entry per layer"

    @property
    def axes(self) -> int:
        """Position axes: 3 (time, height, width) for M-RoPE, else 1."""
        return 3 if self.segmented else 1

    def bytes_per_token(self) -> int:
        """Cache bytes of one token over all layers: raw keys, values and rotated keys."""
        return 3 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize
