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

from inf_stream.base.errors import StateError
from inf_stream.base.grid import SLOT_GRID, round_up
from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import RotationTables, rotate
from inf_stream.base.state import State
from inf_stream.base.tokens import TokenTags
from inf_stream.cache.archive import Archive, Recall
from inf_stream.cache.archive.recalled import Lifted, Recalled
from inf_stream.cache.novelty import NoveltyMeter
from inf_stream.cache.planes import KeyValuePlanes
from inf_stream.cache.policies.base import Evidence, Policy
from inf_stream.cache.positions import SegmentCursor
from inf_stream.cache.scores import QueryWindow, times_visible
from inf_stream.cache.sizes import CacheSizes
from inf_stream.cache.slots import SlotCounts, SlotTable
from inf_stream.cache.step import CacheStep
from inf_stream.cache.tables import PositionTables


class StreamCache:
    """Keys and values of an endless stream, at most `budget_tokens` per layer after each eviction.

    An eviction is due when more than `budget_tokens` are used and at least `evict_every_tokens` came since the last
    one, so at no time are there more than the capacity: `budget_tokens + evict_every_tokens + chunk_tokens`, rounded
    up. That period is at least the policy's retrieval window: scores taken at eviction equal scores accumulated all
    along only if no eviction falls inside the window.

    With an `archive`, what is evicted can be recalled for an answer (`open_recall`).

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
        archive: Archive | None = None,
    ):
        recall_tokens = 0 if archive is None else archive.sizes.recall_tokens
        sizes = CacheSizes(budget_tokens, chunk_tokens, evict_every_tokens, recall_tokens)
        sizes.check(policy)
        self.layout, self.policy = layout, policy
        self.budget_tokens, self.chunk_tokens = budget_tokens, chunk_tokens
        self.evict_every_tokens = evict_every_tokens
        self.evictions = 0
        self.archive = archive
        self.recall: Recalled | None = None
        self.is_asked = False
        self.rows = layout.kv_heads if policy.per_head else 1
        capacity = sizes.capacity_tokens
        self.slots = SlotTable(layout.layers, self.rows, capacity, layout.device, policy.frames_remembered)
        self.planes = KeyValuePlanes(layout, capacity + sizes.recall_slots)
        self.positions = PositionTables(layout, rotation, self.rows, capacity, sizes.recall_slots)
        self.window = self._new_window()
        self._accumulated = (
            torch.zeros(layout.layers, self.rows, capacity, device=layout.device) if policy.accumulates else None
        )
        self._novelty = NoveltyMeter(layout) if policy.needs_novelty else None
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

    @property
    def accumulates(self) -> bool:
        """Whether the policy wants what attention every slot received in every step."""
        return self._accumulated is not None

    def bytes(self) -> int:
        """Memory of everything the cache holds, its archive left out."""
        window = self.window.bytes() if self.window else 0
        accumulated = self._accumulated.nbytes if self._accumulated is not None else 0
        return self.planes.bytes() + self.slots.bytes() + self.positions.bytes() + window + accumulated

    def kept_times_ns(self) -> Int[Tensor, "layers rows kept"]:
        """Stream time of every kept token, on the CPU."""
        return self.slots.planes["time_ns"][:, :, : self.slots.used].cpu().clone()

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self) -> State:
        """Everything that later steps depend on; valid until the next step. A step that is open counts for nothing."""
        used = self.slots.used
        tensors = {name: self._live(plane) for name, plane in self._kept_planes().items()}
        if self._accumulated is not None:
            tensors["accumulated"] = self._accumulated[..., :used]
        parts = {"slots": self.slots.state(), "cursor": self.positions.state()}
        if self.archive is not None:
            parts["archive"] = self.archive.state()
        if self.recall is not None:
            parts["recalled"] = self.recall.state(self.planes, self.layout.layers)
        if self.window is not None:
            parts["window"] = self.window.state()
        if self._novelty is not None:
            parts["novelty"] = self._novelty.state()
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
        self.positions.restore(state.part("cursor"))
        if self.archive is not None:
            self.archive.restore(state.part("archive"))
        if self.window is not None:
            self.window.restore(state.part("window"))
        if self._novelty is not None:
            self._novelty.restore(state.part("novelty"))
        layout = self.layout
        shape = (layout.layers, layout.kv_heads, used, layout.head_dim)
        for name, plane in self._kept_planes().items():
            plane[:, :, :used] = state.tensor(name, shape, layout.dtype)
        if self._accumulated is not None:
            rows = (layout.layers, self.rows, used)
            self._accumulated[..., :used] = state.tensor("accumulated", rows, self._accumulated.dtype)
        if "recalled" in state.facts:
            most = self.planes.capacity - self.capacity_tokens
            self.recall = Recalled.restored(state.part("recalled"), self.planes, layout, used, most)
        self.evictions, self._since_eviction = evictions, since
        self._open = None
        self._refuse_nonsense()

    def _refuse_nonsense(self) -> None:
        try:
            self.slots.check()
        except AssertionError as error:
            raise StateError(f"the saved session cannot be: {error}") from error

    def _live(self, plane: Tensor) -> Float[Tensor, "layers kv_heads used head_dim"]:
        """A plane without what was recalled."""
        used, recall = self.slots.used, self.recall
        if recall is None:
            return plane[:, :, :used]
        return torch.cat((plane[:, :, : recall.start], plane[:, :, recall.slots.stop : recall.tokens + used]), dim=2)

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
        if self.archive is not None and self._mark is None:
            self.archive.note(self.slots.tokens_seen, step.tags)
        self.slots.append(step.tags)
        if self.window is not None:
            self.window.advance(len(step.tags))
        if self._accumulated is not None:
            self._accumulated[..., : self.slots.used] += torch.stack(step.received)
        if step.cursor is not None:
            self.positions.cursor = step.cursor
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
            self.positions.cursor,
            self._since_eviction,
            None if self.window is None else self.window.state().copy(),
            None if self._accumulated is None else self._accumulated.clone(),
            None if self.recall is None else (self.recall, self.recall.lift(self.planes, self.slots.used)),
        )
        self.recall = None

    def return_to_mark(self) -> None:
        """Be as if nothing had come since `set_mark`."""
        mark, self._mark = self._mark, None
        assert mark is not None, "a mark was set"
        assert self.recall is None, "what was recalled since has gone"
        self.slots.drop_newest(mark.counts)
        self.positions.cursor, self._since_eviction = mark.cursor, mark.since_eviction
        if self.window is not None and mark.window is not None:
            self.window.restore(mark.window)
        self._accumulated = mark.accumulated
        if mark.recalled is not None:
            self.recall, lifted = mark.recalled
            self.recall.lay(self.planes, lifted, self.slots.used)
        self._open = None

    # ---- what the archive gives back -----------------------------------------------------------------

    def open_recall(self, between_ns: tuple[int, int] | None = None) -> None:
        """Take the steps until `end_choice` for a question, and let the blocks that it chooses take part.

        They do until `close_recall`. `between_ns` narrows them to stream times, both ends included. What stayed of
        an earlier recall goes.
        """
        assert not isinstance(self.recall, Recall), "one recall at a time"
        self._let_go()
        if self.archive is None:
            return
        self.is_asked = True
        self.archive.usual.begin()
        if self.archive.blocks:
            recall = Recall(self.archive, self.slots.used, between_ns)
            if recall.tokens:
                self.recall = recall

    def end_choice(self, *, learn: bool = True) -> None:
        """The question has been read: what was chosen stays; `learn` counts it among the usual ones."""
        if self.archive is not None and self.is_asked and learn:
            self.archive.usual.learn()
        self.is_asked = False

    def close_recall(self, *, may_stay: bool = False) -> None:
        """Send back what was recalled; what came since stays, as if nothing had been.

        What `may_stay` does so where the archive's `keep_recalled` says so, until the next `open_recall`.
        """
        self.is_asked = False
        if may_stay and self.recall is not None and self.archive is not None and self.archive.sizes.keep_recalled:
            self.recall = self.recall.staying()
        else:
            self._let_go()

    def _let_go(self) -> None:
        if self.recall is not None:
            self.recall.let_go(self.planes, self.slots.used)
            self.recall = None

    def hear(self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"], scaling: float) -> None:
        """A layer's unrotated queries of the question: write what it then chooses behind the live tokens."""
        recall, archive = self.recall, self.archive
        assert archive is not None, "nobody else listens"
        archive.usual.hear(layer, queries)
        if not isinstance(recall, Recall) or self.layout.sliding_windows[layer] is not None:
            return
        recall.choose(layer, queries, scaling)
        chosen = recall.chosen(layer)
        keys, values = archive.read(layer, chosen)
        segments = archive.segments(chosen) if self.layout.segmented else None
        table = self.positions.of_recalled(layer, recall.tokens, segments)
        rotate(keys, table, out=self.planes.rotated_keys[layer, :, recall.slots])
        self.planes.values[layer, :, recall.slots] = values

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
        lifted = None if self.recall is None else self.recall.lift(self.planes, self.slots.used)
        if self._novelty is not None:
            self._novelty.judge(self.slots, self.planes)
        keep = self.plan()
        if self.archive is not None:
            self.archive.take(self.slots, self.planes, keep)
        self.slots.compact(keep)
        tables = self.positions.of_kept(self.slots)
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
        if self.recall is not None and lifted is not None:
            self.recall.start = self.slots.used
            self.recall.lay(self.planes, lifted, self.slots.used)

    def check(self) -> None:
        """Assert the invariants; slow, for tests and idle moments."""
        self.slots.check()
        used = self.slots.used
        assert not self.policy.bounded or used <= self.capacity_tokens, f"{used} of {self.capacity_tokens}"
        tables = self.positions.of_kept(self.slots)
        for layer in range(self.layout.layers):
            fresh = rotate(self._live(self.planes.raw_keys)[layer], tables(layer))
            stored = self._live(self.planes.rotated_keys)[layer]
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
            self.window.received(layer, self.planes.rotated_keys[layer, :, :read], used, self.rows)
            for layer in range(self.layout.layers)
        ]
        novelty = None if self._novelty is None else self._novelty.of(self.slots.view())
        visible = times_visible(self.window.valid, used, self.layout.device)
        return Evidence(torch.stack(received), visible, norms, novelty)

    def _value_norms(self) -> Float[Tensor, "layers rows slots"]:
        norms = [v[:, : self.slots.used].float().norm(dim=-1) for v in self.planes.values]
        stacked = torch.stack(norms)
        return stacked if self.rows > 1 else stacked.mean(1, keepdim=True)

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
        self.positions.grow(capacity)


@dataclass(frozen=True)
class _Mark:
    """What later steps change of what was there before them; keys and values only come behind."""

    counts: SlotCounts
    cursor: SegmentCursor
    since_eviction: int
    window: State | None
    accumulated: Tensor | None
    recalled: tuple[Recalled, Lifted] | None
