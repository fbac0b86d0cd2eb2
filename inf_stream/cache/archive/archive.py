"""What the cache evicts, kept a second time: whole blocks, quantised, with an index by which questions find them.

A block goes in the moment the first of its tokens is evicted in any layer, while all of them are still there in every
layer; so it is written once and whole, whatever each layer keeps of it afterwards. A frame that says what the frame
before it said is not written again: the block before it then stands for both (`ArchiveSizes.merge_above`).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from inf_stream.base.errors import BudgetError, StateError
from inf_stream.base.layout import CacheLayout
from inf_stream.base.state import State
from inf_stream.base.tokens import NO_FRAME, TokenTags
from inf_stream.cache.archive.blocks import TEXT_TOKENS, Block, BlockCutter
from inf_stream.cache.archive.store import BlockShape, BlockStore, reserve
from inf_stream.cache.archive.usual import UsualQuery
from inf_stream.cache.planes import KeyValuePlanes
from inf_stream.cache.slots import SlotTable

_MERGED_NS = 60 * 10**9
"""Longest time that one block stands for: what is recalled shows the clock of its beginning."""
_PIECES = 64
"""Pieces of a frame that are compared with those of the frame before; more are written unseen."""
_MOVING = 0.05
"""Weight of a new block in the moving mean that its index is compared around."""


@dataclass(frozen=True, slots=True)
class ArchiveSizes:
    """Bounds of an archive.

    Attributes:
        host_bytes: of keys, values and index in host memory.
        disk_bytes: of keys and values on disk.
        recall_tokens: most tokens that come back for a question.
        folder: of the disk's part; None for the system's temporary folder.
        merge_above: how alike two frames in a row must be to be kept as one, as the cosine of their mean keys around
            the mean of all; above 1 none are.
        keep_recalled: what a question calls back stays with the memory until the next one does.
        choose_by: ``means`` compares a question's mean query with the blocks' mean keys; ``attention`` lets each of
            its tokens attend to all archived keys; ``auto`` takes the latter for text, the former for frames.
    """

    host_bytes: int
    disk_bytes: int = 0
    recall_tokens: int = 512
    folder: Path | None = None
    merge_above: float = 0.95
    keep_recalled: bool = False
    choose_by: str = "auto"


@dataclass
class _Facts:
    """Integers about the blocks, one place for each that the rings hold."""

    first: Tensor
    tokens: Tensor
    from_ns: Tensor
    to_ns: Tensor
    frame: Tensor

    @classmethod
    def of(cls, places: int) -> "_Facts":
        return cls(*(torch.zeros(places, dtype=torch.int64) for _ in range(5)))


class Archive:
    """Blocks of one stream, at most as many as `sizes` allow; the oldest go first.

    The disk's part is reserved at once, the memory when the first block comes; a block's size is then the largest so
    far that no more than `TEXT_TOKENS` tokens need, so that a frame fills its blocks.

    Raises:
        BudgetError: the memory holds no two blocks.
        ConfigError: the disk's part cannot be had.
    """

    def __init__(self, layout: CacheLayout, sizes: ArchiveSizes):
        self.layout, self.sizes = layout, sizes
        self.merged = 0
        self.usual = UsualQuery(layout)
        self._cutter = BlockCutter()
        self._store: BlockStore | None = None
        self._facts = _Facts.of(0)
        self._index = torch.empty(0)
        self._mean = torch.empty(0)
        self._offsets = torch.empty(0)
        self._last: dict[int, int] = {}
        self._space = reserve(sizes.disk_bytes, sizes.folder) if sizes.disk_bytes else None
        least = self._blocks_within(sizes.host_bytes, TEXT_TOKENS)
        if least < 2:
            raise BudgetError(
                f"an archive of {sizes.host_bytes} bytes holds no two blocks of {TEXT_TOKENS} tokens of this model; "
                f"raise archive.host_mib to at least {-(-2 * self._block_bytes(TEXT_TOKENS) // 2**20)}"
            )

    # ---- sizes -------------------------------------------------------------------------------------

    @property
    def blocks(self) -> int:
        """Blocks that are there."""
        return 0 if self._store is None else self._store.written - self._store.oldest

    @property
    def block_tokens(self) -> int:
        """Places of a block; 0 before the first."""
        return 0 if self._store is None else self._store.shape.tokens

    @property
    def recall_blocks(self) -> int:
        """Blocks that a question gets now."""
        return min(self.sizes.recall_tokens // self.block_tokens, self.blocks) if self.blocks else 0

    def bytes(self) -> int:
        """Memory and disk of the blocks that are there, index included."""
        return 0 if self._store is None else self.blocks * self._block_bytes(self._store.shape.tokens)

    def facts(self) -> dict[str, int | float]:
        """The sizes by the names of their settings; a saved session goes on with the same only."""
        sizes = self.sizes
        return {
            "host_mib": sizes.host_bytes >> 20,
            "disk_mib": sizes.disk_bytes >> 20,
            "recall_tokens": sizes.recall_tokens,
            "merge_above": sizes.merge_above,
            "keep_recalled": sizes.keep_recalled,
        }

    # ---- in ----------------------------------------------------------------------------------------

    def note(self, first: int, tags: TokenTags) -> None:
        """New tokens are in the cache, the first with the running number `first`."""
        self._cutter.take(first, tags)

    def take(self, slots: SlotTable, planes: KeyValuePlanes, keep: Int[Tensor, "layers rows kept"]) -> None:
        """Write the blocks that the cache, about to keep only `keep`, breaks up."""
        index = slots.planes["index"][:, :, : slots.used]
        gone = torch.ones_like(index, dtype=torch.bool).scatter_(-1, keep, value=False)
        blocks = self._cutter.touched(torch.unique(index[gone]).cpu())
        if not blocks:
            return
        if self._store is None:
            self._store = self._make_store(blocks)
        most = self._store.shape.tokens
        # Few at a time, so that the copy beside the cache stays small.
        parts = [part for block in blocks for part in block.cut(most)]
        for begin in range(0, len(parts), 16):
            self._write(parts[begin : begin + 16], slots, planes)

    def _write(self, parts: list[Block], slots: SlotTable, planes: KeyValuePlanes) -> None:
        assert self._store is not None, "made by `take`"
        places = self._slots_of(parts, slots)
        keys, values = (
            plane[:, :, : slots.used]
            .gather(2, places.flatten(2)[..., None].expand(-1, planes.raw_keys.shape[1], -1, planes.raw_keys.shape[3]))
            .view(self.layout.layers, self.layout.kv_heads, len(parts), -1, self.layout.head_dim)
            .permute(2, 0, 1, 3, 4)
            for plane in (planes.raw_keys, planes.values)
        )
        counts = torch.tensor([p.tokens for p in parts], device=keys.device)
        filled = torch.arange(keys.shape[3], device=keys.device) < counts[:, None]
        keys = keys * filled[:, None, None, :, None]
        values = values * filled[:, None, None, :, None]
        means = (keys.float().sum(3) / counts[:, None, None, None]).flatten(2)
        fresh: list[int] = []
        for n, part in enumerate(parts):
            if self._merge(part, means[n]):
                continue
            number = self._store.written + len(fresh)
            self._enter(number, part, means[n])
            if self.layout.segmented:
                self._offsets[number % self._store.capacity] = self._segments_of(places[0, 0, n], slots)
            fresh.append(n)
        if fresh:
            chosen = torch.tensor(fresh, device=keys.device)
            self._store.write(keys[chosen], values[chosen])

    def _slots_of(self, parts: list[Block], slots: SlotTable) -> Int[Tensor, "layers kv_rows blocks tokens"]:
        """Where their tokens are, in every layer and row; places behind a short block's end repeat its last token."""
        index = slots.planes["index"][:, :, : slots.used].contiguous()
        firsts = torch.tensor([p.first for p in parts], device=index.device)
        starts = torch.searchsorted(index, firsts.expand(*index.shape[:2], -1).contiguous())
        assert self._store is not None, "made by `take`"
        within = torch.arange(self._store.shape.tokens, device=index.device)
        last = torch.tensor([p.tokens - 1 for p in parts], device=index.device)
        return starts[..., None] + torch.minimum(within[None], last[:, None])

    def _segments_of(self, places: Int[Tensor, "tokens"], slots: SlotTable) -> Tensor:
        """Segment and offsets of a block's tokens, ``[4, tokens]``."""
        segment = slots.planes["segment"][0, 0][places]
        return torch.cat((segment[None], slots.offsets[:, 0, 0][:, places])).cpu()

    def _merge(self, part: Block, mean: Float[Tensor, "layers width"]) -> bool:
        """Let the block before stand for this one, too, if it says the same."""
        assert self._store is not None, "made by `take`"
        number = self._last.get(part.piece)
        if part.frame == NO_FRAME or number is None or number < self._store.oldest:
            return False
        place = number % self._store.capacity
        facts = self._facts
        follows = int(facts.to_ns[place]) <= part.from_ns and part.to_ns - int(facts.from_ns[place]) <= _MERGED_NS
        if int(facts.tokens[place]) != part.tokens or not follows:
            return False
        before = self._index[:, place].float() - self._mean
        alike = torch.cosine_similarity(mean - self._mean, before, dim=1).mean()
        if float(alike) < self.sizes.merge_above:
            return False
        facts.to_ns[place] = part.to_ns
        self.merged += 1
        return True

    def _enter(self, number: int, part: Block, mean: Tensor) -> None:
        assert self._store is not None, "made by `take`"
        place, facts = number % self._store.capacity, self._facts
        facts.first[place], facts.tokens[place], facts.frame[place] = part.first, part.tokens, part.frame
        facts.from_ns[place], facts.to_ns[place] = part.from_ns, part.to_ns
        self._index[:, place] = mean.to(self._index.dtype)
        self._mean = mean.clone() if number == 0 else self._mean.lerp(mean, max(_MOVING, 1 / (number + 1)))
        if part.frame != NO_FRAME and part.piece < _PIECES:
            self._last[part.piece] = number

    # ---- out ---------------------------------------------------------------------------------------

    def candidates(self, between_ns: tuple[int, int] | None = None) -> Bool[Tensor, "places"]:
        """Which places hold a block, of these stream times (both ends included) if any are given."""
        allowed = torch.zeros(len(self._facts.first), dtype=torch.bool)
        allowed[self._places()] = True
        if between_ns is not None:
            allowed &= (self._facts.from_ns <= between_ns[1]) & (self._facts.to_ns >= between_ns[0])
        return allowed

    def index_of(self, layer: int) -> Float[Tensor, "places width"]:
        """Mean key of every place's block, heads side by side."""
        return self._index[layer]

    def in_time_order(self, places: Int[Tensor, "blocks"]) -> Int[Tensor, "blocks"]:
        """The same places, earlier tokens first."""
        return places[self._facts.first[places].argsort()]

    def spans(self, places: Int[Tensor, "blocks"]) -> tuple[Int[Tensor, "blocks"], Int[Tensor, "blocks"]]:
        """Running number of the first token of each place's block, and how many it has."""
        return self._facts.first[places], self._facts.tokens[places]

    def times_ns(self) -> Int[Tensor, "places"]:
        """Stream time at which each place's block begins."""
        return self._facts.from_ns

    def frames(self) -> Int[Tensor, "places"]:
        """Frame that each place's block belongs to, or `NO_FRAME`."""
        return self._facts.frame

    def read(
        self, layer: int, places: Int[Tensor, "blocks"]
    ) -> tuple[Float[Tensor, "kv_heads slots head_dim"], Float[Tensor, "kv_heads slots head_dim"]]:
        """Unrotated keys and values of one layer, blocks side by side."""
        assert self._store is not None, "blocks were chosen"
        return self._store.read(layer, self.numbers(places))

    def keys(self, layer: int, places: Int[Tensor, "blocks"]) -> Float[Tensor, "kv_heads slots head_dim"]:
        """The keys of `read` alone."""
        assert self._store is not None, "there are candidates"
        return self._store.keys(layer, self.numbers(places))

    def filled(self, places: Int[Tensor, "blocks"]) -> Bool[Tensor, "slots"]:
        """Which of the slots of `read` hold a token."""
        return (torch.arange(self.block_tokens) < self._facts.tokens[places][:, None]).flatten()

    def segments(self, places: Int[Tensor, "blocks"]) -> Int[Tensor, "4 slots"]:
        """Segment and three offsets of the tokens of `read`; of a layout that is not segmented there are none."""
        return self._offsets[places].permute(1, 0, 2).flatten(1)

    def numbers(self, places: Int[Tensor, "blocks"]) -> Int[Tensor, "blocks"]:
        """Running numbers of the blocks that are in these places now."""
        assert self._store is not None, "blocks were chosen"
        oldest, capacity = self._store.oldest, self._store.capacity
        return oldest + (places - oldest) % capacity

    def _places(self) -> Tensor:
        assert self._store is not None, "there are blocks"
        return torch.arange(self._store.oldest, self._store.written) % self._store.capacity

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self) -> State:
        """Everything in it."""
        parts = {"cutter": self._cutter.state(), "usual": self.usual.state()}
        facts = {"merged": self.merged, "block_tokens": self.block_tokens}
        whole = State.of(parts, **facts, written=0, last=[])
        if self._store is None:
            return whole
        places = self._places()
        whole.facts |= {"written": self._store.written, "last": [list(pair) for pair in self._last.items()]}
        whole.tensors |= self._store.filled() | {name: t[places] for name, t in vars(self._facts).items()}
        whole.tensors |= {"index": self._index[:, places], "mean": self._mean}
        if self.layout.segmented:
            whole.tensors["offsets"] = self._offsets[places]
        return whole

    def restore(self, state: State) -> None:
        """Take over what `state` of an archive of the same model and sizes gave.

        Raises:
            StateError: it does not fit this archive, which then must not be used any more.
        """
        self._cutter.restore(state.part("cutter"))
        self.usual.restore(state.part("usual"))
        self.merged = state.count("merged")
        tokens, written = state.count("block_tokens"), state.count("written")
        if not tokens:
            return
        if tokens > TEXT_TOKENS or not written:
            raise StateError(f"the saved session has archived blocks of {tokens} tokens; it cannot be used")
        self._store = store = self._allocate(tokens)
        last = state.fact("last", list)
        if not all(isinstance(p, list) and [type(n) for n in p] == [int, int] and p[1] < written for p in last):
            raise StateError("the saved session has something else than pairs of numbers as 'last'")
        self._last = dict(last)
        store.count(written)
        there = self.blocks
        for name, ring in store.filled().items():
            ring.copy_(saved := state.tensor(name, tuple(ring.shape), ring.dtype))
            if ring.is_floating_point() and not bool(saved.isfinite().all()):
                raise StateError(f"the saved session has no numbers as the archive's '{name}'; it cannot be used")
        places = self._places()
        for name, facts in vars(self._facts).items():
            facts[places] = state.tensor(name, (there,), torch.int64)
        layers, width = self._mean.shape
        index = state.tensor("index", (layers, there, width), self._index.dtype)
        self._index[:, places] = index.to(self._index.device)
        self._mean = state.tensor("mean", (layers, width), torch.float32).to(self._mean.device)
        if self.layout.segmented:
            self._offsets[places] = state.tensor("offsets", (there, 4, tokens), torch.int64)

    # ---- inside ------------------------------------------------------------------------------------

    def _block_bytes(self, tokens: int) -> int:
        layout = self.layout
        shape = BlockShape(layout.layers, layout.kv_heads, tokens, layout.head_dim)
        index = layout.layers * layout.kv_heads * layout.head_dim * layout.dtype.itemsize
        integers = (5 + (4 * tokens if layout.segmented else 0)) * torch.int64.itemsize
        return shape.bytes + index + integers

    def _blocks_within(self, size_bytes: int, tokens: int) -> int:
        return size_bytes // self._block_bytes(tokens)

    def _make_store(self, blocks: list[Block]) -> BlockStore:
        known = [*blocks, *self._cutter.whole]
        frames = [b.tokens for b in known if b.frame != NO_FRAME]
        largest = max(frames, default=TEXT_TOKENS)
        return self._allocate(-(-largest // -(-largest // TEXT_TOKENS)))

    def _allocate(self, tokens: int) -> BlockStore:
        layout, sizes = self.layout, self.sizes
        shape = BlockShape(layout.layers, layout.kv_heads, tokens, layout.head_dim)
        index_bytes = self._block_bytes(tokens) - shape.bytes
        # Blocks on disk have their index in memory; at least half of that is for blocks.
        disk_blocks = min(sizes.disk_bytes // shape.bytes, sizes.host_bytes // 2 // index_bytes)
        beside = disk_blocks * index_bytes
        host_blocks = max(1, self._blocks_within(sizes.host_bytes - beside, tokens))
        store = BlockStore(layout, shape, host_blocks, disk_blocks, self._space)
        self._facts = _Facts.of(store.capacity)
        width = layout.kv_heads * layout.head_dim
        self._index = torch.zeros(layout.layers, store.capacity, width, dtype=layout.dtype, device=layout.device)
        self._mean = torch.zeros(layout.layers, width, device=layout.device)
        if layout.segmented:
            self._offsets = torch.zeros(store.capacity, 4, tokens, dtype=torch.int64)
        return store
