"""What questions have in common, so that a choice can rest on what is particular to one.

The mean query of any question looks for the same few blocks: most of it is the form of a question. Taken by itself it
finds frames with what is asked for hardly better than chance, less the mean of the questions before it twice as often
(`demos/bench/recall.py`).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.base.errors import StateError
from inf_stream.base.layout import CacheLayout
from inf_stream.base.state import State

USUAL_QUESTIONS = (
    "What do you see?", "Did it appear?", "When did it appear?", "What was it?", "What is happening?",
    "Where was it?", "How long ago did you see it?", "Tell me about it.",
)  # fmt: skip
"""Heard at the beginning of a stream, before there are others."""
_LATEST = 1 / 8
"""Weight of the latest question in the moving mean."""


class UsualQuery:
    """Moving mean, over questions, of the mean unrotated query of each layer and head."""

    def __init__(self, layout: CacheLayout):
        shape = (layout.layers, layout.query_heads, layout.head_dim)
        self._mean = torch.zeros(shape, device=layout.device)
        self._heard = torch.zeros_like(self._mean)
        self._tokens = [0] * layout.layers
        self._count = 0

    def begin(self) -> None:
        """A question follows, in one part or several."""
        self._tokens = [0] * len(self._tokens)

    def hear(self, layer: int, queries: Float[Tensor, "query_heads tokens head_dim"]) -> None:
        """A layer's queries of the question's next part."""
        tokens = queries.shape[1]
        self._tokens[layer] += tokens
        self._heard[layer].lerp_(queries.float().mean(1), tokens / self._tokens[layer])

    def particular(self, layer: int) -> Float[Tensor, "query_heads head_dim"]:
        """What the question that was heard has beyond the usual."""
        return self._heard[layer] - self._mean[layer]

    def learn(self) -> None:
        """Count the question that was heard among the usual."""
        self._count += 1
        self._mean.lerp_(self._heard, max(_LATEST, 1 / self._count))

    def state(self) -> State:
        """The mean."""
        return State({"mean": self._mean}, {"count": self._count})

    def restore(self, state: State) -> None:
        """Take over what `state` of another gave.

        Raises:
            StateError: it does not fit; nothing was taken over.
        """
        mean = state.tensor("mean", tuple(self._mean.shape), torch.float32)
        if not bool(mean.isfinite().all()):
            raise StateError("the saved session has no numbers as the mean of its questions; it cannot be used")
        self._mean, self._count = mean.to(self._mean.device), state.count("count")
