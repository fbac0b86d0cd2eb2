"""From settings to a running engine: weights, model, policy, cache."""

from pathlib import Path

import torch

from inf_stream.base.config import Settings
from inf_stream.base.errors import BudgetError
from inf_stream.base.layout import CacheLayout
from inf_stream.cache.archive import Archive, ArchiveSizes
from inf_stream.cache.archive.checks import check_archive
from inf_stream.cache.policies import make_policy
from inf_stream.cache.policies.base import Policy
from inf_stream.cache.sizes import CacheSizes, Footprint, footprint
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.engine import Engine
from inf_stream.engine.stopwatch import Stopwatch, untimed
from inf_stream.models.stream_model import StreamModel
from inf_stream.models.weights.fetch import Progress, silent
from inf_stream.models.weights.loaded import LoadedWeights
from inf_stream.models.weights.placement import GIB, machine_facts, resolve_device, resolve_dtype
from inf_stream.models.weights.pretrained import load_pretrained

_CACHE_SHARE = 0.9
"""Share of the free memory that a cache may be advised to take; the steps of the model need some, too."""
_LEAST_BUDGET_TOKENS = 16


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


def build_engine(settings: Settings, weights: LoadedWeights, stopwatch: Stopwatch = untimed) -> Engine:
    """An engine for one stream on these weights; `stopwatch` as `Engine` has it.

    Raises:
        ConfigError: the policy or its options are unknown or do not fit the cache.
        BudgetError, ModelError: the cache does not fit, or the model's family is not supported.
    """
    policy = make_policy(settings.cache.policy, settings.policy)
    model = StreamModel(
        weights, system_prompt=settings.model.system_prompt, frame_tokens=settings.model.frame_tokens or None
    )
    archive = _make_archive(settings, model.layout, policy)
    _require_memory(settings, footprint(model.layout, policy, model.rotation), model.device)
    cache = StreamCache(
        model.layout,
        policy,
        model.rotation,
        budget_tokens=settings.cache.budget_tokens,
        chunk_tokens=settings.cache.chunk_tokens,
        evict_every_tokens=settings.cache.evict_every_tokens,
        archive=archive,
    )
    return Engine(model, cache, settings.answer, time_format=settings.model.time_format, stopwatch=stopwatch)


def recall_tokens(settings: Settings) -> int:
    """Most tokens that come back for a question: never more than the cache keeps; 0 without an archive."""
    return min(settings.archive.recall_tokens, settings.cache.budget_tokens) if settings.archive.host_mib else 0


def _make_archive(settings: Settings, layout: CacheLayout, policy: Policy) -> Archive | None:
    """What the settings ask for; None if nothing is to be kept.

    Raises:
        BudgetError: the memory is too small for this model, or larger than what is free.
        ConfigError: see `check_archive`; or the disk cannot be had.
    """
    archive = settings.archive
    check_archive(archive, policy)
    if not archive.host_mib:
        return None
    host_bytes, free_bytes = archive.host_mib << 20, machine_facts().free_bytes(torch.device("cpu"))
    if host_bytes > free_bytes:
        raise BudgetError(
            f"archive.host_mib is {archive.host_mib}; {free_bytes >> 20} MiB of memory are free: lower it, and let "
            "archive.disk_mib take the rest"
        )
    sizes = ArchiveSizes(
        host_bytes,
        archive.disk_mib << 20,
        recall_tokens(settings),
        Path(archive.folder) if archive.folder else None,
        archive.merge_above,
        archive.keep_recalled,
        archive.choose_by,
    )
    return Archive(layout, sizes)


def _require_memory(settings: Settings, memory: Footprint, device: torch.device) -> None:
    cache = settings.cache
    sizes = CacheSizes(cache.budget_tokens, cache.chunk_tokens, cache.evict_every_tokens, recall_tokens(settings))
    need_bytes, free_bytes = memory.total_bytes(sizes), machine_facts().free_bytes(device)
    if need_bytes <= free_bytes:
        return
    largest = memory.largest_budget(int(free_bytes * _CACHE_SHARE), sizes)
    remedy = (
        f"the largest budget that fits is {largest} tokens"
        if largest >= _LEAST_BUDGET_TOKENS
        else "not even the smallest cache fits: close other programs, use a smaller model, or lower cache.chunk_tokens"
    )
    raise BudgetError(
        f"a cache of {cache.budget_tokens} tokens needs {need_bytes} bytes ({need_bytes / GIB:.2f} GiB) on {device}, "
        f"{free_bytes} bytes ({free_bytes / GIB:.2f} GiB) are free; {remedy}"
    )
