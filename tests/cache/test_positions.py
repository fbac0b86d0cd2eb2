"""Segment positions: gaps close, inner geometry stays, appending agrees with working everything out anew."""

import itertools

import hypothesis.strategies as st
import torch
from hypothesis import given
from support.reference_cache import Entry, positions_by_hand

from inf_stream.base.tokens import TokenTags
from inf_stream.cache.positions import SegmentCursor, segment_positions

tokens = st.tuples(st.integers(0, 2), st.tuples(*[st.integers(0, 5)] * 3))


def by_hand(segment: list[int], offsets: list[tuple[int, int, int]]) -> torch.Tensor:
    entries = [Entry(i, 0, -1, s, o, True) for i, (s, o) in enumerate(zip(segment, offsets, strict=True))]
    return torch.tensor(positions_by_hand(entries, segmented=True)).T


def tags_of(segment: torch.Tensor, offsets: torch.Tensor) -> TokenTags:
    zeros = torch.zeros_like(segment)
    return TokenTags(zeros, zeros, segment, offsets, zeros)


def test_text_alone_gets_its_rank() -> None:
    segment = torch.tensor([[3, 8, 9, 20]])
    positions = segment_positions(segment, torch.zeros(3, 1, 4, dtype=torch.int64))
    assert positions[:, 0].tolist() == [[0, 1, 2, 3]] * 3


def test_the_drawing_in_the_module() -> None:
    # text, a frame of 2 rows of 3 with two tokens evicted, text
    segment = torch.tensor([[0, 1, 1, 1, 1, 2]])
    height, width = [0, 0, 0, 1, 1, 0], [0, 0, 2, 0, 1, 0]
    offsets = torch.tensor([[0] * 6, height, width])[:, None]
    positions = segment_positions(segment, offsets)[:, 0]
    assert positions[0].tolist() == [0, 1, 1, 1, 1, 4]
    assert positions[1].tolist() == [0, 1, 1, 2, 2, 4]
    assert positions[2].tolist() == [0, 1, 3, 1, 2, 4]


@given(st.lists(tokens, min_size=1, max_size=30))
def test_positions_equal_those_worked_out_by_hand(drawn: list[tuple[int, tuple[int, int, int]]]) -> None:
    segment = torch.tensor([step for step, _ in drawn]).cumsum(0)
    offsets = [o for _, o in drawn]
    found = segment_positions(segment[None], torch.tensor(offsets).T[:, None])
    assert torch.equal(found[:, 0], by_hand(segment.tolist(), offsets))


@given(st.lists(tokens, min_size=2, max_size=30), st.lists(st.integers(1, 29), max_size=5))
def test_appending_in_pieces_equals_all_at_once(drawn: list[tuple[int, tuple[int, int, int]]], cuts: list[int]) -> None:
    segment = torch.tensor([step for step, _ in drawn]).cumsum(0)
    offsets = torch.tensor([o for _, o in drawn]).T
    whole = segment_positions(segment[None], offsets[:, None])[:, 0]
    cursor, found = SegmentCursor(2, torch.device("cpu")), []
    places = sorted({0, len(drawn), *(c for c in cuts if c < len(drawn))})
    for start, stop in itertools.pairwise(places):
        positions, cursor = cursor.place(tags_of(segment[start:stop], offsets[:, start:stop]))
        found.append(positions)
    assert torch.equal(torch.cat(found, dim=-1), whole[:, None].expand(3, 2, -1))


def test_a_rebuild_moves_the_cursor_behind_what_is_kept() -> None:
    cursor = SegmentCursor(1, torch.device("cpu"))
    segment = torch.tensor([[5, 9, 9, 9, 9]])
    offsets = torch.tensor([[0] * 5, [0, 0, 0, 1, 1], [0, 0, 1, 0, 1]])[:, None]
    cursor.rebuild(segment, offsets)
    more = torch.tensor([[0], [1], [2]])
    positions, cursor = cursor.place(tags_of(torch.tensor([9]), more))
    assert positions[:, 0, 0].tolist() == [1, 2, 3]
    positions, _ = cursor.place(tags_of(torch.tensor([10]), torch.zeros(3, 1, dtype=torch.int64)))
    assert positions[:, 0, 0].tolist() == [4, 4, 4]
