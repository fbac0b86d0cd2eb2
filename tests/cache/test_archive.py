"""What the cache evicts is in the archive, whole and within its bounds."""

import pytest
import torch
from support.lived_cache import feed, make_cache, stream
from support.toy_stream import TagMaker, ToyRotation, toy_inputs, toy_layout

from inf_stream.base.errors import BudgetError, StateError
from inf_stream.base.layout import CacheLayout
from inf_stream.base.tokens import NO_FRAME
from inf_stream.cache.archive import Archive, ArchiveSizes
from inf_stream.cache.planes import KeyValuePlanes
from inf_stream.cache.policies import POLICIES, make_policy
from inf_stream.cache.slots import SlotTable
from inf_stream.cache.stream_cache import StreamCache

BOUNDED = [name for name in POLICIES if make_policy(name, {}).bounded]


def archived(policy: str, layout: CacheLayout, **sizes: object) -> StreamCache:
    """A small cache with an archive."""
    made = make_policy(policy, {"window": 4} if policy.startswith("inf-mllm") else {})
    bounds = {"host_bytes": 1 << 22, "recall_tokens": 24, "merge_above": 2.0} | sizes
    return StreamCache(
        layout, made, ToyRotation(layout), budget_tokens=20, chunk_tokens=8, evict_every_tokens=4,
        archive=Archive(layout, ArchiveSizes(**bounds)),
    )  # fmt: skip


def live(cache: StreamCache, tags: TagMaker, first: int, count: int) -> dict[int, list[torch.Tensor]]:
    """A stream as `lived_cache.stream` has it; the keys of every token by its running number, per layer."""
    keys: dict[int, list[torch.Tensor]] = {}
    for number in range(first, first + count):
        before, piece = cache.seen_tokens, tags.picture(2, 3) if number % 3 == 1 else tags.text(1 + number % 5)
        feed(cache, piece, number)
        given = toy_inputs(cache.layout, len(piece), number)
        for i in range(len(piece)):
            keys[before + i] = [k[:, i] for _, k, _ in given]
    return keys


@pytest.mark.parametrize("segmented", [False, True], ids=["rank", "segments"])
@pytest.mark.parametrize("policy", BOUNDED)
def test_what_was_evicted_anywhere_is_there_in_every_layer(policy: str, segmented: bool) -> None:
    layout = toy_layout(segmented=segmented, sliding_windows=(None, 6))
    cache, tags = archived(policy, layout), TagMaker()
    keys = live(cache, tags, 0, 40)
    archive = cache.archive
    assert archive is not None
    assert cache.evictions > 5
    index = cache.slots.view().index
    everywhere = set(range(cache.seen_tokens))
    for row in index.flatten(0, 1).tolist():
        everywhere &= set(row)
    evicted = set(range(cache.seen_tokens)) - everywhere
    places = torch.nonzero(archive.candidates())[:, 0]
    held: set[int] = set()
    for place in places:
        one = place[None]
        first, filled = int(archive._facts.first[place]), int(archive.filled(one).sum())
        held |= set(range(first, first + filled))
        for layer in range(layout.layers):
            told = archive.read(layer, one)[0][:, :filled]
            expected = torch.stack([keys[first + i][layer] for i in range(filled)], dim=1)
            assert torch.allclose(told, expected, atol=float(expected.abs().max()) / 127)
    assert evicted <= held
    assert len(held) == int(archive.filled(places).sum()), "no token is there twice"


def test_frames_stay_together_with_their_times() -> None:
    cache, tags = archived("inf-mllm", toy_layout()), TagMaker()
    live(cache, tags, 0, 40)
    archive = cache.archive
    assert archive is not None
    places = torch.nonzero(archive.candidates())[:, 0]
    frames = [int(f) for f in archive.frames()[places] if f != NO_FRAME]
    assert len(frames) == len(set(frames)) > 5
    assert archive.block_tokens == 8, "a frame fills its block"
    times = archive.times_ns()[archive.in_time_order(places)]
    assert bool((times.diff() >= 0).all())


def test_a_full_archive_forgets_the_oldest_first() -> None:
    layout = toy_layout()
    small = 8 * Archive(layout, ArchiveSizes(1 << 20))._block_bytes(8)
    cache, tags = archived("streaming-llm", layout, host_bytes=small), TagMaker()
    sizes = set()
    for start in range(0, 300, 10):
        live(cache, tags, start, 10)
        assert cache.archive is not None
        assert cache.archive.bytes() <= small
        sizes.add(cache.archive.blocks)
    assert max(sizes) == 8
    held = cache.archive._facts.first[cache.archive.candidates()]
    assert int(held.min()) > cache.seen_tokens - 150


def test_a_disk_behind_it_holds_more() -> None:
    layout = toy_layout()
    small = 8 * Archive(layout, ArchiveSizes(1 << 20))._block_bytes(8)
    alone, tags = archived("streaming-llm", layout, host_bytes=small), TagMaker()
    backed, same_tags = archived("streaming-llm", layout, host_bytes=small, disk_bytes=small), TagMaker()
    keys = live(alone, tags, 0, 90)
    live(backed, same_tags, 0, 90)
    assert alone.archive is not None
    assert backed.archive is not None
    assert backed.archive.bytes() <= 2 * small
    assert alone.archive.blocks <= 8 < backed.archive.blocks
    places = backed.archive.in_time_order(torch.nonzero(backed.archive.candidates())[:, 0])
    for place in places:
        first = int(backed.archive._facts.first[place])
        told = backed.archive.read(1, place[None])[0][:, 0]
        assert torch.allclose(told, keys[first][1], atol=float(keys[first][1].abs().max()) / 20)


def still(cache: StreamCache, frames: int, seconds: int, change_at: int = -1) -> None:
    """Frames that show the same, each `seconds` after the one before."""
    tags = TagMaker()
    for number in range(frames):
        piece = tags.picture(2, 3)
        piece.time_ns.fill_(number * seconds * 10**9)
        feed(cache, piece, 7 if number < change_at or change_at < 0 else 8)


def test_a_still_scene_costs_little() -> None:
    cache = archived("streaming-llm", toy_layout(), merge_above=0.99)
    feed(cache, TagMaker().text(8), 99)
    still(cache, 100, 1)
    assert cache.archive is not None
    # The first block has nothing to be compared around, so the second may be written, too.
    assert cache.archive.blocks <= 6
    assert cache.archive.merged > 85
    there = cache.archive.candidates()
    assert int(cache.archive._facts.from_ns[there].min()) == 0
    assert int(cache.archive._facts.to_ns[there].max()) >= 90 * 10**9, (
        "the last block stands for all that was merged into it"
    )


@pytest.mark.parametrize("every", [4, 64])
def test_frames_of_one_eviction_are_compared_with_each_other(every: int) -> None:
    layout = toy_layout()
    cache = StreamCache(
        layout, make_policy("streaming-llm", {}), ToyRotation(layout), budget_tokens=20, chunk_tokens=8,
        evict_every_tokens=every, archive=Archive(layout, ArchiveSizes(1 << 22, merge_above=0.99)),
    )  # fmt: skip
    feed(cache, TagMaker().text(8), 99)
    still(cache, 120, 1)
    assert cache.archive is not None
    assert cache.archive.blocks <= 7


def test_a_block_stands_for_no_more_than_a_minute() -> None:
    cache = archived("streaming-llm", toy_layout(), merge_above=0.99)
    feed(cache, TagMaker().text(8), 99)
    still(cache, 60, 20)
    archive = cache.archive
    assert archive is not None
    there = archive.candidates()
    assert int((archive._facts.to_ns - archive._facts.from_ns)[there].max()) <= 60 * 10**9
    assert archive.blocks >= 57 / 4


def test_a_frame_that_was_kept_longer_than_a_newer_one_is_not_merged_into_it() -> None:
    layout = toy_layout()
    archive = Archive(layout, ArchiveSizes(1 << 20, merge_above=0.0))
    planes, tags = KeyValuePlanes(layout, 64), TagMaker()
    slots = SlotTable(layout.layers, 1, 64, layout.device, 1)
    planes.raw_keys.normal_(generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        piece = tags.picture(2, 3)
        archive.note(slots.tokens_seen, piece)
        slots.append(piece)
    for gone in (2, 1, 3):
        kept = [slot for slot in range(slots.used) if slot // 8 != gone]
        archive.take(slots, planes, torch.tensor(kept).expand(layout.layers, 1, -1))
    there = archive.candidates()
    assert archive.frames()[there].tolist() == [2, 1]
    assert archive.merged == 1, "only the third frame follows the one that was archived before it"
    assert bool((archive._facts.from_ns <= archive._facts.to_ns)[there].all())


def test_what_changes_is_not_merged() -> None:
    cache = archived("streaming-llm", toy_layout(), merge_above=0.9)
    live(cache, TagMaker(), 0, 60)
    assert cache.archive is not None
    assert cache.archive.merged == 0


def test_an_archive_that_holds_nothing_is_refused() -> None:
    with pytest.raises(BudgetError, match=r"an archive of 1000 bytes holds no two blocks .* archive\.host_mib"):
        Archive(toy_layout(), ArchiveSizes(1000))


def test_it_is_narrowed_by_stream_time() -> None:
    cache, tags = archived("streaming-llm", toy_layout()), TagMaker()
    live(cache, tags, 0, 60)
    archive = cache.archive
    assert archive is not None
    inside = archive.candidates((10, 20))
    assert 0 < int(inside.sum()) < archive.blocks
    assert bool((archive._facts.to_ns[inside] >= 10).all())
    assert bool((archive._facts.from_ns[inside] <= 20).all())
    assert int(archive.candidates((10**15, 10**16)).sum()) == 0


@pytest.mark.parametrize("segmented", [False, True], ids=["rank", "segments"])
@pytest.mark.parametrize("disk_bytes", [0, 1 << 14])
def test_it_is_saved_with_the_cache(segmented: bool, disk_bytes: int) -> None:
    layout = toy_layout(segmented=segmented)
    sizes = {"host_bytes": 1 << 14, "disk_bytes": disk_bytes}
    one, tags = archived("inf-mllm", layout, **sizes), TagMaker()
    live(one, tags, 0, 60)
    again, same_tags = archived("inf-mllm", layout, **sizes), TagMaker()
    live(archived("inf-mllm", layout, **sizes), same_tags, 0, 60)
    again.restore(one.state().on_cpu())
    live(one, tags, 60, 30)
    live(again, same_tags, 60, 30)
    saved, same = one.state(), again.state()
    assert saved.facts == same.facts
    assert saved.tensors.keys() == same.tensors.keys()
    assert all(torch.equal(saved.tensors[name], tensor) for name, tensor in same.tensors.items())


@pytest.mark.parametrize(
    ("name", "value"),
    [("block_tokens", 99), ("written", 0), ("last", [[0, 10**9]]), ("last", [["a", 0]]), ("merged", -1)],
)
def test_a_damaged_one_is_refused(name: str, value: object) -> None:
    one = archived("inf-mllm", toy_layout())
    live(one, TagMaker(), 0, 60)
    state = one.state().on_cpu()
    state.facts["archive"][name] = value
    with pytest.raises(StateError):
        archived("inf-mllm", toy_layout()).restore(state)


def test_one_that_knows_no_numbers_is_refused() -> None:
    one = archived("inf-mllm", toy_layout())
    live(one, TagMaker(), 0, 60)
    for name in ("usual.mean", "host_scales"):
        state = one.state().on_cpu()
        state.tensors[f"archive.{name}"].fill_(torch.nan)
        with pytest.raises(StateError, match="no numbers"):
            archived("inf-mllm", toy_layout()).restore(state)


def test_one_whose_tokens_cannot_be_counted_is_refused() -> None:
    one = archived("inf-mllm", toy_layout())
    live(one, TagMaker(), 0, 60)
    state = one.state().on_cpu()
    state.tensors["archive.cutter.whole"].fill_(1 << 62)
    with pytest.raises(StateError, match="overlap"):
        archived("inf-mllm", toy_layout()).restore(state)


def test_without_an_archive_nothing_of_it_is_saved() -> None:
    cache = make_cache("inf-mllm", toy_layout())
    stream(cache, TagMaker(), 0, 9)
    assert not any("archive" in name for name in cache.state().tensors)
