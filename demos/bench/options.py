"""Which of several answers a model finds likeliest, judged without a trace."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from inf_stream.engine.engine import Engine


def likelihoods(engine: Engine, first: Float[Tensor, "1 vocabulary"], options: Sequence[str]) -> list[float]:
    """Mean log likelihood a token of each option; `first` are the logits behind the question, which was just read.

    The options are read one by one, and none is stored.
    """
    cache, model = engine.cache, engine.model
    found = []
    for option in options:
        words, ids = engine._assembler._text(option), model.ids(option)
        numbered = engine._assembler._chunk([words])
        after = model.logits(model.forward(numbered, cache.begin(numbered.tags)))
        logits = torch.cat((first, after[:-1])).log_softmax(-1)
        found.append(float(logits.gather(1, ids[:, None].to(logits.device)).mean()))
    return found
