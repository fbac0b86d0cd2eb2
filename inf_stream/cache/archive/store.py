"""Keys and values of archived blocks in INT8: a ring in host memory, and behind it a ring on disk.

Each channel of a block has a scale of its own, for keys and for values (channels of keys differ in size by far more
than tokens do; KIVI, arXiv 2402.02750). Blocks are numbered as they are written; the newest are in memory, the ones
before them on disk, and what is older than both is forgotten. The disk's part is an unnamed file: it is gone when the
program ends, however it ends, and nobody else can open it.
"""

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.base.errors import ConfigError
from inf_stream.base.layout import CacheLayout

_LEVELS = 127


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Sizes of one block."""

    layers: int
    kv_heads: int
    tokens: int
    head_dim: int

    @property
    def codes(self) -> tuple[int, ...]:
        """Of its keys and values."""
        return (self.layers, 2, self.kv_heads, self.tokens, self.head_dim)

    @property
    def scales(self) -> tuple[int, ...]:
        """Of what they are multiplied with."""
        return (self.layers, 2, self.kv_heads, self.head_dim)

    @property
    def bytes(self) -> int:
        """Codes and scales together."""
        scales = self.layers * 2 * self.kv_heads * self.head_dim
        return scales * self.tokens + scales * torch.float16.itemsize


class BlockStore:
    """The two rings; `space` is the disk's, large enough for its blocks."""

    def __init__(
        self, layout: CacheLayout, shape: BlockShape, host_blocks: int, disk_blocks: int, space: mmap.mmap | None
    ):
        self.shape, self.host_blocks, self.disk_blocks = shape, host_blocks, disk_blocks
        self._layout = layout
        pinned = layout.device.type == "cuda"
        self._host = (
            torch.empty(host_blocks, *shape.codes, dtype=torch.int8, pin_memory=pinned),
            torch.empty(host_blocks, *shape.scales, dtype=torch.float16, pin_memory=pinned),
        )
        self._disk: tuple[Tensor, Tensor] | None = None
        if disk_blocks:
            assert space is not None, "blocks on disk need some"
            codes = torch.Size((disk_blocks, *shape.codes))
            scales = torch.Size((disk_blocks, *shape.scales))
            start = codes.numel() + codes.numel() % torch.float16.itemsize
            self._disk = (
                torch.frombuffer(space, dtype=torch.int8, count=codes.numel()).view(codes),
                torch.frombuffer(space, dtype=torch.float16, count=scales.numel(), offset=start).view(scales),
            )
        self.written = 0

    @property
    def capacity(self) -> int:
        """Blocks of both rings."""
        return self.host_blocks + self.disk_blocks

    @property
    def oldest(self) -> int:
        """Number of the oldest block that is still there."""
        return max(0, self.written - self.capacity)

    def write(
        self,
        keys: Float[Tensor, "blocks layers kv_heads tokens head_dim"],
        values: Float[Tensor, "blocks layers kv_heads tokens head_dim"],
    ) -> None:
        """Append blocks; the oldest make room."""
        both = torch.stack((keys, values), dim=2)
        scales = (both.float().abs().amax(-2) / _LEVELS).to(torch.float16).clamp_(min=2**-24)
        codes = (both.float() / scales.float().unsqueeze(-2)).round_().clamp_(-_LEVELS, _LEVELS).to(torch.int8)
        for one in range(len(codes)):
            place = self.written % self.host_blocks
            if self._disk is not None and self.written >= self.host_blocks:
                below = (self.written - self.host_blocks) % self.disk_blocks
                for disk, host in zip(self._disk, self._host, strict=True):
                    disk[below] = host[place]
            self._host[0][place] = codes[one]
            self._host[1][place] = scales[one]
            self.written += 1

    def read(
        self, layer: int, numbers: Int[Tensor, "blocks"]
    ) -> tuple[Float[Tensor, "kv_heads slots head_dim"], Float[Tensor, "kv_heads slots head_dim"]]:
        """Keys and values of one layer of these blocks, side by side, in the cache's format and on its device."""
        keys, values = self._decode(layer, numbers, slice(0, 2))
        return keys, values

    def keys(self, layer: int, numbers: Int[Tensor, "blocks"]) -> Float[Tensor, "kv_heads slots head_dim"]:
        """The keys of `read` alone."""
        return self._decode(layer, numbers, slice(0, 1))[0]

    def _decode(
        self, layer: int, numbers: Int[Tensor, "blocks"], which: slice
    ) -> Float[Tensor, "planes kv_heads slots head_dim"]:
        assert bool((numbers >= self.oldest).all()), "these blocks are still there"
        codes, scales = self._gather(layer, numbers, which)
        layout = self._layout
        codes, scales = codes.to(layout.device, non_blocking=True), scales.to(layout.device, non_blocking=True)
        # Put side by side while they are converted: one copy less.
        across = codes.permute(1, 2, 0, 3, 4).to(layout.dtype, memory_format=torch.contiguous_format)
        return across.mul_(scales.to(layout.dtype).permute(1, 2, 0, 3).unsqueeze(-2)).flatten(2, 3)

    def _gather(self, layer: int, numbers: Tensor, which: slice) -> tuple[Tensor, Tensor]:
        places = numbers % self.host_blocks
        if self._disk is None:
            codes, scales = (ring[:, layer, which].index_select(0, places) for ring in self._host)
            return codes, scales
        on_disk = numbers < self.written - self.host_blocks
        below = numbers[on_disk] % self.disk_blocks
        found = []
        for host, disk in zip(self._host, self._disk, strict=True):
            host, disk = host[:, layer, which], disk[:, layer, which]
            rows = torch.empty(len(numbers), *host.shape[1:], dtype=host.dtype)
            rows[~on_disk] = host.index_select(0, places[~on_disk])
            rows[on_disk] = disk.index_select(0, below)
            found.append(rows)
        return found[0], found[1]

    def filled(self) -> dict[str, Tensor]:
        """What is in the rings, as it lies there; valid until the next `write`."""
        host, disk = min(self.written, self.host_blocks), min(max(0, self.written - self.host_blocks), self.disk_blocks)
        rings = {"host_codes": self._host[0][:host], "host_scales": self._host[1][:host]}
        if self._disk is not None:
            rings |= {"disk_codes": self._disk[0][:disk], "disk_scales": self._disk[1][:disk]}
        return rings

    def count(self, written: int) -> None:
        """So many blocks have been written; their content comes by way of `filled`."""
        self.written = written


def reserve(size_bytes: int, folder: Path | None) -> mmap.mmap:
    """So much disk, as memory whose file has no name.

    Raises:
        ConfigError: it is not there.
    """
    try:
        handle, name = tempfile.mkstemp(prefix="inf-stream-archive-", dir=folder)
        try:
            _reserve(handle, size_bytes)
            return mmap.mmap(handle, size_bytes)
        finally:
            os.close(handle)
            Path(name).unlink()
    except (OSError, ValueError, OverflowError) as error:
        where = folder or tempfile.gettempdir()
        raise ConfigError(
            f"archive of {size_bytes} bytes cannot be kept in '{where}': {getattr(error, 'strerror', None) or error}; "
            "name another folder as archive.folder, or lower archive.disk_mib"
        ) from error


def _reserve(handle: int, size_bytes: int) -> None:
    """Take the disk's space now, where the system can, rather than fail when it is written to."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size_bytes)
    else:
        os.ftruncate(handle, size_bytes)
