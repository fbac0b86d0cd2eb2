"""One forward pass over new tokens against the cache: what a model's attention calls once a layer."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from inf_stream.base.grid import SLOT_GRID, round_up
from inf_stream.base.rotation import Table, rotate
from inf_stream.base.tokens import TokenTags
from inf_stream.cache.archive import Recall
from inf_stream.cache.attend import attend, attend_by_products, chunk_mask, products_are_faster

if TYPE_CHECKING:
    from inf_stream.cache.stream_cache import StreamCache


class CacheStep:
    """One forward pass over new tokens: what `inf_stream.models.attention` calls once a layer.

    Attributes:
        received: per layer, the attention each live slot received, ``[rows, slots]``; only of a watched step, and where
            the policy accumulates it. What recalled slots received, the recall itself counts.
    """

    def __init__(self, cache: "StreamCache", tags: TokenTags, *, watched: bool = False):
        self.tags = tags
        self.received: list[Tensor] = []
        self._cache = cache
        self._receives = watched or cache.accumulates
        layout = cache.layout
        self._by_products = self._receives or products_are_faster(len(tags), layout.dtype, layout.device)
        self._recall = recall = cache.recall
        self._recalled = recall.slots if recall is not None else slice(0, 0)
        self._start = cache.slots.used + (recall.tokens if recall is not None else 0)
        self._stop = self._start + len(tags)
        self._tables, self.cursor = cache.positions.of_new(tags, cache.slots.used)
        self._masks: dict[int | None, Tensor] = {}
        if isinstance(recall, Recall) and cache.is_asked:
            recall.begin_choice()

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "query_heads rows head_dim"],
        keys: Float[Tensor, "kv_heads rows head_dim"],
        values: Float[Tensor, "kv_heads rows head_dim"],
        scaling: float,
    ) -> Float[Tensor, "query_heads rows head_dim"]:
        """Store the new tokens' unrotated keys and their values, and attend over all that is kept.

        Rows behind the step's tokens are padding, neither stored nor attended to; they come back as zeros.
        """
        cache, tokens, rows = self._cache, len(self.tags), queries.shape[1]
        queries, keys, values = queries[:, :tokens], keys[:, :tokens], values[:, :tokens]
        cos, sin = self._tables(layer)
        rotated_queries = rotate(queries, self._query_table(cos, sin))
        cache.planes.write(layer, self._start, keys, rotate(keys, (cos, sin)), values)
        if cache.window is not None:
            cache.window.write(layer, rotated_queries, scaling)
        window = cache.layout.sliding_windows[layer]
        if cache.is_asked:
            cache.hear(layer, queries, scaling)
        read = round_up(self._stop, SLOT_GRID)
        kept = cache.planes.rotated_keys[layer, :, :read]
        hidden = self._hidden(layer, read)
        mask = self._mask(window)
        if hidden is not None:
            mask = mask.masked_fill(hidden, -torch.inf)
        first = 0 if window is None else self._first_in_sight(window)
        kept, values_kept, mask = kept[:, first:], cache.planes.values[layer, :, first:read], mask[:, first:]
        if not self._by_products:
            out = attend(rotated_queries, kept, values_kept, scaling, mask)
        else:
            received = torch.zeros(kept.shape[:2], dtype=mask.dtype, device=mask.device) if self._receives else None
            out = attend_by_products(rotated_queries, kept, values_kept, scaling, mask, received)
            if received is not None:
                by_head = pad(received[:, : self._stop - first], (first, 0)).float()
                self._receive(layer, by_head.mean(0, keepdim=True) if cache.rows == 1 else by_head)
        return pad(out, (0, 0, 0, rows - tokens))

    def _receive(self, layer: int, received: Float[Tensor, "rows slots"]) -> None:
        """Tell live slots from recalled ones."""
        if self._recall is not None:
            self._recall.receive(layer, received[:, self._recalled])
            received = torch.cat((received[:, : self._recalled.start], received[:, self._recalled.stop :]), dim=1)
        self.received.append(received)

    def _first_in_sight(self, window: int) -> int:
        """The first slot that need be read by tokens that see only so many."""
        recalled = self._recalled.stop - self._recalled.start
        return max(0, self._start - recalled + 1 - window) // SLOT_GRID * SLOT_GRID

    def _hidden(self, layer: int, read: int) -> Bool[Tensor, "slots"] | None:
        """Slots that hold nothing that this layer recalled, or None if there are none."""
        hidden = None if self._recall is None else self._recall.hidden(layer)
        if hidden is None:
            return None
        return pad(hidden.to(self._cache.layout.device), (self._recalled.start, read - self._recalled.stop))

    def _query_table(self, cos: Tensor, sin: Tensor) -> Table:
        rows = cos.shape[0]
        if rows == 1:
            return cos, sin
        group = self._cache.layout.query_heads // rows
        return cos.repeat_interleave(group, 0), sin.repeat_interleave(group, 0)

    def _mask(self, window: int | None) -> Tensor:
        if window not in self._masks:
            layout = self._cache.layout
            two_way = None
            if layout.bidirectional_frames:
                two_way = torch.where(self.tags.visual > 0, self.tags.segment, -1).to(layout.device)
            self._masks[window] = chunk_mask(
                self._start,
                len(self.tags),
                round_up(self._stop, SLOT_GRID),
                layout.query_heads // layout.kv_heads,
                window,
                two_way,
                torch.promote_types(layout.dtype, torch.float32) if self._by_products else layout.dtype,
                layout.device,
                self._recalled,
            )
        return self._masks[window]
