"""The one door into transformers: an attention function and a mask function under the name `inf_stream`.

The model is run with all `position_ids` at zero, where the stock rotation is the identity, so the function below
receives unrotated queries and keys. Everything that concerns positions, storage and masking is done by the
`AttentionStep` that travels through the forward call as the keyword argument `stream_step`.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

IMPLEMENTATION = "inf_stream"


@runtime_checkable
class AttentionStep(Protocol):
    """One forward pass over new tokens against the stream's cache."""

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "query_heads rows head_dim"],
        keys: Float[Tensor, "kv_heads rows head_dim"],
        values: Float[Tensor, "kv_heads rows head_dim"],
        scaling: float,
    ) -> Float[Tensor, "query_heads rows head_dim"]:
        """Store the new tokens' unrotated keys and their values, and attend over all that is kept.

        Rows behind the step's tokens are padding.
        """
        ...


class StepsTogether:
    """The steps of several streams in one forward pass: each attends with its own rows over its own cache.

    `lengths` are the rows of each, in order; rows behind them all are padding.
    """

    def __init__(self, steps: Sequence[AttentionStep], lengths: Sequence[int]):
        self._steps, self._lengths = steps, list(lengths)

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "query_heads rows head_dim"],
        keys: Float[Tensor, "kv_heads rows head_dim"],
        values: Float[Tensor, "kv_heads rows head_dim"],
        scaling: float,
    ) -> Float[Tensor, "query_heads rows head_dim"]:
        """See `AttentionStep.attend`."""
        out, start = torch.zeros_like(queries), 0
        for step, length in zip(self._steps, self._lengths, strict=True):
            part = slice(start, start + length)
            out[:, part] = step.attend(layer, queries[:, part], keys[:, part], values[:, part], scaling)
            start += length
        return out


def streaming_attention(
    module: nn.Module,
    query: Float[Tensor, "1 query_heads tokens head_dim"],
    key: Float[Tensor, "1 kv_heads tokens head_dim"],
    value: Float[Tensor, "1 kv_heads tokens head_dim"],
    attention_mask: Tensor | None,
    *,
    scaling: float,
    stream_step: AttentionStep,
    **_: Any,
) -> tuple[Float[Tensor, "1 tokens query_heads head_dim"], None]:
    """The registered attention function; `attention_mask` is always None here."""
    assert attention_mask is None, "the registered mask function makes no masks"
    layer = module.layer_idx
    assert isinstance(layer, int), "transformers numbers its attention layers"
    out = stream_step.attend(layer, query[0], key[0], value[0], scaling)
    return out.transpose(0, 1).unsqueeze(0), None


def no_mask(*_: Any, **__: Any) -> None:
    """The registered mask function: the step masks by itself."""


def register() -> None:
    """Make `inf_stream` known to transformers; calling it again changes nothing."""
    AttentionInterface.register(IMPLEMENTATION, streaming_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, no_mask)
