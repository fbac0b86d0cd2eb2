"""A source as the demo clients see it: at its own pace, its newest picture alone."""

import asyncio
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pictures import Picture, Player
from support.media import number_of, numbered_clip
from support.servers import http_loop, serving
from support.serving import run_clean

from inf_stream.base.errors import SourceError


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return numbered_clip(tmp_path / "clip.mp4", 5, fps=10)


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_whoever_keeps_up_sees_every_picture_and_the_end(clip: Path) -> None:
    async def main() -> list[Picture]:
        seen = []
        with Player(str(clip), 10.0) as player:
            assert not player.live
            while (picture := await player.next()) is not None:
                seen.append(picture)
            assert player.has_ended
            assert player.take() is None
        return seen

    seen = asyncio.run(main())
    assert [number_of(picture.pixels) for picture in seen] == [0, 1, 2, 3, 4]
    assert [picture.at_s for picture in seen] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert all(b.captured_s > a.captured_s for a, b in pairwise(seen))


def test_whoever_is_slow_sees_the_newest(clip: Path) -> None:
    async def main() -> None:
        with Player(str(clip), 10.0) as player:
            assert await player.next() is not None
            assert player._done.wait(20)
            assert not player.has_ended, "there is one to be taken"
            picture = player.take()
            assert picture is not None
            assert number_of(picture.pixels) == 4
            assert await player.next() is None

    run_clean(main())


def test_large_pictures_are_scaled_down_and_small_ones_are_not(clip: Path) -> None:
    for edge, size in ((80, (48, 80, 3)), (768, (96, 160, 3))):
        with Player(str(clip), 10.0, longest_edge=edge) as player:
            picture = asyncio.run(player.next())
        assert picture is not None
        assert picture.pixels.shape == size


def test_a_part_of_a_picture_as_a_file() -> None:
    pixels = np.zeros((30, 90, 3), np.uint8)
    pixels[:, 30:60, 0] = 250
    picture = Picture(pixels, 0.0, 0.0)
    assert decoded(picture.jpeg()).shape == (30, 90, 3)
    for third, red in enumerate((0, 250, 0)):
        part = decoded(picture.jpeg(third / 3, (third + 1) / 3))
        assert part.shape == (30, 30, 3)
        assert abs(int(part[15, 15, 0]) - red) < 10
        assert part[15, 15, 2] < 10, "red, not blue"
    assert decoded(Picture(pixels[:, :1], 0.0, 0.0).jpeg(0.5, 0.6)).shape == (30, 1, 3)


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be opened"):
        Player(str(tmp_path / "none.mp4"))


def test_a_source_that_breaks_before_its_first_picture(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with Player(str(clip)) as player:

            def broken(_self: Any) -> Any:
                raise SourceError("the cable is out")

            monkeypatch.setattr(type(player._source), "__next__", broken)
            with pytest.raises(SourceError, match="the cable is out"):
                await player.next()

    run_clean(main())


def test_a_lost_camera_is_tried_again_and_said_to_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inf_stream.sources.live.FIRST_PAUSE_S", 0.0)
    broadcast = numbered_clip(tmp_path / "clip.ts", 30).read_bytes()
    first, second, said = threading.Event(), threading.Event(), list[str]()

    async def main() -> None:
        with (
            serving(http_loop(broadcast, first), http_loop(broadcast, second)) as port,
            Player(f"http://127.0.0.1:{port}/live", 100.0, say=said.append) as player,
        ):
            assert player.live
            assert await player.next() is not None
            first.set()
            while not any("is back after" in line for line in said):
                await player.next()
            assert await player.next() is not None

    run_clean(main())
    assert "attempt 1 of 1000000" in said[0]


def test_leaving_a_player_ends_its_thread(clip: Path) -> None:
    async def main() -> None:
        with Player(str(clip), 0.5) as player:
            await player.next()
        player._thread.join(20)
        assert not player._thread.is_alive()

    run_clean(main())
