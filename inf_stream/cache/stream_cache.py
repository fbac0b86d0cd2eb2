"""The size-bounded cache of one stream: reserve, attend, commit, and evict when it is due.

Life of a chunk of new tokens:

    step = cache.begin(tags)          positions are given, nothing changes yet
    model.forward(..., step)          each layer: step.attend() stores raw keys and values, attends over all kept
    cache.commit(step)                the tokens count; if the budget is exceeded, evict: score, plan, compact, rebuild

A step that is never committed leaves no trace but a shorter retrieval window.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from inf_stream.base.errors import StateError
from inf_stream.base.grid import SLOT_GRID, round_up
from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import RotationTables, Table, rotate
from inf_stream.base.state import State
from inf_stream.base.tokens import TokenTags
from inf_stream.cache.attend import attend, attend_with_weights, chunk_mask
from inf_stream.cache.planes import KeyValuePlanes
from inf_stream.cache.policies.base import Evidence, Policy
from inf_stream.cache.positions import SegmentCursor
from inf_stream.cache.scores import QueryWindow, attention_received, times_visible
from inf_stream.cache.sizes import CacheSizes
from inf_stream.cache.slots import SlotCounts, SlotTable


class StreamCache:
    """Keys and values of an endless stream, at most `budget_tokens` per layer after each eviction.

    An eviction is due when more than `budget_tokens` are used and at least `evict_every_tokens` came since the last
    one, so at no time are there more than the capacity: `budget_tokens + evict_every_tokens + chunk_tokens`, rounded
    up. That period is at least the policy's retrieval window: scores taken at eviction equal scores accumulated all
    along only if no eviction falls inside the window.

    Raises:
        ConfigError: `evict_every_tokens` is shorter than the policy's window.
        BudgetError: the budget is smaller than the policy can work with.
    """

    def __init__(
        self,
        layout: CacheLayout,
        policy: Policy,
        rotation: RotationTables,
        *,
        budget_tokens: int,
        chunk_tokens: int,
        evict_every_tokens: int,
    ):
        sizes = CacheSizes(budget_tokens, chunk_tokens, evict_every_tokens)
        sizes.check(policy)
        self.layout, self.policy = layout, policy
        self.budget_tokens, self.chunk_tokens = budget_tokens, chunk_tokens
        self.evict_every_tokens = evict_every_tokens
        self.evictions = 0
        self._rotation = rotation
        self._rows = layout.kv_heads if policy.per_head else 1
        capacity = sizes.capacity_tokens
        self.slots = SlotTable(layout.layers, self._rows, capacity, layout.device, policy.frames_remembered)
        self.planes = KeyValuePlanes(layout, capacity)
        self.window = self._new_window()
        self._accumulated = (
            torch.zeros(layout.layers, self._rows, capacity, device=layout.device) if policy.accumulates else None
        )
        self._cursor = SegmentCursor(layout.layers * self._rows, layout.device)
        self._rank_tables = () if layout.segmented else self._make_rank_tables(capacity)
        self._since_eviction = 0
        self._open: CacheStep | None = None
        self._mark: _Mark | None = None

    # ---- sizes -------------------------------------------------------------------------------------

    @property
    def used_tokens(self) -> int:
        """Tokens kept now, per layer."""
        return self.slots.used

    @property
    def seen_tokens(self) -> int:
        """Tokens of the stream so far."""
        return self.slots.tokens_seen

    @property
    def capacity_tokens(self) -> int:
        """Slots allocated per layer."""
        return self.slots.capacity

    @property
    def room_tokens(self) -> int:
        """Tokens that can be taken in without an eviction; never less than `chunk_tokens` between two steps."""
        return self.slots.capacity - self.slots.used

    def bytes(self) -> int:
        """Memory of everything the cache holds."""
        tables = sum(part.nbytes for table in self._rank_tables for part in table)
        window = self.window.bytes() if self.window else 0
        accumulated = self._accumulated.nbytes if self._accumulated is not None else 0
        return self.planes.bytes() + self.slots.bytes() + tables + window + accumulated

    def kept_times_ns(self) -> Int[Tensor, "layers rows kept"]:
        """Stream time of every kept token, on the CPU."""
        return self.slots.planes["time_ns"][:, :, : self.slots.used].cpu().clone()

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self) -> State:
        """Everything that later steps depend on; valid until the next step. A step that is open counts for nothing."""
        used = self.slots.used
        tensors = {name: plane[:, :, :used] for name, plane in self._kept_planes().items()}
        if self._accumulated is not None:
            tensors["accumulated"] = self._accumulated[..., :used]
        parts = {"slots": self.slots.state(), "cursor": self._cursor.state()}
        if self.window is not None:
            parts["window"] = self.window.state()
        whole = State.of(parts, evictions=self.evictions, since_eviction=self._since_eviction)
        return State(tensors | whole.tensors, whole.facts)

    def restore(self, state: State) -> None:
        """Go on where a cache of the same model, policy and sizes was when its `state` was taken.

        Raises:
            StateError: it does not fit this cache, which then must not be used any more.
        """
        evictions, since = state.count("evictions"), state.count("since_eviction")
        used = state.part("slots").count("used")
        if not self.policy.bounded and used > self.capacity_tokens:
            self._grow(round_up(used, SLOT_GRID))
        self.slots.restore(state.part("slots"))
        self._cursor.restore(state.part("cursor"))
        if self.window is not None:
            self.window.restore(state.part("window"))
        layout = self.layout
        shape = (layout.layers, layout.kv_heads, used, layout.head_dim)
        for name, plane in self._kept_planes().items():
            plane[:, :, :used] = state.tensor(name, shape, layout.dtype)
        if self._accumulated is not None:
            rows = (layout.layers, self._rows, used)
            self._accumulated[..., :used] = state.tensor("accumulated", rows, self._accumulated.dtype)
        self.evictions, self._since_eviction = evictions, since
        self._open = None
        self._refuse_nonsense()

    def _refuse_nonsense(self) -> None:
        try:
            self.slots.check()
        except AssertionError as error:
            raise StateError(f"the saved session cannot be: {error}") from error

    def _kept_planes(self) -> dict[str, Tensor]:
        """Rotated keys too: since the last eviction they stand where they were written, not where they would be."""
        planes = self.planes
        return {"raw_keys": planes.raw_keys, "values": planes.values, "rotated_keys": planes.rotated_keys}

    # ---- a step ------------------------------------------------------------------------------------

    def begin(self, tags: TokenTags, *, watched: bool = False) -> "CacheStep":
        """Give positions to new tokens; nothing is stored until the model attends, nothing counts until `commit`.

        A `watched` step tells afterwards what attention every slot received.
        """
        assert 0 < len(tags) <= self.chunk_tokens, f"{len(tags)} tokens in a chunk of at most {self.chunk_tokens}"
        if self._open is not None and self.window is not None:
            self.window.forget()
        if not self.policy.bounded and self.slots.used + len(tags) > self.slots.capacity:
            self._grow(round_up(2 * (self.slots.used + len(tags)), SLOT_GRID))
        self._open = CacheStep(self, tags, watched=watched)
        return self._open

    def commit(self, step: "CacheStep") -> None:
        """Count the step's tokens and evict if it is due."""
        assert step is self._open, "only the latest step can be committed, once"
        self._open = None
        self.slots.append(step.tags)
        if self.window is not None:
            self.window.advance(len(step.tags))
        if self._accumulated is not None:
            self._accumulated[..., : self.slots.used] += torch.stack(step.received)
        if step.cursor is not None:
            self._cursor = step.cursor
        self._since_eviction += len(step.tags)
        over = self.slots.used > self.budget_tokens
        due = over and self._since_eviction >= self.evict_every_tokens
        if self.policy.bounded and due and self._mark is None:
            self.evict()

    def close_opening(self) -> None:
        """Mark all tokens so far as the conversation's opening."""
        self.slots.opening_tokens = self.slots.tokens_seen

    # ---- tokens that leave no trace ------------------------------------------------------------------

    def set_mark(self) -> None:
        """Remember this place; until `return_to_mark` at most `room_tokens` may come, and nothing is evicted."""
        assert self._mark is None, "one mark at a time"
        self._mark = _Mark(
            self.slots.counts(),
            self._cursor,
            self._since_eviction,
            None if self.window is None else self.window.state().copy(),
            None if self._accumulated is None else self._accumulated.clone(),
        )

    def return_to_mark(self) -> None:
        """Be as if nothing had come since `set_mark`."""
        mark, self._mark = self._mark, None
        assert mark is not None, "a mark was set"
        self.slots.drop_newest(mark.counts)
        self._cursor, self._since_eviction = mark.cursor, mark.since_eviction
        if self.window is not None and mark.window is not None:
            self.window.restore(mark.window)
        self._accumulated = mark.accumulated
        self._open = None

    # ---- eviction ----------------------------------------------------------------------------------

    def plan(self) -> Int[Tensor, "layers rows kept"]:
        """Which slots would stay if an eviction happened now; changes nothing."""
        keep = self.policy.plan(self.slots.view(), self._evidence(), self.budget_tokens)
        newest = torch.arange(self.slots.used - keep.shape[-1], self.slots.used, device=keep.device)
        if any(self.layout.sliding_windows):
            keep = keep.clone()
            for layer, window in enumerate(self.layout.sliding_windows):
                if window is not None:
                    keep[layer] = newest
        return keep

    def evict(self) -> None:
        """Apply the policy's plan: compact the planes and rotate the kept keys afresh at their new positions."""
        keep = self.plan()
        self.slots.compact(keep)
        tables = self._tables_of_kept()
        for layer in range(self.layout.layers):
            self.planes.compact(layer, keep[layer])
            self.planes.rebuild(layer, self.slots.used, tables(layer))
        if self._accumulated is not None:
            self._accumulated[..., : keep.shape[-1]] = self._accumulated.gather(-1, keep)
            self._accumulated[..., keep.shape[-1] :] = 0
        if self.window is not None:
            self.window.forget()
        self._since_eviction = 0
        self.evictions += 1

    def check(self) -> None:
        """Assert the invariants; slow, for tests and idle moments."""
        self.slots.check()
        used = self.slots.used
        assert not self.policy.bounded or used <= self.capacity_tokens, f"{used} of {self.capacity_tokens}"
        tables = self._tables_of_kept()
        for layer in range(self.layout.layers):
            fresh = rotate(self.planes.raw_keys[layer, :, :used], tables(layer))
            stored = self.planes.rotated_keys[layer, :, :used]
            assert torch.allclose(fresh, stored, rtol=2e-2, atol=1e-4), f"rotated keys of layer {layer} went stale"

    # ---- inside ------------------------------------------------------------------------------------

    def _evidence(self) -> Evidence:
        used = self.slots.used
        read = round_up(used, SLOT_GRID)
        norms = self._value_norms() if self.policy.needs_value_norms else None
        if self._accumulated is not None:
            return Evidence(received=self._accumulated[..., :used], value_norms=norms)
        if self.window is None:
            return Evidence(value_norms=norms)
        received = [
            self.window.received(layer, self.planes.rotated_keys[layer, :, :read], used, self._rows)
            for layer in range(self.layout.layers)
        ]
        return Evidence(torch.stack(received), times_visible(self.window.valid, used, self.layout.device), norms)

    def _value_norms(self) -> Float[Tensor, "layers rows slots"]:
        norms = [v[:, : self.slots.used].float().norm(dim=-1) for v in self.planes.values]
        stacked = torch.stack(norms)
        return stacked if self._rows > 1 else stacked.mean(1, keepdim=True)

    def _tables_of_kept(self) -> "LayerTables":
        used = self.slots.used
        if not self.layout.segmented:
            return LayerTables(
                self.layout, tuple((c[:, :used], s[:, :used]) for c, s in self._rank_tables), shared=True
            )
        segment = self.slots.planes["segment"][:, :, :used].flatten(0, 1)
        offsets = self.slots.offsets[..., :used].flatten(1, 2)
        positions = self._cursor.rebuild(segment, offsets)
        return LayerTables(self.layout, self._rotation(positions), shared=False)

    def _make_rank_tables(self, capacity: int) -> tuple[Table, ...]:
        return self._rotation(torch.arange(capacity, device=self.layout.device).view(1, 1, -1))

    def _new_window(self) -> QueryWindow | None:
        if not self.policy.window_tokens:
            return None
        layout = self.layout
        return QueryWindow(
            layout.layers,
            layout.query_heads,
            self.policy.window_tokens,
            layout.head_dim,
            self.planes.raw_keys,
        )

    def _grow(self, capacity: int) -> None:
        self.slots.grow(capacity)
        self.planes.grow(capacity)
        if not self.layout.segmented:
            self._rank_tables = self._make_rank_tables(capacity)


@dataclass(frozen=True)
class _Mark:
    """What later steps change of what was there before them; keys and values only come behind."""

    counts: SlotCounts
    cursor: SegmentCursor
    since_eviction: int
    window: State | None
    accumulated: Tensor | None


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


class CacheStep:
    """One forward pass over new tokens: what `inf_stream.models.attention` calls once a layer.

    Attributes:
        received: per layer, the attention each slot received, ``[rows, slots]``; only of a watched step, and where the
            policy accumulates it.
    """

    def __init__(self, cache: StreamCache, tags: TokenTags, *, watched: bool = False):
        self.tags = tags
        self.cursor: SegmentCursor | None = None
        self.received: list[Tensor] = []
        self._cache = cache
        self._receives = watched or cache._accumulated is not None
        self._start = cache.slots.used
        self._stop = self._start + len(tags)
        self._tables = self._tables_of_new()
        self._masks: dict[int | None, Tensor] = {}

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
        read = round_up(self._stop, SLOT_GRID)
        kept = cache.planes.rotated_keys[layer, :, :read]
        window = cache.layout.sliding_windows[layer]
        if self._receives and tokens == 1 and window is None:
            # The weights are there already; their slow twin below computes them once more.
            values_read = cache.planes.values[layer, :, :read]
            out, weights = attend_with_weights(rotated_queries, kept, values_read, scaling, self._mask(None))
            by_head = weights[..., : self._stop].mean(1)
            self.received.append(by_head.mean(0, keepdim=True) if cache._rows == 1 else by_head)
            return pad(out, (0, 0, 0, rows - 1))
        if self._receives:
            self.received.append(attention_received(rotated_queries, kept, self._stop, scaling, cache._rows))
        first = 0 if window is None else max(0, self._start + 1 - window) // SLOT_GRID * SLOT_GRID
        values_kept = cache.planes.values[layer, :, first:read]
        out = attend(rotated_queries, kept[:, first:], values_kept, scaling, self._mask(window)[:, first:])
        return pad(out, (0, 0, 0, rows - tokens))

    def _query_table(self, cos: Tensor, sin: Tensor) -> Table:
        rows = cos.shape[0]
        if rows == 1:
            return cos, sin
        group = self._cache.layout.query_heads // rows
        return cos.repeat_interleave(group, 0), sin.repeat_interleave(group, 0)

    def _tables_of_new(self) -> LayerTables:
        cache = self._cache
        if not cache.layout.segmented:
            new = tuple((c[:, self._start : self._stop], s[:, self._start : self._stop]) for c, s in cache._rank_tables)
            return LayerTables(cache.layout, new, shared=True)
        positions, self.cursor = cache._cursor.place(self.tags)
        return LayerTables(cache.layout, cache._rotation(positions), shared=False)

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
                layout.dtype,
                layout.device,
            )
        return self._masks[window]
