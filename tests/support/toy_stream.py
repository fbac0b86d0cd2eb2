"""Random queries, keys and values to drive a cache without a model, and tags for text and frames."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import Table
from inf_stream.base.tokens import NO_FRAME, TokenTags


def toy_layout(
    *,
    layers: int = 2,
    query_heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 8,
    sliding_windows: tuple[int | None, ...] | None = None,
    segmented: bool = False,
    bidirectional_frames: bool = False,
    dtype: torch.dtype = torch.float64,
) -> CacheLayout:
    return CacheLayout(
        layers=layers,
        query_heads=query_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        sliding_windows=sliding_windows or (None,) * layers,
        table_of_layer=(0,) * layers,
        segmented=segmented,
        bidirectional_frames=bidirectional_frames,
        dtype=dtype,
        device=torch.device("cpu"),
    )


class ToyRotation:
    """Rotation tables with one frequency per pair; M-RoPE gives each axis its own third of the pairs."""

    def __init__(self, layout: CacheLayout):
        self.layout = layout

    def __call__(self, positions: Int[Tensor, "axes rows tokens"]) -> tuple[Table, ...]:
        half = self.layout.head_dim // 2
        frequency = 10.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        axis = torch.arange(half) % positions.shape[0]
        angle = positions.double()[axis].permute(1, 2, 0) * frequency
        angle = torch.cat((angle, angle), dim=-1)
        return ((angle.cos().to(self.layout.dtype), angle.sin().to(self.layout.dtype)),)


def toy_inputs(
    layout: CacheLayout, tokens: int, seed: int
) -> list[tuple[Float[Tensor, "heads tokens head_dim"], Float[Tensor, "heads tokens head_dim"], Tensor]]:
    """Queries, keys and values of each layer."""
    random = torch.Generator().manual_seed(seed)

    def draw(heads: int) -> Tensor:
        made = torch.randn(heads, tokens, layout.head_dim, generator=random, dtype=torch.float64)
        return made.to(layout.dtype)

    return [(2 * draw(layout.query_heads), draw(layout.kv_heads), draw(layout.kv_heads)) for _ in range(layout.layers)]


class TagMaker:
    """Tags of a stream of text and frames, segments counted on."""

    def __init__(self) -> None:
        self.segment = 0
        self.frame = 0
        self.now_ns = 0

    def text(self, tokens: int, frame: int = NO_FRAME) -> TokenTags:
        self.now_ns += 1
        zeros = torch.zeros(tokens, dtype=torch.int64)
        first = self.segment
        self.segment += tokens
        return TokenTags(
            zeros + self.now_ns, zeros + frame, torch.arange(first, first + tokens),
            torch.zeros(3, tokens, dtype=torch.int64), zeros,
        )  # fmt: skip

    def picture(self, rows: int, columns: int) -> TokenTags:
        """A frame: two tokens of time text, then rows * columns visual tokens."""
        self.now_ns += 1
        head = self.text(2, self.frame)
        tokens = rows * columns
        zeros = torch.zeros(tokens, dtype=torch.int64)
        height = torch.arange(rows).repeat_interleave(columns)
        width = torch.arange(columns).repeat(rows)
        body = TokenTags(
            zeros + self.now_ns, zeros + self.frame, zeros + self.segment,
            torch.stack((zeros, height, width)), zeros + 1,
        )  # fmt: skip
        self.segment += 1
        self.frame += 1
        return TokenTags.concatenate([head, body])
