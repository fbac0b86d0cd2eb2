"""What a cache will allocate, known before it does."""

from dataclasses import dataclass

import torch

from inf_stream.base.errors import BudgetError, ConfigError
from inf_stream.base.grid import SLOT_GRID, round_up
from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import RotationTables
from inf_stream.cache.policies.base import Policy
from inf_stream.cache.slots import BYTES_PER_TOKEN as TAG_BYTES


@dataclass(frozen=True, slots=True)
class CacheSizes:
    """Tokens of a cache: kept after each eviction, in one step, least between two evictions, recalled at a time."""

    budget_tokens: int
    chunk_tokens: int
    evict_every_tokens: int
    recall_tokens: int = 0

    @property
    def capacity_tokens(self) -> int:
        """Slots per layer: at no time are there more tokens."""
        return round_up(self.budget_tokens + self.evict_every_tokens + self.chunk_tokens, SLOT_GRID)

    @property
    def recall_slots(self) -> int:
        """Slots beside them for what is recalled."""
        return round_up(self.recall_tokens, SLOT_GRID)

    def check(self, policy: Policy) -> None:
        """Refuse sizes that the policy cannot work with.

        Raises:
            ConfigError: `evict_every_tokens` is shorter than the policy's window.
            BudgetError: the budget is smaller than the policy can work with.
        """
        if self.evict_every_tokens < policy.window_tokens:
            raise ConfigError(
                f"cache.evict_every_tokens is {self.evict_every_tokens}, but the retrieval window of '{policy.name}' "
                f"is {policy.window_tokens}; no eviction may fall inside the window: raise the former or lower "
                "policy.window"
            )
        if self.budget_tokens < policy.least_budget_tokens:
            raise BudgetError(
                f"budget of {self.budget_tokens} tokens is too small for '{policy.name}' with these options, which "
                f"needs {policy.least_budget_tokens}; raise cache.budget_tokens"
            )


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of a cache.

    Attributes:
        slot_bytes: of one slot in all layers: keys, values, tags, rotation tables, accumulated attention.
        recall_slot_bytes: of one slot for recalled tokens: keys, values, rotation tables.
        fixed_bytes: of the window of latest queries, whatever the capacity.
    """

    slot_bytes: int
    recall_slot_bytes: int
    fixed_bytes: int

    def total_bytes(self, sizes: CacheSizes) -> int:
        """All that is allocated at once; equals `StreamCache.bytes` of a new cache."""
        return self._beside(sizes) + self.slot_bytes * sizes.capacity_tokens

    def largest_budget(self, memory_bytes: int, sizes: CacheSizes) -> int:
        """The largest budget with which a cache of otherwise these sizes fits; less than 1 if none does."""
        slots = (memory_bytes - self._beside(sizes)) // self.slot_bytes // SLOT_GRID * SLOT_GRID
        return slots - sizes.chunk_tokens - sizes.evict_every_tokens

    def _beside(self, sizes: CacheSizes) -> int:
        return self.fixed_bytes + self.recall_slot_bytes * sizes.recall_slots


def footprint(layout: CacheLayout, policy: Policy, rotation: RotationTables) -> Footprint:
    """The memory of a cache for a model with this layout and these rotation tables."""
    rows = layout.layers * (layout.kv_heads if policy.per_head else 1)
    accumulated = rows * torch.float32.itemsize if policy.accumulates else 0
    tables = 0
    if not layout.segmented:
        one = torch.zeros(1, 1, 1, dtype=torch.int64, device=layout.device)
        tables = sum(part.nbytes for table in rotation(one) for part in table)
    window = layout.layers * layout.query_heads * policy.window_tokens * layout.head_dim * layout.dtype.itemsize
    recalled = layout.bytes_per_token() + tables
    return Footprint(recalled + rows * TAG_BYTES + accumulated, recalled, window)
