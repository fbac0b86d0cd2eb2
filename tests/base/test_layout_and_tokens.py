"""Cache layout, token tags and rotation: sizes add up, pieces join, rotations turn."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from inf_stream.base.errors import (
    BudgetError,
    ConfigError,
    InfStreamError,
    ModelError,
    SessionError,
    SourceError,
)
from inf_stream.base.events import AnswerFinished, FinishReason, Frame, Question
from inf_stream.base.layout import CacheLayout
from inf_stream.base.rotation import rotate
from inf_stream.base.tokens import NO_FRAME, TokenTags

LAYOUT = CacheLayout(
    layers=2,
    query_heads=9,
    kv_heads=3,
    head_dim=64,
    sliding_windows=(None, 512),
    table_of_layer=(0, 1),
    segmented=False,
    bidirectional_frames=False,
    dtype=torch.bfloat16,
    device=torch.device("cpu"),
)


def test_bytes_per_token_count_three_planes() -> None:
    assert LAYOUT.bytes_per_token() == 3 * 2 * 3 * 64 * 2
    assert dataclasses.replace(LAYOUT, dtype=torch.float32).bytes_per_token() == 2 * LAYOUT.bytes_per_token()


def test_axes_follow_the_kind_of_position() -> None:
    assert LAYOUT.axes == 1
    assert dataclasses.replace(LAYOUT, segmented=True).axes == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 4}, "query heads come in equal groups"),
        ({"sliding_windows": (None,)}, "one entry per layer"),
        ({"table_of_layer": (0,)}, "one entry per layer"),
    ],
)
def test_impossible_layouts_are_caught(change: dict[str, object], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        dataclasses.replace(LAYOUT, **change)


def tags(count: int, first: int = 0) -> TokenTags:
    numbers = torch.arange(first, first + count)
    return TokenTags(
        time_ns=numbers * 10,
        frame=torch.full((count,), NO_FRAME),
        segment=numbers,
        offsets=numbers.repeat(3, 1),
        visual=numbers % 2,
    )


def same(a: TokenTags, b: TokenTags) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(TokenTags))


def test_tags_have_a_length() -> None:
    assert len(tags(5)) == 5


@given(st.integers(0, 12), st.integers(0, 12))
def test_slices_join_to_the_whole(a: int, b: int) -> None:
    start, stop = sorted((a, b))
    whole = tags(12)
    parts = [whole.slice(0, start), whole.slice(start, stop), whole.slice(stop, 12)]
    assert [len(part) for part in parts] == [start, stop - start, 12 - stop]
    assert same(TokenTags.concatenate(parts), whole)
    assert same(whole.slice(start, stop), tags(stop - start, start))


def test_tags_of_unequal_lengths_are_caught_under_test() -> None:
    with pytest.raises(TypeCheckError):
        dataclasses.replace(tags(5), segment=torch.arange(4))


def table(positions: torch.Tensor, rotary_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    frequencies = 10_000.0 ** (-torch.arange(0, rotary_dim, 2) / rotary_dim)
    angles = torch.outer(positions.float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def test_rotation_is_that_of_transformers() -> None:
    x = torch.randn(4, 7, 16)
    cos, sin = table(torch.arange(7), 16)
    expected, _ = apply_rotary_pos_emb(x[None], x[None], cos[None], sin[None])
    torch.testing.assert_close(rotate(x, (cos, sin)), expected[0])


def test_partial_rotation_leaves_the_rest() -> None:
    x = torch.randn(4, 7, 16)
    turned = rotate(x, table(torch.arange(7), 8))
    assert torch.equal(turned[..., 8:], x[..., 8:])
    torch.testing.assert_close(turned[..., :8], rotate(x[..., :8], table(torch.arange(7), 8)))


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_attention_depends_on_distance_only(i: int, j: int, shift: int) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 16, dtype=torch.float64)

    def product(a: int, b: int) -> torch.Tensor:
        at = [tuple(t.double() for t in table(torch.tensor([p]), 16)) for p in (a, b)]
        return (rotate(query, at[0]) * rotate(key, at[1])).sum()

    torch.testing.assert_close(product(i, j), product(i + shift, j + shift), rtol=1e-3, atol=1e-3)


def test_position_zero_is_the_identity() -> None:
    x = torch.randn(2, 3, 8)
    assert torch.equal(rotate(x, table(torch.zeros(3), 8)), x)


def test_frames_are_pictures() -> None:
    with pytest.raises(TypeCheckError):
        Frame(np.zeros((4, 4)), 0, 0)
    frame = Frame(np.zeros((4, 6, 3), dtype=np.uint8), at_ns=5, number=1)
    assert frame != Frame(frame.pixels, at_ns=5, number=1)


def test_answers_do_not_share_their_stats() -> None:
    question = Question("q", "why?", 0)
    one, two = (AnswerFinished(question, "", FinishReason.STOP, 0, None) for _ in range(2))
    one.stats["seen"] = 1
    assert two.stats == {}


@pytest.mark.parametrize("kind", [BudgetError, ConfigError, ModelError, SessionError, SourceError])
def test_one_root_catches_every_error(kind: type[Exception]) -> None:
    assert issubclass(kind, InfStreamError)
