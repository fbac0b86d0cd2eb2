"""Weights: finding, fetching, converting and placing them."""

from inf_stream.models.weights.builtin import BUILTIN, BuiltinModel, fetch_builtin, is_present, resolve_auto
from inf_stream.models.weights.fetch import Progress
from inf_stream.models.weights.folders import cache_folder
from inf_stream.models.weights.loaded import LoadedWeights
from inf_stream.models.weights.placement import (
    MachineFacts,
    machine_facts,
    require_memory,
    resolve_device,
    resolve_dtype,
)
from inf_stream.models.weights.pretrained import load_pretrained

__all__ = [
    "BUILTIN",
    "BuiltinModel",
    "LoadedWeights",
    "MachineFacts",
    "Progress",
    "cache_folder",
    "fetch_builtin",
    "is_present",
    "load_pretrained",
    "machine_facts",
    "require_memory",
    "resolve_auto",
    "resolve_device",
    "resolve_dtype",
]
