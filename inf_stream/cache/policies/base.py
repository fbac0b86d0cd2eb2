"""The contract of a cache policy: a pure function from what is known of the kept tokens to which of them stay."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from inf_stream.cache.slots import SlotView


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the cache measured for a policy that asked for it; rows are layers, or key/value heads of layers.

    Attributes:
        received: attention received from the retrieval window, or accumulated over the token's life.
        visible: how many queries of the window could see each slot.
        value_norms: Euclidean length of each slot's value vector, averaged over the heads of the row.
        novelty: how little the slot's frame resembles those before it, 0 to 1; 0 for text.
    """

    received: Float[Tensor, "layers rows slots"] | None = None
    visible: Int[Tensor, "slots"] | None = None
    value_norms: Float[Tensor, "layers rows slots"] | None = None
    novelty: Float[Tensor, "layers rows slots"] | None = None


@dataclass(frozen=True)
class Policy(ABC):
    """Base of all policies; a policy's settings are its dataclass fields.

    Class attributes say what the cache must measure: `per_head` (each key/value head keeps its own tokens),
    `accumulates` (attention received over a token's whole life), `bounded` (False only for the reference that
    keeps everything).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    accumulates: ClassVar[bool] = False
    bounded: ClassVar[bool] = True

    @property
    def window_tokens(self) -> int:
        """Latest queries whose attention decides; 0 asks for none."""
        return 0

    @property
    def per_head(self) -> bool:
        """Whether each key/value head keeps its own tokens, instead of one choice for the layer."""
        return False

    @property
    def needs_value_norms(self) -> bool:
        """Whether `plan` looks at `Evidence.value_norms`."""
        return False

    @property
    def needs_novelty(self) -> bool:
        """Whether `plan` looks at `Evidence.novelty`."""
        return False

    @property
    def frames_remembered(self) -> int:
        """How many latest frames the policy wants to know the beginnings of."""
        return 1

    @property
    def least_budget_tokens(self) -> int:
        """Smallest budget the policy can work with."""
        return 1

    @abstractmethod
    def plan(self, slots: SlotView, evidence: Evidence, budget_tokens: int) -> Int[Tensor, "layers rows kept"]:
        """Slots that stay, in rising order, the same number in each row and at most `budget_tokens`.

        Pure: mutates nothing. Called only when more than `budget_tokens` slots are used. The newest token stays.
        """


def keep_best(priority: Float[Tensor, "layers rows slots"], count: int) -> Int[Tensor, "layers rows kept"]:
    """Slots of the `count` highest priorities of each row, in rising order; of equals the newer one stays."""
    newest_first = priority.flip(-1).sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return (priority.shape[-1] - 1 - newest_first).sort(dim=-1).values


def keep_all_rows(slots: SlotView, places: Int[Tensor, "kept"]) -> Int[Tensor, "layers rows kept"]:
    """The same slots in every row."""
    layers, rows, _ = slots.index.shape
    return places.expand(layers, rows, -1)


def keep_first_and_last(slots: SlotView, first: int, last: int) -> Int[Tensor, "layers rows kept"]:
    """The `first` oldest and the `last` newest slots of every row."""
    order = torch.arange(slots.used, device=slots.index.device)
    return keep_all_rows(slots, torch.cat((order[:first], order[slots.used - last :])))


def newest_frames_first_index(slots: SlotView, frames: int, room_tokens: int) -> int:
    """Index of the first token of the oldest of the `frames` newest frames that together fit `room_tokens`.

    A frame newer than that is complete in the cache if everything from this index on stays.
    """
    first = slots.tokens_seen
    for _, start in reversed(slots.newest_frames[-frames:] if frames else ()):
        if slots.tokens_seen - start > room_tokens:
            break
        first = start
    return first


def protect(
    priority: Float[Tensor, "layers rows slots"], protected: Bool[Tensor, "layers rows slots"]
) -> Float[Tensor, "layers rows slots"]:
    """Raise protected slots above all others."""
    return priority.masked_fill(protected, torch.inf)
