"""Blocks in INT8: the error has a bound, the rings keep the newest, and disk and memory hold the same."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.toy_stream import toy_layout
from torch import Tensor

from inf_stream.base.errors import ConfigError
from inf_stream.cache.archive.store import BlockShape, BlockStore, reserve

LAYOUT = toy_layout(layers=3, dtype=torch.float32)
SHAPE = BlockShape(layers=3, kv_heads=2, tokens=5, head_dim=8)


def blocks(count: int, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    size = (count, SHAPE.layers, SHAPE.kv_heads, SHAPE.tokens, SHAPE.head_dim)
    spread = torch.rand(SHAPE.head_dim, generator=random) * 20
    return torch.randn(size, generator=random) * spread, torch.randn(size, generator=random)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_each_channel_comes_back_within_half_a_step(dtype: torch.dtype) -> None:
    layout = toy_layout(layers=3, dtype=dtype)
    store = BlockStore(layout, SHAPE, 8, 0, None)
    keys, values = (x.to(dtype) for x in blocks(6, 0))
    store.write(keys, values)
    for layer in range(3):
        for told, given_ in zip(store.read(layer, torch.arange(6)), (keys, values), strict=True):
            assert told.dtype == dtype
            expected = given_[:, layer].permute(1, 0, 2, 3)
            back = told.view(2, 6, 5, 8)
            step = expected.abs().amax(2, keepdim=True).double() / 127
            rounding = 0.005 * expected.abs().double() if dtype is torch.bfloat16 else 0
            assert bool(((back.double() - expected.double()).abs() <= 0.51 * step + rounding).all())


def test_zeros_and_extremes_stay_finite() -> None:
    store = BlockStore(LAYOUT, SHAPE, 2, 0, None)
    keys, values = torch.zeros(1, 3, 2, 5, 8), torch.full((1, 3, 2, 5, 8), 1e-9)
    values[0, 0, 0, 0, 0] = 60_000.0
    store.write(keys, values)
    told_keys, told_values = store.read(0, torch.tensor([0]))
    assert bool((told_keys == 0).all())
    assert bool(told_values.isfinite().all())
    assert told_values[0, 0, 0] == pytest.approx(60_000, rel=1e-3)


@given(st.lists(st.integers(1, 6), max_size=12), st.integers(1, 4), st.integers(0, 5))
def test_disk_and_memory_hold_what_memory_alone_would(writes: list[int], host: int, disk: int) -> None:
    space = reserve(SHAPE.bytes * disk, None) if disk else None
    split = BlockStore(LAYOUT, SHAPE, host, disk, space)
    whole = BlockStore(LAYOUT, SHAPE, 100, 0, None)
    for seed, count in enumerate(writes):
        keys, values = blocks(count, seed)
        split.write(keys, values)
        whole.write(keys, values)
    assert split.written == whole.written == sum(writes)
    assert split.oldest == max(0, sum(writes) - host - disk)
    numbers = torch.arange(split.oldest, split.written)
    numbers = numbers[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(1))]
    for layer in range(3):
        for one, other in zip(split.read(layer, numbers), whole.read(layer, numbers), strict=True):
            assert torch.equal(one, other)
    again = BlockStore(LAYOUT, SHAPE, host, disk, reserve(SHAPE.bytes * disk, None) if disk else None)
    again.count(split.written)
    for (name, ring), (same, content) in zip(again.filled().items(), split.filled().items(), strict=True):
        assert name == same
        ring.copy_(content)
    for one, other in zip(again.read(1, numbers), whole.read(1, numbers), strict=True):
        assert torch.equal(one, other)


def test_what_was_overwritten_cannot_be_read() -> None:
    store = BlockStore(LAYOUT, SHAPE, 2, 1, reserve(SHAPE.bytes, None))
    store.write(*blocks(5, 0))
    with pytest.raises(AssertionError, match="still there"):
        store.read(0, torch.tensor([1]))


def test_the_file_has_no_name_and_goes_with_the_store(tmp_path: Path) -> None:
    store = BlockStore(LAYOUT, SHAPE, 1, 3, reserve(3 * SHAPE.bytes, tmp_path))
    assert list(tmp_path.iterdir()) == []
    store.write(*blocks(4, 0))
    assert store.read(0, torch.tensor([0]))[0].shape == (2, 5, 8)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"archive of \d+ bytes cannot be kept in .*archive\.folder"):
        reserve(1000, tmp_path / "missing")


def test_a_disk_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be kept .*lower archive\.disk_mib"):
        reserve(1 << 60, tmp_path)
    assert list(tmp_path.iterdir()) == []
