"""Pieces of the stream on their way into the language model: embeddings with their tags."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.base.tokens import TokenTags


@dataclass(frozen=True, slots=True)
class VisualTokens:
    """One encoded frame.

    Attributes:
        embeds: what takes the place of the image placeholders in the language model's input.
        offsets: (time, height, width) of each token inside the frame; zeros where the model has no such axes.
        deepstack: features added to the hidden states of the first layers (Qwen3-VL), if the model has them.
    """

    embeds: Float[Tensor, "tokens width"]
    offsets: Int[Tensor, "3 tokens"]
    deepstack: Float[Tensor, "levels tokens width"] | None = None

    def __len__(self) -> int:
        return self.embeds.shape[0]


@dataclass(frozen=True, slots=True)
class Chunk:
    """New tokens for the language model, in stream order.

    `deepstack` covers the tokens whose tag `visual` is set, in order.
    """

    embeds: Float[Tensor, "tokens width"]
    tags: TokenTags
    deepstack: Float[Tensor, "levels visual width"] | None = None

    def __len__(self) -> int:
        return self.embeds.shape[0]

    def slice(self, start: int, stop: int) -> "Chunk":
        """The tokens [start, stop)."""
        deepstack = self.deepstack
        if deepstack is not None:
            before = int(self.tags.visual[:start].sum())
            inside = int(self.tags.visual[start:stop].sum())
            deepstack = deepstack[:, before : before + inside]
        return Chunk(self.embeds[start:stop], self.tags.slice(start, stop), deepstack)

    @staticmethod
    def concatenate(parts: "list[Chunk]") -> "Chunk":
        """Several chunks in a row."""
        deepstacks = [p.deepstack for p in parts if p.deepstack is not None]
        return Chunk(
            torch.cat([p.embeds for p in parts]),
            TokenTags.concatenate([p.tags for p in parts]),
            torch.cat(deepstacks, dim=1) if deepstacks else None,
        )
