"""Every family, after many evictions: the logits of a slow reference that recomputes with exactly the kept tokens."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from support.reference_cache import ReferenceCache
from support.scripts import Script, difference, pieces, random_frames, run, whole_frames
from support.tiny_models import TEXT, VISION, tiny_weights

from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.models.stream_model import StreamModel

TOLERANCE = 1e-4
BUDGET_TOKENS, EVICT_EVERY_TOKENS, CHUNK_TOKENS = 40, 10, 40
POLICIES: dict[str, dict[str, Any]] = {
    "inf-mllm": {"window": 8, "bias_slope": 1.0, "recent_share": 0.25, "sinks": 2},
    "h2o": {"recent_share": 0.25},
}


def script_for(model: StreamModel, name: str) -> Script:
    """A long stream: text for text models, six frames with talk between them for the others."""
    script = Script(model, name)
    if model.vision is None:
        return script.text("It was the epoch of belief, it was the epoch of incredulity, " * 3)
    script.text("You see.\n")
    for number, visual in enumerate(model.encode(random_frames(model, 6))):
        script.frame(visual, "[{clock}]")
        if number % 3 == 2:
            script.text("What now?\nA cat.\n")
    return script.text("And what then, after all?")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", [*TEXT, *VISION])
def test_logits_after_evictions_equal_a_recomputation_with_the_kept_tokens(name: str, policy: str) -> None:
    # A sliding window within the budget forgets by itself, and evictions change nothing.
    model = StreamModel(tiny_weights(name, **({"sliding_window": 80} if name == "mistral" else {})))
    chunk = script_for(model, name).chunk
    caches = [
        kind(
            model.layout,
            make_policy(policy, POLICIES[policy]),
            model.rotation,
            budget_tokens=BUDGET_TOKENS,
            chunk_tokens=CHUNK_TOKENS,
            evict_every_tokens=EVICT_EVERY_TOKENS,
        )
        for kind in (StreamCache, ReferenceCache)
    ]
    cut = (lambda: whole_frames(chunk, 7)) if model.layout.bidirectional_frames else (lambda: pieces(chunk, [7, 1, 4]))
    cut_frames = any(a.tags.segment[-1] == b.tags.segment[0] for a, b in pairwise(cut()))
    assert cut_frames == (model.vision is not None and not model.layout.bidirectional_frames)
    ours, slow = (run(model, cache, cut()) for cache in caches)
    fast, reference = caches
    assert fast.evictions == reference.evictions >= 8
    index = fast.slots.planes["index"][:, :, : fast.slots.used]
    assert torch.equal(index, torch.tensor(reference.kept()))
    assert difference(ours, slow) < TOLERANCE
    fast.check()
    without = run(model, unbounded_cache(model), cut())
    assert difference(without, slow) > 100 * TOLERANCE, "evictions must matter here"


def unbounded_cache(model: StreamModel) -> StreamCache:
    return StreamCache(
        model.layout,
        make_policy("full", {}),
        model.rotation,
        budget_tokens=BUDGET_TOKENS,
        chunk_tokens=CHUNK_TOKENS,
        evict_every_tokens=EVICT_EVERY_TOKENS,
    )
