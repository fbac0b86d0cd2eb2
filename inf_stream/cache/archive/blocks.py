"""Which tokens of the stream belong together: a frame with its time text, or a piece of what was said."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from inf_stream.base.errors import StateError
from inf_stream.base.state import State
from inf_stream.base.tokens import NO_FRAME, TokenTags

TEXT_TOKENS = 32
"""Longest piece of text that is one block."""
_MOST_TOKENS = 1 << 61
"""Of a stream, so that sums of two running numbers are still integers of 64 bits."""


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens in a row.

    Attributes:
        first: running number of its first token in the stream.
        tokens: how many.
        from_ns: stream time of the first of them.
        to_ns: stream time of the last, or of the latest block that was found to say the same.
        frame: number of the frame they belong to, or `NO_FRAME`.
        piece: which part of a frame that was cut.
    """

    first: int
    tokens: int
    from_ns: int
    to_ns: int
    frame: int
    piece: int = 0

    def cut(self, most_tokens: int) -> list["Block"]:
        """Itself in parts of at most so many tokens, as equal as can be."""
        parts = -(-self.tokens // most_tokens)
        ends = [self.tokens * (n + 1) // parts for n in range(parts)]
        starts = [0, *ends[:-1]]
        return [
            replace(self, first=self.first + start, tokens=end - start, piece=piece)
            for piece, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]


class BlockCutter:
    """Cuts the stream into blocks as its tokens come, and remembers those of which no token was evicted yet."""

    def __init__(self) -> None:
        self.whole: list[Block] = []

    def take(self, first: int, tags: TokenTags) -> None:
        """New tokens, the first of which has the running number `first`."""
        frames, counts = torch.unique_consecutive(tags.frame, return_counts=True)
        times = tags.time_ns.tolist()
        start = 0
        for frame, count in zip(frames.tolist(), counts.tolist(), strict=True):
            most = count if frame != NO_FRAME else TEXT_TOKENS
            for begin in range(start, start + count, most):
                end = min(begin + most, start + count)
                self._add(Block(first + begin, end - begin, times[begin], times[end - 1], frame))
            start += count

    def _add(self, block: Block) -> None:
        last = self.whole[-1] if self.whole else None
        if last is None or last.frame != block.frame or last.first + last.tokens != block.first:
            self.whole.append(block)
            return
        tokens = last.tokens + block.tokens
        room = tokens if block.frame != NO_FRAME else min(tokens, TEXT_TOKENS)
        moved = room - last.tokens
        if moved:
            self.whole[-1] = replace(last, tokens=room, to_ns=block.to_ns)
        if moved < block.tokens:
            self.whole.append(replace(block, first=block.first + moved, tokens=block.tokens - moved))

    def touched(self, gone: Int[Tensor, "tokens"]) -> list[Block]:
        """Those to which any of these running numbers belongs, in stream order; they are no longer whole."""
        if not self.whole:
            return []
        firsts = torch.tensor([b.first for b in self.whole])
        ends = torch.tensor([b.first + b.tokens for b in self.whole])
        place = torch.searchsorted(firsts, gone, right=True) - 1
        hit = (place >= 0) & (gone < ends[place.clamp(min=0)])
        broken = set(place[hit].tolist())
        found = [b for n, b in enumerate(self.whole) if n in broken]
        self.whole = [b for n, b in enumerate(self.whole) if n not in broken]
        return found

    def state(self) -> State:
        """The whole blocks."""
        rows = [[b.first, b.tokens, b.from_ns, b.to_ns, b.frame] for b in self.whole]
        return State({"whole": torch.tensor(rows, dtype=torch.int64).view(-1, 5)}, {"count": len(rows)})

    def restore(self, state: State) -> None:
        """Take over what `state` of another gave.

        Raises:
            StateError: it is not that.
        """
        rows = state.tensor("whole", (state.count("count"), 5), torch.int64)
        if bool(((rows[:, :2] < 0) | (rows[:, :2] > _MOST_TOKENS)).any()) or bool(
            (rows[1:, 0] < rows[:-1, 0] + rows[:-1, 1]).any()
        ):
            raise StateError("the saved session has blocks of tokens that overlap; it cannot be used")
        self.whole = [Block(*row) for row in rows.tolist()]
