"""Every family, nothing evicted: the logits of the stock model, in chunks of any size, frames encoded one at a time."""

from collections.abc import Callable, Iterator
from functools import cache as remember

import pytest
import torch
from support.scripts import (
    Script,
    difference,
    pieces,
    random_frames,
    run,
    script_of,
    stock_inputs,
    stock_logits,
    stock_of,
    whole_frames,
)
from support.tiny_models import TEXT, VISION, tiny_weights
from torch import Tensor
from transformers import PreTrainedModel

from inf_stream.cache.policies import make_policy
from inf_stream.cache.positions import SegmentCursor
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel

TOLERANCE = 1e-5
CUTS: dict[str, Callable[[Chunk], Iterator[Chunk]]] = {
    "one chunk": lambda chunk: pieces(chunk, [len(chunk)]),
    "chunks of 16": lambda chunk: pieces(chunk, [16]),
    "uneven chunks": lambda chunk: pieces(chunk, [7, 1, 23, 2, 40, 1, 1]),
    "token by token": lambda chunk: pieces(chunk, [1]),
}
WHOLE_CUTS: dict[str, Callable[[Chunk], Iterator[Chunk]]] = {
    "one chunk": lambda chunk: pieces(chunk, [len(chunk)]),
    "chunks of 16": lambda chunk: whole_frames(chunk, 16),
    "token by token": lambda chunk: whole_frames(chunk, 1),
}


@remember
def loaded(name: str) -> tuple[StreamModel, PreTrainedModel]:
    weights = tiny_weights(name)
    stock = stock_of(weights.model)
    return StreamModel(weights), stock


def full_cache(model: StreamModel) -> StreamCache:
    return StreamCache(
        model.layout,
        make_policy("full", {}),
        model.rotation,
        budget_tokens=64,
        chunk_tokens=512,
        evict_every_tokens=64,
    )


def cuts_of(model: StreamModel) -> dict[str, Callable[[Chunk], Iterator[Chunk]]]:
    return WHOLE_CUTS if model.layout.bidirectional_frames else CUTS


@pytest.mark.parametrize("name", TEXT)
def test_text_alone_gives_the_stock_logits(name: str) -> None:
    model, stock = loaded(name)
    script = Script(model, name).text(
        "It was the best of times, it was the worst of times; it was the age of wisdom. " * 2
    )
    expected = stock_logits(stock, stock_inputs(name, script.ids, torch.zeros(0, 1, 1, 3, dtype=torch.uint8)))
    for cut, how in CUTS.items():
        assert difference(run(model, full_cache(model), how(script.chunk)), expected) < TOLERANCE, cut


@pytest.mark.parametrize("name", VISION)
def test_frames_encoded_one_at_a_time_give_the_logits_of_the_stock_one_shot_forward(name: str) -> None:
    model, stock = loaded(name)
    frames = random_frames(model, 4)
    encoded = [model.encode(frame[None])[0] for frame in frames]
    script = script_of(model, name, encoded)
    expected = stock_logits(stock, stock_inputs(name, script.ids, frames))
    for cut, how in cuts_of(model).items():
        assert difference(run(model, full_cache(model), how(script.chunk)), expected) < TOLERANCE, cut


@pytest.mark.parametrize("name", VISION)
def test_vision_families_read_text_alone_as_the_stock_model(name: str) -> None:
    model, stock = loaded(name)
    script = Script(model, name).text("Call me Ishmael. Some years ago, never mind how long precisely.")
    expected = stock_logits(stock, {"input_ids": torch.tensor([script.ids])})
    assert difference(run(model, full_cache(model), pieces(script.chunk, [9])), expected) < TOLERANCE


@pytest.mark.parametrize("name", VISION)
def test_frames_matter_to_these_models(name: str) -> None:
    """Or the tests here would prove nothing."""
    model, _ = loaded(name)
    seen = script_of(model, name, model.encode(random_frames(model, 4)))
    chunk = seen.chunk
    blank = chunk.embeds * (chunk.tags.visual == 0)[:, None]
    deepstack = None if chunk.deepstack is None else torch.zeros_like(chunk.deepstack)

    def last(of: Chunk) -> Tensor:
        return run(model, full_cache(model), pieces(of, [len(of)]))[-1]

    expected = last(chunk)
    assert (last(Chunk(blank, chunk.tags, deepstack)) - expected).abs().max() > 0.1 * expected.std()
    if chunk.deepstack is not None:
        assert (last(Chunk(chunk.embeds, chunk.tags, deepstack)) - expected).abs().max() > 0.1 * expected.std()


@pytest.mark.parametrize("name", VISION)
def test_frames_encoded_together_equal_frames_encoded_alone(name: str) -> None:
    model, _ = loaded(name)
    frames = random_frames(model, 3)
    for together, frame in zip(model.encode(frames), frames, strict=True):
        alone = model.encode(frame[None])[0]
        assert torch.allclose(together.embeds, alone.embeds, rtol=1e-4, atol=1e-4)
        assert torch.equal(together.offsets, alone.offsets)
        assert len(together) == model.vision.tokens(frame.shape[1], frame.shape[0])
        if alone.deepstack is not None:
            assert torch.allclose(together.deepstack, alone.deepstack, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (16, 16), (64, 8)])
def test_m_rope_positions_equal_the_stock_model_s(name: str, shape: tuple[int, int]) -> None:
    model, stock = loaded(name)
    frames = random_frames(model, 3, *shape)
    script = script_of(model, name, model.encode(frames))
    inputs = stock_inputs(name, script.ids, frames)
    kept = {k: v for k, v in inputs.items() if "pixel" not in k}
    expected, _ = stock.model.get_rope_index(**kept)
    positions, _ = SegmentCursor(1, torch.device("cpu")).place(script.chunk.tags)
    assert torch.equal(positions, expected)
