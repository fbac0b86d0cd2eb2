"""Attention by two products against the fused kernel, and both against float64 written out."""

import pytest
import torch

from inf_stream.cache import attend as module
from inf_stream.cache.attend import attend, attend_by_products, chunk_mask

HEADS, GROUP, DIM, SCALING = 2, 3, 16, 0.25


def inputs(tokens: int, slots: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(tokens + slots)
    queries = 2 * torch.randn(HEADS * GROUP, tokens, DIM, generator=random)
    keys, values = (torch.randn(HEADS, slots, DIM, generator=random) for _ in range(2))
    return queries.to(dtype), keys.to(dtype), values.to(dtype)


def written_out(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What every token sees, and what every slot of each key/value head received of them all."""
    tokens, slots = queries.shape[1], keys.shape[1]
    out, received = torch.zeros(queries.shape, dtype=torch.float64), torch.zeros(HEADS, slots, dtype=torch.float64)
    for head in range(len(queries)):
        for token in range(tokens):
            seen = slice(0, start + token + 1)
            own = head // GROUP
            weights = (queries[head, token].double() @ keys[own, seen].double().T * SCALING).softmax(-1)
            out[head, token] = weights @ values[own, seen].double()
            received[own, seen] += weights / GROUP
    return out, received


@pytest.mark.parametrize("most", [32, 64, 256, 4096])
@pytest.mark.parametrize(("tokens", "start"), [(1, 70), (5, 40), (33, 100), (96, 0)])
def test_two_products_say_what_attention_is_and_who_received_it(
    monkeypatch: pytest.MonkeyPatch, tokens: int, start: int, most: int
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", {"cpu": most})
    slots = start + tokens + 9
    queries, keys, values = inputs(tokens, slots, torch.float32)
    mask = chunk_mask(start, tokens, slots, GROUP, None, None, torch.float32, torch.device("cpu"))
    received = torch.zeros(HEADS, slots)
    out = attend_by_products(queries, keys, values, SCALING, mask, received)
    assert torch.equal(out, attend_by_products(queries, keys, values, SCALING, mask))
    expected, expected_received = written_out(queries, keys, values, start)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(received.double(), expected_received, rtol=1e-5, atol=1e-6)
    fused = attend(queries, keys, values, SCALING, mask)
    torch.testing.assert_close(out, fused, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 33])
def test_in_bfloat16_two_products_are_about_as_exact_as_the_fused_kernel(tokens: int) -> None:
    start, slots = 500, 533
    queries, keys, values = inputs(tokens, slots, torch.bfloat16)
    queries *= 4  # a few slots get most of the attention, as in trained models: rounded logits would show
    expected, _ = written_out(queries, keys, values, start)

    def error(out: torch.Tensor) -> float:
        return float((out.double() - expected).norm() / expected.norm())

    masks = [
        chunk_mask(start, tokens, slots, GROUP, None, None, dtype, torch.device("cpu"))
        for dtype in (torch.bfloat16, torch.float32)
    ]
    fused = error(attend(queries, keys, values, SCALING, masks[0]))
    assert error(attend_by_products(queries, keys, values, SCALING, masks[1])) < 1.5 * fused < 0.01


def test_the_way_is_chosen_by_device_and_format() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert module.products_are_faster(1, torch.float32, gpu)
    assert not module.products_are_faster(2, torch.float32, cpu)
    assert not module.products_are_faster(2, torch.bfloat16, gpu)


def test_a_cpu_with_a_unit_for_matrices_takes_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_amx in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has_amx=has_amx: has_amx, raising=False)
        assert module.products_are_faster(2, torch.bfloat16, torch.device("cpu")) is not has_amx
