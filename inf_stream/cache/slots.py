"""Bookkeeping of the cache: which token lies in which slot. Integers only, no keys or values.

All rows hold the same *number* of tokens, `used`, in the order they came; *which* tokens may differ from row to
row. A row is a layer, or a key/value head of a layer when heads choose for themselves.

    slot   0        1        2        3        4 ... used-1   used ... capacity-1
    index  0        1        57       58       91    1203     (free)
"""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from inf_stream.base.errors import StateError
from inf_stream.base.state import State
from inf_stream.base.tokens import TokenTags

FIELDS = ("index", "time_ns", "frame", "segment", "visual")
BYTES_PER_TOKEN = (len(FIELDS) + 3) * torch.int64.itemsize
"""Bookkeeping of one token in one row: the fields, and an offset for each axis."""


@dataclass(frozen=True, slots=True)
class SlotView:
    """What a policy sees: the tokens now in the cache, and how far the stream has come.

    Attributes:
        index: running number of each token in the stream, rising along the slots.
        frame: number of the frame each token belongs to, or `NO_FRAME`.
        tokens_seen: tokens of the stream so far; the newest token's index is one less.
        newest_frames: (frame number, index of its first token) of the latest frames, oldest first.
        opening_tokens: tokens of the conversation's opening (system prompt) at the stream's start.
    """

    index: Int[Tensor, "layers rows slots"]
    frame: Int[Tensor, "layers rows slots"]
    tokens_seen: int
    newest_frames: tuple[tuple[int, int], ...]
    opening_tokens: int

    @property
    def used(self) -> int:
        """Tokens in the cache."""
        return self.index.shape[-1]


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """How far a table is filled, and how far its stream has come."""

    used: int
    tokens_seen: int
    frames_seen: int
    opening_tokens: int


class SlotTable:
    """Integers about every slot, in planes ``[layers, rows, capacity]``; offsets ``[3, layers, rows, capacity]``."""

    def __init__(self, layers: int, rows: int, capacity: int, device: torch.device, frames_remembered: int):
        self.layers, self.rows, self.device = layers, rows, device
        self.planes = {f: torch.zeros(layers, rows, capacity, dtype=torch.int64, device=device) for f in FIELDS}
        self.offsets = torch.zeros(3, layers, rows, capacity, dtype=torch.int64, device=device)
        self.used = 0
        self.tokens_seen = 0
        self.frames_seen = 0
        self.opening_tokens = 0
        self._frames_remembered = frames_remembered
        self._newest_frames: list[tuple[int, int]] = []

    @property
    def capacity(self) -> int:
        """Slots of each row."""
        return self.offsets.shape[-1]

    @property
    def newest_frame_index(self) -> int:
        """Index of the newest frame's first token; 0 if there is none."""
        return self._newest_frames[-1][1] if self._newest_frames else 0

    def append(self, tags: TokenTags) -> None:
        """Enter new tokens behind the used slots of every row."""
        start, stop = self.used, self.used + len(tags)
        assert stop <= self.capacity, f"{stop} tokens do not fit {self.capacity} slots"
        index = torch.arange(self.tokens_seen, self.tokens_seen + len(tags))
        for name, values in (("index", index), ("time_ns", tags.time_ns), ("frame", tags.frame),
                             ("segment", tags.segment), ("visual", tags.visual)):  # fmt: skip
            self.planes[name][:, :, start:stop] = values.to(self.device)
        self.offsets[..., start:stop] = tags.offsets.to(self.device)[:, None, None]
        self._note_frames(tags)
        self.used = stop
        self.tokens_seen += len(tags)

    def counts(self) -> SlotCounts:
        """Where the table stands, for `drop_newest`."""
        return SlotCounts(self.used, self.tokens_seen, self.frames_seen, self.opening_tokens)

    def drop_newest(self, counts: SlotCounts) -> None:
        """Forget the tokens, none of a frame, that were appended since `counts` were taken."""
        assert counts.used <= self.used, "nothing was compacted meanwhile"
        assert counts.frames_seen == self.frames_seen, "no frame came meanwhile"
        self._set_counts(counts)

    def _set_counts(self, counts: SlotCounts) -> None:
        self.used, self.tokens_seen = counts.used, counts.tokens_seen
        self.frames_seen, self.opening_tokens = counts.frames_seen, counts.opening_tokens

    def compact(self, keep: Int[Tensor, "layers rows kept"]) -> None:
        """Move the kept slots, given in rising order, to the front of their rows."""
        kept = keep.shape[-1]
        for plane in self.planes.values():
            plane[:, :, :kept] = plane.gather(-1, keep)
        self.offsets[..., :kept] = self.offsets.gather(-1, keep.expand(3, -1, -1, -1))
        self.used = kept

    def grow(self, capacity: int) -> None:
        """Reallocate with more slots; only an unbounded policy needs it."""
        extra = capacity - self.capacity
        self.planes = {f: torch.nn.functional.pad(p, (0, extra)) for f, p in self.planes.items()}
        self.offsets = torch.nn.functional.pad(self.offsets, (0, extra))

    def view(self) -> SlotView:
        """What is in the cache now; valid until the next `append` or `compact`."""
        return SlotView(
            self.planes["index"][:, :, : self.used],
            self.planes["frame"][:, :, : self.used],
            self.tokens_seen,
            tuple(self._newest_frames),
            self.opening_tokens,
        )

    def state(self) -> State:
        """The used slots and the counts."""
        tensors = {name: plane[..., : self.used] for name, plane in self.planes.items()}
        counts = dataclasses.asdict(self.counts())
        return State(
            {**tensors, "offsets": self.offsets[..., : self.used]},
            {**counts, "newest_frames": [list(pair) for pair in self._newest_frames]},
        )

    def restore(self, state: State) -> None:
        """Take over what `state` of a table of the same size gave.

        Raises:
            StateError: it does not fit this table; nothing was taken over.
        """
        counts = SlotCounts(**{f.name: state.count(f.name) for f in dataclasses.fields(SlotCounts)})
        used = counts.used
        if used > self.capacity:
            raise StateError(f"the saved session holds {used} tokens; the cache has {self.capacity} slots")
        shape = (self.layers, self.rows, used)
        planes = {name: state.tensor(name, shape, torch.int64) for name in FIELDS}
        offsets = state.tensor("offsets", (3, *shape), torch.int64)
        newest = state.fact("newest_frames", list)
        if not all(isinstance(pair, list) and [type(n) for n in pair] == [int, int] for pair in newest):
            raise StateError("the saved session has something else than pairs of numbers as 'newest_frames'")
        for name, plane in planes.items():
            self.planes[name][..., :used] = plane.to(self.device)
        self.offsets[..., :used] = offsets.to(self.device)
        self._set_counts(counts)
        self._newest_frames = [(frame, index) for frame, index in newest]

    def check(self) -> None:
        """Assert the invariants: indices rise along each row, and the newest token is everywhere."""
        index = self.planes["index"][:, :, : self.used]
        assert 0 <= self.used <= self.capacity, f"{self.used} used of {self.capacity}"
        assert bool((index.diff(dim=-1) > 0).all()), "token indices must rise along the slots"
        if self.used:
            assert bool((index >= 0).all()), "token indices start at 0"
            assert bool((index[..., -1] == self.tokens_seen - 1).all()), "the newest token is in every row"
        segment = self.planes["segment"][:, :, : self.used]
        assert bool((segment.diff(dim=-1) >= 0).all()), "segments never fall along the slots"

    def bytes(self) -> int:
        """Memory of the bookkeeping."""
        return sum(p.nbytes for p in self.planes.values()) + self.offsets.nbytes

    def _note_frames(self, tags: TokenTags) -> None:
        for place, frame in enumerate(tags.frame.tolist()):
            if frame >= 0 and (not self._newest_frames or self._newest_frames[-1][0] != frame):
                self._newest_frames.append((frame, self.tokens_seen + place))
                self.frames_seen += 1
        del self._newest_frames[: -self._frames_remembered]
