"""The attention bias at work on real weights: without it the cache freezes, with it the kept tokens turn over."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import inf_stream.app
from inf_stream.base.tokens import NO_FRAME, TokenTags
from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel
from inf_stream.models.weights.loaded import LoadedWeights

BUDGET, CHUNK, TOKENS = 256, 128, 6144


@pytest.fixture(scope="module")
def model(load_weights: Callable[[torch.dtype], LoadedWeights]) -> StreamModel:
    return StreamModel(load_weights(torch.bfloat16))


@pytest.fixture(scope="module")
def book(model: StreamModel) -> torch.Tensor:
    (file,) = (Path(inf_stream.app.__file__).parent / "data").glob("*.txt")
    return model.ids(file.read_text(encoding="utf-8")[: 6 * TOKENS])[:TOKENS]


def survivors(model: StreamModel, book: torch.Tensor, **options: float) -> float:
    """Of the relevant tokens kept in the middle of the stream, the share still kept at its end."""
    policy = make_policy("inf-mllm", {"sinks": 0, **options})
    cache = StreamCache(
        model.layout, policy, model.rotation, budget_tokens=BUDGET, chunk_tokens=CHUNK, evict_every_tokens=64
    )
    middle: list[set[int]] = []
    for first in range(0, TOKENS, CHUNK):
        number = torch.arange(first, first + CHUNK)
        zeros = torch.zeros_like(number)
        tags = TokenTags(zeros, zeros + NO_FRAME, number, zeros.expand(3, -1), zeros)
        step = cache.begin(tags)
        model.forward(Chunk(model.embed(book[first : first + CHUNK]), tags), step)
        cache.commit(step)
        if first + CHUNK == TOKENS // 2:
            relevant = cache.slots.view().index[:, 0, : BUDGET // 2]
            middle = [set(row.tolist()) for row in relevant]
    end = [set(row.tolist()) for row in cache.slots.view().index[:, 0]]
    return sum(len(a & b) for a, b in zip(middle, end, strict=True)) / sum(map(len, middle))


def test_slope_zero_freezes_the_kept_set_and_the_default_turns_it_over(model: StreamModel, book: torch.Tensor) -> None:
    frozen = survivors(model, book, bias_slope=0.0)
    turning = survivors(model, book)
    assert frozen > 0.2, f"{frozen:.2f} of the tokens relevant half a stream ago are still kept with slope 0"
    assert turning < 0.1, f"{turning:.2f} of them are still kept with the default slope"
