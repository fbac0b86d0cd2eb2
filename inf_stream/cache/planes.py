"""The tensors of the cache: raw keys, values and rotated keys, allocated once.

Keys are kept unrotated and rotated afresh from them after each eviction: turning stored keys again and again drifts
in 16-bit formats, a fresh rotation has one rounding for ever.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import Table, rotate


class KeyValuePlanes:
    """Raw keys, values and rotated keys, each ``[layers, kv_heads, capacity, head_dim]``."""

    def __init__(self, layout: CacheLayout, capacity: int):
        shape = (layout.layers, layout.kv_heads, capacity, layout.head_dim)
        self.raw_keys = torch.zeros(shape, dtype=layout.dtype, device=layout.device)
        self.values = torch.zeros_like(self.raw_keys)
        self.rotated_keys = torch.zeros_like(self.raw_keys)

    @property
    def capacity(self) -> int:
        """Slots of each row."""
        return self.raw_keys.shape[2]

    def write(
        self,
        layer: int,
        start: int,
        raw_keys: Float[Tensor, "kv_heads tokens head_dim"],
        rotated_keys: Float[Tensor, "kv_heads tokens head_dim"],
        values: Float[Tensor, "kv_heads tokens head_dim"],
    ) -> None:
        """Store new tokens of one layer from slot `start` on."""
        stop = start + raw_keys.shape[1]
        self.raw_keys[layer, :, start:stop] = raw_keys
        self.rotated_keys[layer, :, start:stop] = rotated_keys
        self.values[layer, :, start:stop] = values

    def compact(self, layer: int, keep: Int[Tensor, "rows kept"]) -> None:
        """Move the kept slots of one layer, in rising order, to the front; rotated keys are stale until `rebuild`."""
        kept = keep.shape[-1]
        for plane in (self.raw_keys[layer], self.values[layer]):
            if keep.shape[0] == 1:
                plane[:, :kept] = plane.index_select(1, keep[0])
            else:
                for head, places in zip(plane, keep, strict=True):
                    head[:kept] = head.index_select(0, places)

    def move(self, start: int, to: int, tokens: int) -> None:
        """Copy so many slots of every layer from `start` on to `to`, rotated keys as they are."""
        for plane in (self.raw_keys, self.values, self.rotated_keys):
            plane[:, :, to : to + tokens] = plane[:, :, start : start + tokens].clone()

    def rebuild(self, layer: int, used: int, table: Table) -> None:
        """Rotate the raw keys of one layer's used slots afresh; `table` is ``[rows, used, rotary_dim]``."""
        rotate(self.raw_keys[layer, :, :used], table, out=self.rotated_keys[layer, :, :used])

    def grow(self, capacity: int) -> None:
        """Reallocate with more slots; only an unbounded policy needs it."""
        extra = (0, 0, 0, capacity - self.capacity)
        self.raw_keys = torch.nn.functional.pad(self.raw_keys, extra)
        self.values = torch.nn.functional.pad(self.values, extra)
        self.rotated_keys = torch.nn.functional.pad(self.rotated_keys, extra)

    def bytes(self) -> int:
        """Memory of the three planes."""
        return self.raw_keys.nbytes + self.values.nbytes + self.rotated_keys.nbytes
