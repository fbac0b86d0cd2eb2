"""From settings to a running engine: weights, model, policy, cache."""

import torch

from inf_stream.base.config import Settings
from inf_stream.base.layout import CacheLayout
from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.engine import Engine
from inf_stream.models.stream_model import StreamModel
from inf_stream.models.weights import (
    LoadedWeights,
    load_pretrained,
    machine_facts,
    require_memory,
    resolve_device,
    resolve_dtype,
)
from inf_stream.models.weights.fetch import Progress, silent


def load_weights(settings: Settings, progress: Progress = silent) -> LoadedWeights:
    """The weights the settings name, on the device and in the dtype they name.

    Raises:
        ModelError: see `inf_stream.models.weights.load_pretrained`.
    """
    if settings.model.threads:
        torch.set_num_threads(settings.model.threads)
    facts = machine_facts()
    device = resolve_device(settings.model.device, facts)
    return load_pretrained(settings.model.name, device, resolve_dtype(settings.model.dtype, device, facts), progress)


def build_engine(settings: Settings, weights: LoadedWeights) -> Engine:
    """An engine for one stream on these weights.

    Raises:
        ConfigError: the policy or its options are unknown or do not fit the cache.
        BudgetError, ModelError: the cache does not fit, or the model's family is not supported.
    """
    policy = make_policy(settings.cache.policy, settings.policy)
    model = StreamModel(
        weights, system_prompt=settings.model.system_prompt, frame_tokens=settings.model.frame_tokens or None
    )
    need_bytes = cache_bytes(model.layout, settings)
    require_memory(
        f"keys and values of {settings.cache.budget_tokens} tokens",
        need_bytes,
        model.device,
        machine_facts(),
        "lower cache.budget_tokens or cache.chunk_tokens",
    )
    cache = StreamCache(
        model.layout,
        policy,
        model.rotation,
        budget_tokens=settings.cache.budget_tokens,
        chunk_tokens=settings.cache.chunk_tokens,
        evict_every_tokens=settings.cache.evict_every_tokens,
    )
    return Engine(model, cache, settings.answer, time_format=settings.model.time_format)


def cache_bytes(layout: CacheLayout, settings: Settings) -> int:
    """Bytes of keys and values that these settings allocate."""
    cache = settings.cache
    return layout.bytes_per_token() * (cache.budget_tokens + cache.chunk_tokens + cache.evict_every_tokens)
