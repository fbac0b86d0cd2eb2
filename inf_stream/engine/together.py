"""Answers of several streams on one model, a token of each in one pass over the weights.

A token by itself costs the reading of all weights, and so do a few together; how much that saves is measured by
`demos/bench/together.py`.
"""

from collections.abc import Sequence

import torch

from inf_stream.engine.engine import Engine


def read_together(engines: Sequence[Engine]) -> None:
    """Read the latest token of each engine's answer; their next `step_answer` has only to draw.

    The engines share their weights, and each `has_unread`. What each then says is what it would have said by itself,
    but for the rounding of products of other shapes.

    Raises:
        torch.OutOfMemoryError: and every engine is as it was.
    """
    readings = [engine.begin_reading() for engine in engines]
    model = engines[0].model
    with engines[0].stopwatch("decode"):
        hidden = model.forward_together([r.chunk for r in readings], [r.step for r in readings])
        logits = model.logits(torch.cat(hidden))
        for reading, own in zip(readings, logits, strict=True):
            reading.end(own)
