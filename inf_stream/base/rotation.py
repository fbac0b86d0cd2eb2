"""Rotary position embedding applied to tensors, and what a model provides for it."""

from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Table: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines, each ``[*rows, tokens, rotary_dim]``; `rotary_dim` may be smaller than the head."""


@runtime_checkable
class RotationTables(Protocol):
    """Makes rotation tables for positions, by the model's own rotary embedding."""

    def __call__(self, positions: Int[Tensor, "axes rows tokens"]) -> tuple[Table, ...]:
        """One table per kind of layer (`CacheLayout.table_of_layer`), each ``[rows, tokens, rotary_dim]``."""
        ...


def rotate(
    x: Float[Tensor, "*heads tokens head_dim"], table: Table, out: Tensor | None = None
) -> Float[Tensor, "*heads tokens head_dim"]:
    """Rotate queries or keys, into `out` if it is given; numbers beyond `rotary_dim` pass through (partial rotary).

    Half-split pairing as in GPT-NeoX and Llama; source: RoFormer, arXiv 2104.09864.
    """
    cos, sin = table
    rotary_dim = cos.shape[-1]
    half = rotary_dim // 2
    # A table repeats each angle in its second half, so its first half serves both; written out so that nothing but
    # the result is allocated, since a rebuild of all kept keys goes through here.
    cos, sin = cos[..., :half], sin[..., :half]
    first, second = x[..., :half], x[..., half:rotary_dim]
    turned = torch.empty_like(x) if out is None else out
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned[..., half:rotary_dim]).addcmul_(first, sin)
    turned[..., rotary_dim:] = x[..., rotary_dim:]
    return turned
