"""Every token of the stream belongs to one block, frames whole, in stream order."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.toy_stream import TagMaker

from inf_stream.base.errors import StateError
from inf_stream.base.tokens import NO_FRAME
from inf_stream.cache.archive.blocks import TEXT_TOKENS, Block, BlockCutter

PIECES = st.lists(st.one_of(st.integers(1, 70), st.tuples(st.integers(1, 5), st.integers(1, 9))), max_size=25)


def cut(pieces: list, chunk: int) -> tuple[BlockCutter, list[int]]:
    """A stream of texts (tokens) and pictures (rows, columns), handed over in chunks; and each token's frame."""
    cutter, tags, frames = BlockCutter(), TagMaker(), list[int]()
    for piece in pieces:
        new = tags.picture(*piece) if isinstance(piece, tuple) else tags.text(piece)
        for start in range(0, len(new), chunk):
            cutter.take(len(frames), new.slice(start, min(start + chunk, len(new))))
            frames += new.frame[start : start + chunk].tolist()
    return cutter, frames


@given(PIECES, st.integers(1, 40))
def test_every_token_is_in_one_block(pieces: list, chunk: int) -> None:
    cutter, frames = cut(pieces, chunk)
    place = 0
    for block in cutter.whole:
        assert block.first == place
        assert {frames[i] for i in range(place, place + block.tokens)} == {block.frame}
        assert block.from_ns <= block.to_ns
        place += block.tokens
        if block.frame == NO_FRAME:
            assert block.tokens <= TEXT_TOKENS
    assert place == len(frames)
    of_frames = [b.frame for b in cutter.whole if b.frame != NO_FRAME]
    assert len(of_frames) == len(set(of_frames)), "a frame is one block however it was handed over"


@given(PIECES, st.integers(1, 40), st.data())
def test_touched_blocks_are_those_of_the_tokens_that_go(pieces: list, chunk: int, data: st.DataObject) -> None:
    cutter, frames = cut(pieces, chunk)
    before = list(cutter.whole)
    gone = sorted(data.draw(st.sets(st.integers(0, max(0, len(frames) - 1)), max_size=9))) if frames else []
    found = cutter.touched(torch.tensor(gone, dtype=torch.int64))
    expected = [b for b in before if any(b.first <= i < b.first + b.tokens for i in gone)]
    assert found == expected
    assert cutter.whole == [b for b in before if b not in expected]
    assert cutter.touched(torch.tensor(gone, dtype=torch.int64)) == []


def test_a_block_that_was_touched_grows_no_more() -> None:
    cutter, tags = BlockCutter(), TagMaker()
    cutter.take(0, tags.text(3))
    assert [b.tokens for b in cutter.touched(torch.tensor([1]))] == [3]
    cutter.take(3, tags.text(4))
    assert [(b.first, b.tokens) for b in cutter.whole] == [(3, 4)]


@given(st.integers(1, 300), st.integers(1, 40))
def test_blocks_are_cut_evenly(tokens: int, most: int) -> None:
    parts = Block(7, tokens, 1, 2, 3).cut(most)
    sizes = [p.tokens for p in parts]
    assert sum(sizes) == tokens
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert [p.piece for p in parts] == list(range(len(parts)))
    assert all(a.first + a.tokens == b.first for a, b in itertools.pairwise(parts))


def test_whole_blocks_are_saved_and_nonsense_is_refused() -> None:
    cutter, _ = cut([5, (2, 3), 40], 7)
    again = BlockCutter()
    again.restore(cutter.state())
    assert again.whole == cutter.whole
    state = cutter.state()
    state.tensors["whole"][1, 0] = 0
    with pytest.raises(StateError, match="overlap"):
        again.restore(state)
