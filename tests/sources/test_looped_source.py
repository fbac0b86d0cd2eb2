"""A clip repeated for as long as wanted."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.media import numbered_clip, picture, write_image, write_images
from support.playing import Seen

from inf_stream.base.config import SourceSettings
from inf_stream.base.errors import SourceError
from inf_stream.base.events import SourceNotice
from inf_stream.sources import LoopedSource, Source, SourceEvent, open_source

SECOND_NS = 1_000_000_000


def opener(path: Path, fps: float = 1.0) -> Callable[[], Source]:
    return lambda: open_source(str(path), SourceSettings(fps=fps))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return numbered_clip(tmp_path / "clip.mp4", 30)


def test_times_and_numbers_rise_to_the_end(clip: Path):
    with LoopedSource(opener(clip), 10 * SECOND_NS) as source:
        seen = Seen(source)
    assert seen.times_ms == [1000 * i for i in range(10)]
    assert seen.numbers == [0, 10, 20] * 3 + [0]
    assert [f.number for f in seen.frames] == list(range(10))


def test_length_that_is_no_whole_number_of_intervals(tmp_path: Path):
    clip = numbered_clip(tmp_path / "clip.mp4", 25)
    seen = Seen(LoopedSource(opener(clip), 6 * SECOND_NS))
    assert seen.times_ms == [0, 1000, 2000, 3000, 4000, 5000]
    assert seen.numbers == [0, 10, 20, 0, 10, 20]


def test_single_image(tmp_path: Path):
    image = write_image(tmp_path / "one.png", picture(9))
    assert Seen(LoopedSource(opener(image, fps=0.5), 5 * SECOND_NS)).times_ms == [0, 2000, 4000]


def test_facts(clip: Path):
    with LoopedSource(opener(clip), 3600 * SECOND_NS) as source:
        assert not source.live
        assert source.duration_ns == 3600 * SECOND_NS
        assert source.describe() == f"{clip} (160 x 96, h264, 00:03), repeated for 1:00:00"


def test_frame_size_holds_for_every_repetition(clip: Path):
    source = LoopedSource(opener(clip), 6 * SECOND_NS)
    source.frame_size = lambda width, height: (80, 48)
    assert [f.pixels.shape for f in Seen(source).frames] == [(48, 80, 3)] * 6


def test_notices_are_told_once(tmp_path: Path):
    write_images(tmp_path, 3)
    (tmp_path / "image_0001.png").write_bytes(b"")
    seen = Seen(LoopedSource(opener(tmp_path), 9 * SECOND_NS))
    assert len(seen.notices) == 1
    assert seen.numbers == [0, 2, 0, 2, 0]
    assert seen.times_ms == [0, 2000, 4000, 6000, 8000]


def test_every_repetition_is_closed(clip: Path):
    opened: list[Source] = []

    def make() -> Source:
        opened.append(opener(clip)())
        return opened[-1]

    with LoopedSource(make, 6 * SECOND_NS) as source:
        Seen(source)
    assert len(opened) == 3
    assert all(list(s) == [] for s in opened)


def test_close_ends_it_and_opens_no_more(clip: Path):
    opened = []

    def make() -> Source:
        opened.append(1)
        return opener(clip)()

    source = LoopedSource(make, 3600 * SECOND_NS)
    next(source)
    source.close()
    assert list(source) == []
    assert opened == [1]


class Fixed(Source):
    """Gives what it is told."""

    def __init__(self, events: list[SourceEvent], *, live: bool = False):
        self.events, self.live, self.closed = events, live, False

    def describe(self) -> str:
        return "fixed"

    def __next__(self) -> SourceEvent:
        if not self.events:
            raise StopIteration
        return self.events.pop(0)

    def close(self) -> None:
        self.closed = True


def test_source_without_frames_is_not_repeated_for_ever():
    source = LoopedSource(lambda: Fixed([SourceNotice("nothing here", 0)]), SECOND_NS)
    assert Seen(source).notices == ["nothing here"]


def test_live_source_cannot_be_repeated():
    camera = Fixed([], live=True)
    with pytest.raises(SourceError, match="'fixed' is live and cannot be repeated"):
        LoopedSource(lambda: camera, SECOND_NS)
    assert camera.closed
