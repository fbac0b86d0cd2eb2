"""Caches that have lived through a toy stream of their own, to compare one's life with another's."""

from support.toy_stream import TagMaker, ToyRotation, toy_inputs
from torch import Tensor

from inf_stream.base.layout import CacheLayout
from inf_stream.base.tokens import TokenTags
from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache


def make_cache(policy: str, layout: CacheLayout) -> StreamCache:
    made = make_policy(policy, {"window": 4} if policy.startswith("inf-mllm") else {})
    return StreamCache(layout, made, ToyRotation(layout), budget_tokens=20, chunk_tokens=8, evict_every_tokens=4)


def feed(cache: StreamCache, tags: TokenTags, seed: int) -> list[Tensor]:
    step, out = cache.begin(tags), []
    for layer, (q, k, v) in enumerate(toy_inputs(cache.layout, len(tags), seed)):
        out.append(step.attend(layer, q, k, v, 0.3))
    cache.commit(step)
    return out


def stream(cache: StreamCache, tags: TagMaker, first: int, count: int) -> list[Tensor]:
    out = []
    for number in range(first, first + count):
        piece = tags.picture(2, 3) if number % 3 == 1 else tags.text(1 + number % 5)
        out += feed(cache, piece, number)
        if number == 0:
            cache.close_opening()
    return out
