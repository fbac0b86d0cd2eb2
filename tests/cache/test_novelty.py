"""What a frame shows that no kept one did, and what the bias makes of it."""

import pytest
import torch
from support.toy_stream import TagMaker, ToyRotation, toy_inputs, toy_layout

from inf_stream.base.errors import StateError
from inf_stream.base.state import State
from inf_stream.cache.novelty import NoveltyMeter
from inf_stream.cache.policies import Evidence, make_policy
from inf_stream.cache.policies.inf_mllm_novelty import mean_of_frames
from inf_stream.cache.slots import SlotView
from inf_stream.cache.stream_cache import StreamCache

LAYOUT = toy_layout(layers=2)
SIDE = 2
QUIET, NEW = 1, 2
"""Seeds of what a picture shows."""


class Camera:
    """A cache that is shown pictures of which some are alike."""

    def __init__(self, policy: str, **options: float):
        made = make_policy(policy, {"window": 4, "sinks": 0, "recent_share": 0.3, **options})
        sizes = {"budget_tokens": 40, "chunk_tokens": 12, "evict_every_tokens": 6}
        self.cache, self.tags = StreamCache(LAYOUT, made, ToyRotation(LAYOUT), **sizes), TagMaker()

    def show(self, what: int) -> None:
        tags = self.tags.picture(SIDE, SIDE)
        step, self.frame_tokens = self.cache.begin(tags), len(tags)
        noise = toy_inputs(LAYOUT, len(tags), 1000 + self.cache.seen_tokens)
        for layer, (inputs, other) in enumerate(zip(toy_inputs(LAYOUT, len(tags), what), noise, strict=True)):
            q, k, v = (a + 0.05 * b for a, b in zip(inputs, other, strict=True))
            step.attend(layer, q, k, v, 0.3)
        self.cache.commit(step)

    def watch(self, event_at: int, frames: int) -> int:
        """Show a quiet scene with one event; returns the event's frame."""
        event = -1
        for number in range(frames):
            self.show(NEW if number == event_at else QUIET)
            if number == event_at:
                event = self.cache.slots._newest_frames[-1][0]
        return event

    def share(self, frame: int) -> float:
        return float((self.cache.slots.view().frame == frame).float().sum() / LAYOUT.layers / self.frame_tokens)


def test_what_was_never_seen_is_novel_and_what_repeats_is_not() -> None:
    camera = Camera("inf-mllm-novelty")
    event = camera.watch(20, 40)
    meter = camera.cache._novelty
    assert meter is not None
    judged = meter._of_frame
    after = [n for frame, n in judged.items() if frame > event]
    assert judged[event] > 0.5
    assert max(after) < 0.1, "the scene that comes back is known, although another lay between"
    assert judged[min(judged)] == 1.0, "nothing was there to compare the first with"


def test_a_rare_event_stays_long_after_age_alone_would_have_dropped_it() -> None:
    novel, plain = Camera("inf-mllm-novelty"), Camera("inf-mllm", bias_slope=2.0)
    assert novel.share(novel.watch(20, 120)) == 1.0
    assert plain.share(plain.watch(20, 120)) < 0.5


def test_without_novelty_frames_age_as_ever() -> None:
    camera = Camera("inf-mllm-novelty", novelty_weight=0.0)
    assert camera.share(camera.watch(20, 120)) == 0.0


def test_text_alone_is_remembered_token_for_token_as_by_the_plain_form() -> None:
    caches = [Camera(name).cache for name in ("inf-mllm", "inf-mllm-novelty")]
    for cache in caches:
        tags = TagMaker()
        for number in range(30):
            step = cache.begin(tags.text(5))
            for layer, inputs in enumerate(toy_inputs(LAYOUT, 5, number)):
                step.attend(layer, *inputs, 0.3)
            cache.commit(step)
    assert caches[0].evictions > 5
    assert torch.equal(*(cache.slots.view().index for cache in caches))


def test_a_frame_leaves_whole() -> None:
    frames = torch.tensor([[[-1, 7, 7, -1, 8, 8]]])
    found = mean_of_frames(torch.tensor([[[9.0, 1.0, 3.0, 5.0, 2.0, 8.0]]]), frames)
    assert found.tolist() == [[[9.0, 2.0, 2.0, 5.0, 5.0, 5.0]]]


def test_the_bias_of_a_frame_is_less_the_newer_what_it_shows() -> None:
    frames = torch.tensor([[[-1, 7, 8, 9]]])
    view = SlotView(torch.arange(4)[None, None], frames, 4, ((9, 3),), 0)
    policy = make_policy("inf-mllm-novelty", {"window": 1, "bias_slope": 2.0, "novelty_weight": 1.5})
    novelty, seen_by = torch.tensor([[[0.0, 0.5, 1.0, 0.0]]]), torch.ones(4, dtype=torch.int64)
    scores = policy.biased_scores(view, Evidence(torch.ones(1, 1, 4), seen_by, novelty=novelty))  # type: ignore[attr-defined]
    torch.testing.assert_close(scores[0, 0], torch.tensor([1 - 2 * 3 / 4, 1 - 2 * (2 / 4 * 0.25 - 0.75), 1 + 2, 1.0]))


def test_frames_that_were_not_judged_yet_count_as_new_and_text_as_none() -> None:
    view = SlotView(torch.arange(3)[None, None], torch.tensor([[[-1, 3, 4]]]), 3, ((4, 2),), 0)
    meter = NoveltyMeter(LAYOUT)
    assert meter.of(view).tolist() == [[[0.0, 1.0, 1.0]]]
    meter.restore(State(facts={"frames": [[3, 0.25]], "judged_tokens": 2}))
    assert meter.of(view).tolist() == [[[0.0, 0.25, 1.0]]]


def test_what_is_known_of_frames_is_bounded() -> None:
    camera = Camera("inf-mllm-novelty")
    camera.watch(5, 600)
    meter = camera.cache._novelty
    assert meter is not None
    assert len(meter._of_frame) <= 2 * camera.cache.slots.capacity + 12


@pytest.mark.parametrize("frames", [[[3]], [[3, 2.0]], [[3, float("nan")]], [["3", 0.5]], [3], [[True, 0.5]]])
def test_a_saved_novelty_that_cannot_be_is_refused(frames: list) -> None:
    meter = NoveltyMeter(LAYOUT)
    with pytest.raises(StateError, match="as the novelty of a frame"):
        meter.restore(State(facts={"frames": frames, "judged_tokens": 2}))
    assert not meter._of_frame
