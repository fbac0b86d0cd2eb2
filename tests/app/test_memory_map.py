import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inf_stream.app import outputs
from inf_stream.app.memory_map import Kept, enlarged, kept_in, memory_map
from inf_stream.app.memory_picture import caption, draw_memory_map
from inf_stream.app.outputs import require_memory_map, require_writable
from inf_stream.base.clock import NS_PER_S
from inf_stream.base.errors import ConfigError


def kept(index: list[list[int]], seconds_per_token: float = 0.0, seen: int = 1000) -> Kept:
    numbers = np.array(index, dtype=np.int64)[:, None]
    times = (numbers * seconds_per_token * NS_PER_S).astype(np.int64)
    return Kept(times, numbers, seen, 64, 1 << 20, "inf-mllm")


def test_tokens_are_counted_where_they_lie_per_layer() -> None:
    made = memory_map(kept([[0, 1, 9], [0, 5, 9]]), most_bins=5)
    assert not made.timed
    assert made.edges.tolist() == [0, 2, 4, 6, 8, 10]
    assert made.tokens.tolist() == [[2, 0, 0, 0, 1], [1, 0, 1, 0, 1]]
    assert made.share.tolist() == pytest.approx([0.5, 0, 1 / 6, 0, 1 / 3])


def test_a_stream_with_a_clock_is_laid_out_by_seconds() -> None:
    made = memory_map(kept([[0, 4, 20]], seconds_per_token=0.25))
    assert made.timed
    assert made.edges.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert made.tokens.tolist() == [[1, 1, 0, 0, 0, 1]]
    assert made.half_from == 1.0


def test_heads_that_keep_their_own_tokens_are_averaged() -> None:
    index = np.array([[[0, 1], [0, 3]]], dtype=np.int64)
    made = memory_map(Kept(np.zeros_like(index), index, 4, 2, 8, "h2o"))
    assert made.tokens.tolist() == [[1.0, 0.5, 0.0, 0.5]]


def test_an_empty_cache_gives_an_empty_map() -> None:
    empty = np.zeros((2, 1, 0), dtype=np.int64)
    made = memory_map(Kept(empty, empty, 0, 64, 8, "full"))
    assert made.tokens.tolist() == [[0], [0]]
    assert made.share.tolist() == [0]
    assert made.half_from == 0


def test_the_newest_memory_is_enlarged_as_far_as_it_is_a_sliver() -> None:
    one = kept([[0, *range(990, 1000)]])
    newest = enlarged(one, memory_map(one))
    assert newest is not None
    assert newest.share == 0.95
    assert newest.map.edges.tolist() == list(range(990, 1001))
    assert newest.map.tokens.tolist() == [[1] * 10]


@pytest.mark.parametrize("index", [range(1000), [0, 1, 999], range(6), []])
def test_where_the_memory_is_spread_or_short_nothing_is_enlarged(index: list[int]) -> None:
    one = kept([list(index)])
    assert enlarged(one, memory_map(one)) is None


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=60, unique=True), st.integers(1, 400))
def test_no_token_is_lost_and_bins_are_bounded(index: list[int], most_bins: int) -> None:
    made = memory_map(kept([sorted(index)]), most_bins=most_bins)
    assert made.tokens.sum() == len(index)
    assert len(made.edges) - 1 == made.tokens.shape[1] <= most_bins
    assert set(np.diff(made.edges)) == {made.edges[1] - made.edges[0]}
    assert made.edges[-1] > max(index)


def test_labels_speak_of_times_or_tokens() -> None:
    assert memory_map(kept([[0, 750]], 1.0)).label(750.0) == "12:30"
    assert memory_map(kept([[0, 1500]])).label(1500.4) == "token 1,500"


def test_the_caption_tells_the_numbers() -> None:
    one = kept([[0, 1, 750]], 1.0)
    assert caption(one, memory_map(one)) == (
        "1,000 tokens seen · 3 kept per layer (0.30%) · budget 64 · 1.0 MiB · policy inf-mllm · "
        "half of the memory is from before 00:01"
    )
    assert "(0.00%)" in caption(kept([[]], seen=0), memory_map(kept([[]], seen=0)))


@pytest.mark.parametrize("seconds_per_token", [0.0, 0.5])
def test_the_picture_is_brighter_where_tokens_are_kept(seconds_per_token: float, tmp_path: Path) -> None:
    index = [[*range(100), *range(900, 1000)], [*range(100), *range(800, 1000, 2)]]
    draw_memory_map(kept(index, seconds_per_token), tmp_path / "m.png")
    picture = cv2.imread(str(tmp_path / "m.png"))
    assert picture is not None
    height, width = picture.shape[:2]
    layers = picture[int(height * 0.45) : int(height * 0.85), int(width * 0.08) : int(width * 0.95)].mean((0, 2))
    first, middle, last = layers[: width // 20], layers[width // 4 : width // 2], layers[-width // 30 :]
    assert first.mean() > 3 * middle.mean()
    assert last.mean() > 3 * middle.mean()


def test_a_stretch_is_enlarged_in_a_second_panel(tmp_path: Path) -> None:
    draw_memory_map(kept([[0, *range(9000, 9300)]], seen=9300), tmp_path / "two.png")
    draw_memory_map(kept([[0, *range(10, 300)]], seen=300), tmp_path / "one.png")
    two, one = (cv2.imread(str(tmp_path / name), cv2.IMREAD_GRAYSCALE) for name in ("two.png", "one.png"))
    assert two is not None
    assert one is not None
    gap = slice(int(two.shape[1] * 0.705), int(two.shape[1] * 0.72))
    row = two.shape[0] // 2
    assert two[row, gap].std() < one[row, gap].std() + 1
    assert one[row, gap].mean() > two[row, gap].mean()


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory map '.*none/m.png' cannot be written: No such file"):
        draw_memory_map(kept([[0, 1]]), tmp_path / "none" / "m.png")


# ---- refusals before the run -----------------------------------------------------------------------


def test_a_good_place_is_accepted_and_left_alone(tmp_path: Path) -> None:
    require_memory_map(tmp_path / "m.png")
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.PNG").write_bytes(b"x")
    require_memory_map(tmp_path / "old.PNG")
    assert (tmp_path / "old.PNG").read_bytes() == b"x"


def test_bad_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.png").mkdir()
    for path, message in [
        (tmp_path / "m.jpg", "give a name that ends in .png"),
        (tmp_path / "none" / "m.png", "does not exist; make it first"),
        (tmp_path / "folder.png", "is a folder; give the name of a file"),
        (tmp_path / ("m" * 300 + ".png"), "File name too long; choose a folder that is yours"),
    ]:
        with pytest.raises(ConfigError, match=message):
            require_memory_map(path)
    os.mkfifo(tmp_path / "pipe.png")
    require_writable(tmp_path / "pipe.png", "memory map")
    monkeypatch.setattr(outputs.os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="Permission denied; choose a folder that is yours"):
        require_writable(tmp_path / "pipe.png", "memory map")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_folder_that_takes_no_files_is_refused_though_it_says_it_is_writable() -> None:
    with pytest.raises(ConfigError, match=r"memory map '/proc/x.png' cannot be written: "):
        require_memory_map(Path("/proc/x.png"))


def test_without_matplotlib_the_map_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'inf-stream\[demo\]'"):
        require_memory_map(tmp_path / "m.png")
    with pytest.raises(ConfigError, match="matplotlib"):
        draw_memory_map(kept([[0, 1]]), tmp_path / "m.png")


def test_a_real_cache_says_what_it_kept() -> None:
    import torch
    from support.tiny_models import tiny_weights

    from inf_stream.base.config import settings_from_mapping
    from inf_stream.engine.build import build_engine

    sizes = {"budget_tokens": 64, "chunk_tokens": 32, "evict_every_tokens": 16}
    settings = settings_from_mapping({"cache": sizes, "policy": {"window": 8, "sinks": 4}})
    engine = build_engine(settings, tiny_weights("llama", dtype=torch.float32))
    for second in range(20):
        engine.ingest_text("a bee sees the sea. ", second * NS_PER_S)
    held = kept_in(engine.cache)
    assert held.seen_tokens == engine.cache.seen_tokens
    assert held.tokens == engine.cache.used_tokens <= 64 + 16 + 32
    assert held.index[:, :, :4].tolist() == [[[0, 1, 2, 3]]] * held.index.shape[0]
    assert held.times_ns.max() == 19 * NS_PER_S
    made = memory_map(held)
    assert made.timed
    assert made.tokens.sum(1).tolist() == [held.tokens] * held.index.shape[0]
    before = held.index.copy()
    engine.ingest_text("and so on and on and on and on" * 3, 20 * NS_PER_S)
    assert np.array_equal(before, held.index)
