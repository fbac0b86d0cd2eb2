"""What is known of each token besides its embedding."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

NO_FRAME = -1
"""Frame number of a token that belongs to no frame."""


@dataclass(frozen=True, slots=True)
class TokenTags:
    """Integers about the tokens of one chunk, all on the CPU or all on the model's device.

    Attributes:
        time_ns: stream time of each token.
        frame: running number of the frame a token belongs to (its time text included), or `NO_FRAME`.
        segment: number of the position segment; never falls from one token to the next. A text token is a
            segment of its own, the visual tokens of a frame share one.
        offsets: position inside the segment, per axis (time, height, width); zeros for text.
        visual: whether the token comes from the vision encoder.
    """

    time_ns: Int[Tensor, "tokens"]
    frame: Int[Tensor, "tokens"]
    segment: Int[Tensor, "tokens"]
    offsets: Int[Tensor, "3 tokens"]
    visual: Int[Tensor, "tokens"]

    def __len__(self) -> int:
        return int(self.time_ns.shape[0])

    def slice(self, start: int, stop: int) -> "TokenTags":
        """Tags of the tokens [start, stop)."""
        return TokenTags(
            self.time_ns[start:stop],
            self.frame[start:stop],
            self.segment[start:stop],
            self.offsets[:, start:stop],
            self.visual[start:stop],
        )

    @staticmethod
    def concatenate(parts: "list[TokenTags]") -> "TokenTags":
        """Tags of several chunks in a row."""
        return TokenTags(
            torch.cat([p.time_ns for p in parts]),
            torch.cat([p.frame for p in parts]),
            torch.cat([p.segment for p in parts]),
            torch.cat([p.offsets for p in parts], dim=1),
            torch.cat([p.visual for p in parts]),
        )
