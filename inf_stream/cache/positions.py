"""Positions inside the cache, so that no position ever exceeds what the budget allows.

Two ways. With ordinary rotary embedding a token's position is its rank in the cache, which is its slot number.
With M-RoPE (Qwen2-VL, arXiv 2409.12191) a rank is undefined for (time, height, width); but a common shift of the
three axes is an ordinary rotation, so each segment keeps its inner geometry and moves as a whole until it touches
the segment before it:

    kept   text  frame (2 rows of 3, some evicted)   text          position of a token
    start  0     1                                    4             = start of its segment + its offset
    extent 1     3 = largest kept offset + 1          1             next start = start + extent
"""

import torch
from jaxtyping import Int
from torch import Tensor

from inf_stream.base.state import State
from inf_stream.base.tokens import TokenTags


def segment_positions(
    segment: Int[Tensor, "rows tokens"], offsets: Int[Tensor, "3 rows tokens"]
) -> Int[Tensor, "3 rows tokens"]:
    """Positions of the tokens of each row, gaps between segments closed.

    Segments rise along a row. Source: the shift by one scalar per segment; a full row without gaps gets the
    positions the model was trained with.
    """
    rows, tokens = segment.shape
    first = torch.ones_like(segment, dtype=torch.bool)
    first[:, 1:] = segment[:, 1:] != segment[:, :-1]
    ordinal = first.cumsum(-1) - 1
    reach = offsets.amax(0) + 1
    extent = torch.zeros(rows, tokens, dtype=torch.int64, device=segment.device)
    extent.scatter_reduce_(-1, ordinal, reach, reduce="amax")
    start = extent.cumsum(-1) - extent
    return offsets + start.gather(-1, ordinal)


class SegmentCursor:
    """Where the next token of each row goes, so that appending needs no look at the whole cache.

    Slow twin: `segment_positions` over everything.
    """

    def __init__(self, rows: int, device: torch.device):
        self.next = torch.zeros(rows, dtype=torch.int64, device=device)
        self.start = torch.zeros(rows, dtype=torch.int64, device=device)
        self.segment: int | None = None

    def state(self) -> State:
        """Where the next tokens go."""
        return State({"next": self.next, "start": self.start}, {"segment": self.segment})

    def restore(self, state: State) -> None:
        """Take over what `state` of a cursor of as many rows gave.

        Raises:
            StateError: it does not fit this cursor; nothing was taken over.
        """
        rows = tuple(self.next.shape)
        following, start = (state.tensor(name, rows, torch.int64) for name in ("next", "start"))
        segment = None if state.facts.get("segment") is None else state.count("segment")
        self.next, self.start = following.to(self.next.device), start.to(self.start.device)
        self.segment = segment

    def place(self, tags: TokenTags) -> tuple[Int[Tensor, "3 rows tokens"], "SegmentCursor"]:
        """Positions of new tokens, and the cursor behind them; this cursor is left as it was."""
        device = self.next.device
        segment, offsets = tags.segment.to(device), tags.offsets.to(device)
        relative = segment_positions(segment[None], offsets[:, None])
        continues = segment == self.segment if self.segment is not None else torch.zeros_like(segment, dtype=torch.bool)
        # Tokens that continue the open segment count from its start; the rest from where that segment ends.
        reach = int((offsets.amax(0) + 1)[continues].max()) if bool(continues.any()) else 0
        end = torch.maximum(self.next, self.start + reach)
        origin = torch.where(continues[None], self.start[:, None], (end - reach)[:, None])
        positions = relative + origin[None]
        behind = SegmentCursor(self.next.shape[0], device)
        behind.next = torch.maximum(end, positions.amax((0, 2)) + 1)
        behind.segment = int(segment[-1])
        last = int((segment == segment[-1]).int().argmax())
        behind.start = positions[0, :, last] - offsets[0, last]
        return positions, behind

    def rebuild(
        self, segment: Int[Tensor, "rows tokens"], offsets: Int[Tensor, "3 rows tokens"]
    ) -> Int[Tensor, "3 rows tokens"]:
        """Positions of everything kept, and this cursor moved behind it."""
        positions = segment_positions(segment, offsets)
        self.next = positions.amax((0, 2)) + 1
        self.start = positions[0, :, -1] - offsets[0, :, -1]
        self.segment = int(segment[0, -1])
        return positions
