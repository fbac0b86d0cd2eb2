"""Where tokens stand: rotation tables for what is kept, what is new and what is recalled.

With ordinary rotary embedding a live token's position is its slot number, behind the positions that are reserved for
recalled tokens; one table then serves all layers. With M-RoPE every row has a table of its own
(`inf_stream.cache.positions`).
"""

import torch
from jaxtyping import Int
from torch import Tensor

from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import RotationTables, Table
from inf_stream.base.state import State
from inf_stream.base.tokens import TokenTags
from inf_stream.cache.positions import SegmentCursor, segment_positions
from inf_stream.cache.slots import SlotTable


class LayerTables:
    """Picks a layer's rotation table ``[rows, tokens, rotary_dim]``."""

    def __init__(self, layout: CacheLayout, tables: tuple[Table, ...], *, shared: bool):
        self._layout, self._tables, self._shared = layout, tables, shared

    def __call__(self, layer: int) -> Table:
        """The table of one layer; `shared` tables have one row for all layers."""
        cos, sin = self._tables[self._layout.table_of_layer[layer]]
        if self._shared:
            return cos, sin
        rows = cos.shape[0] // self._layout.layers
        mine = slice(layer * rows, (layer + 1) * rows)
        return cos[mine], sin[mine]


class PositionTables:
    """Rotation tables of one cache.

    Args:
        layout: of the model's keys.
        rotation: the model's own.
        rows: of the slot table, per layer.
        capacity: slots of live tokens.
        reserved: positions in front of all live tokens.
    """

    def __init__(self, layout: CacheLayout, rotation: RotationTables, rows: int, capacity: int, reserved: int):
        self._layout, self._rotation, self._reserved = layout, rotation, reserved
        self.cursor = SegmentCursor(layout.layers * rows, layout.device)
        self._by_rank: tuple[Table, ...] = ()
        self.grow(capacity)

    def grow(self, capacity: int) -> None:
        """Serve so many slots of live tokens."""
        if not self._layout.segmented:
            ranks = torch.arange(self._reserved + capacity, device=self._layout.device)
            self._by_rank = self._rotation(ranks.view(1, 1, -1))

    def of_kept(self, slots: SlotTable) -> LayerTables:
        """Of all live tokens, gaps closed; what comes next follows them."""
        used = slots.used
        if not self._layout.segmented:
            return self._ranks(0, used)
        segment = slots.planes["segment"][:, :, :used].flatten(0, 1)
        offsets = slots.offsets[..., :used].flatten(1, 2)
        positions = self.cursor.rebuild(segment, offsets) + self._reserved
        return LayerTables(self._layout, self._rotation(positions), shared=False)

    def of_new(self, tags: TokenTags, used: int) -> tuple[LayerTables, SegmentCursor | None]:
        """Of tokens that follow `used` live ones, and the cursor behind them, to be taken over on commit."""
        if not self._layout.segmented:
            return self._ranks(used, used + len(tags)), None
        positions, behind = self.cursor.place(tags)
        return LayerTables(self._layout, self._rotation(positions + self._reserved), shared=False), behind

    def of_recalled(self, layer: int, tokens: int, segments: Int[Tensor, "4 tokens"] | None) -> Table:
        """Of recalled tokens in time order, in the last of the positions reserved for them.

        `segments` are needed of a segmented layout.
        """
        kind = self._layout.table_of_layer[layer]
        if segments is None:
            cos, sin = self._by_rank[kind]
            part = slice(self._reserved - tokens, self._reserved)
            return cos[:, part], sin[:, part]
        segments = segments.to(self._layout.device)
        positions = segment_positions(segments[:1], segments[1:, None])
        return self._rotation(positions + (self._reserved - 1 - positions.amax()))[kind]

    def bytes(self) -> int:
        """Memory of the tables."""
        return sum(part.nbytes for table in self._by_rank for part in table)

    def state(self) -> State:
        """Where the next tokens go."""
        return self.cursor.state()

    def restore(self, state: State) -> None:
        """Take over what `state` of tables of as many rows gave.

        Raises:
            StateError: it does not fit; nothing was taken over.
        """
        self.cursor.restore(state)

    def _ranks(self, start: int, stop: int) -> LayerTables:
        part = slice(self._reserved + start, self._reserved + stop)
        return LayerTables(self._layout, tuple((c[:, part], s[:, part]) for c, s in self._by_rank), shared=True)
