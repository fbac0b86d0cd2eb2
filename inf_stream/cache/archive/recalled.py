"""Where recalled tokens stand among the live ones: a run of slots that can be lifted out, laid back, or let go."""

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inf_stream.base.errors import StateError
from inf_stream.base.layout import CacheLayout
from inf_stream.base.state import State
from inf_stream.cache.planes import KeyValuePlanes

Lifted: TypeAlias = tuple[Tensor, Tensor]
"""Rotated keys and values of the recalled tokens of all layers."""


class Recalled:
    """Tokens of the archive that take part, behind `start` live ones in memory.

    Attributes:
        start: slot of the first of them.
        tokens: slots that are taken.
    """

    def __init__(self, start: int, tokens: int, hidden: dict[int, Tensor | None]):
        self.start, self.tokens, self._hidden = start, tokens, hidden

    @property
    def slots(self) -> slice:
        """All of them."""
        return slice(self.start, self.start + self.tokens)

    def hidden(self, layer: int) -> Bool[Tensor, "slots"] | None:
        """Which of the slots hold no token of this layer, or None if all do."""
        if layer not in self._hidden:
            return torch.ones(self.tokens, dtype=torch.bool)
        return self._hidden[layer]

    def receive(self, layer: int, received: Float[Tensor, "rows slots"]) -> None:
        """Attention that its slots received; counted only while they are recalled for an answer."""

    def staying(self) -> "Recalled":
        """The same tokens, no longer for one answer."""
        return Recalled(self.start, self.tokens, self._hidden)

    # ---- among the live tokens ---------------------------------------------------------------------

    def let_go(self, planes: KeyValuePlanes, used: int) -> None:
        """Close the gap they leave among `used` live tokens, whose positions stay as they are."""
        planes.move(self.slots.stop, self.start, used - self.start)

    def lift(self, planes: KeyValuePlanes, used: int) -> Lifted:
        """Let them go, but keep what they held."""
        lifted = planes.rotated_keys[:, :, self.slots].clone(), planes.values[:, :, self.slots].clone()
        self.let_go(planes, used)
        return lifted

    def lay(self, planes: KeyValuePlanes, lifted: Lifted, used: int) -> None:
        """Put them back before the live token in slot `start`, of `used` live ones."""
        planes.move(self.start, self.slots.stop, used - self.start)
        planes.rotated_keys[:, :, self.slots], planes.values[:, :, self.slots] = lifted

    # ---- kept on disk ------------------------------------------------------------------------------

    def state(self, planes: KeyValuePlanes, layers: int) -> State:
        """What they hold; valid until the next step."""
        hidden = [self.hidden(layer) for layer in range(layers)]
        none = torch.zeros(self.tokens, dtype=torch.bool)
        return State(
            {
                "keys": planes.rotated_keys[:, :, self.slots],
                "values": planes.values[:, :, self.slots],
                "hidden": torch.stack([none if one is None else one.cpu() for one in hidden]),
            },
            {"start": self.start, "tokens": self.tokens},
        )

    @classmethod
    def restored(cls, state: State, planes: KeyValuePlanes, layout: CacheLayout, used: int, most: int) -> "Recalled":
        """What `state` of another gave, laid among `used` live tokens; `most` have room.

        Raises:
            StateError: it does not fit.
        """
        start, tokens = state.count("start"), state.count("tokens")
        if start > used or not 0 < tokens <= most:
            raise StateError(
                f"the saved session has {tokens} recalled tokens behind {start} of {used}; it cannot be used"
            )
        shape = (layout.layers, layout.kv_heads, tokens, layout.head_dim)
        lifted = state.tensor("keys", shape, layout.dtype), state.tensor("values", shape, layout.dtype)
        hidden = state.tensor("hidden", (layout.layers, tokens), torch.bool)
        recalled = cls(start, tokens, {layer: one if bool(one.any()) else None for layer, one in enumerate(hidden)})
        recalled.lay(planes, lifted, used)
        return recalled
