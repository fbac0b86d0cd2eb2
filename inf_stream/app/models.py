"""`inf-stream models`: what is built in, what else runs, and the cache policies."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from inf_stream.cache.policies import POLICIES
from inf_stream.models.families import FAMILIES, Family
from inf_stream.models.weights.builtin import BUILTIN, is_present

RECOMMENDED = {
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": "video, 0.5 billion weights; try this one first",
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": "video, 2.2 billion weights",
    "Qwen/Qwen2.5-VL-3B-Instruct": "video, 3 billion weights; trained with times",
    "Qwen/Qwen2.5-VL-7B-Instruct": "video, 7 billion weights; trained with times",
    "Qwen/Qwen3-VL-2B-Instruct": "video, 2 billion weights; trained with times",
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": "video, 0.5 billion weights",
    "OpenGVLab/InternVL3-1B-hf": "video, 1 billion weights",
    "Qwen/Qwen3-0.6B": "text, 0.6 billion weights",
}
"""Hub models for real work; a billion weights take 2 GB in bfloat16."""

_NAMING = (
    ("a built-in name", "--model smollm2-135m"),
    ("a hub id", "--model Qwen/Qwen2.5-VL-3B-Instruct"),
    ("a folder with safetensors", "--model ./my-model"),
    ("a GGUF file (Llama-like, text)", "--model ./model.Q4_1.gguf"),
)


def show_models(console: Console) -> None:
    """Print built-ins, families, and how to name other models."""
    builtin = _table("built in", "name", "what it is", "licence", "here")
    for name, model in BUILTIN.items():
        size = f"{model.source.wheel_bytes / 1e6:.0f} MB to download"
        builtin.add_row(name, model.description, model.licence, "yes" if is_present(name) else size)
    families = _table("families that run", "family", "takes", "model_type of the checkpoint")
    for family in FAMILIES:
        families.add_row(family.title, _takes(family), ", ".join(family.model_types))
    naming = _table("how to name a model", "give", "for example")
    for row in _NAMING:
        naming.add_row(*row)
    hub = _table("recommended from the hub (a billion weights take 2 GB in bfloat16)", "hub id", "for")
    for hub_id, use in RECOMMENDED.items():
        hub.add_row(hub_id, use)
    for table in (builtin, families, naming, hub):
        console.print(table)
        console.print()


def show_policies(console: Console) -> None:
    """Print cache policies and their options."""
    for policy in POLICIES.values():
        options = _table(f"{policy.name}: {policy.summary}", "option", "default", "meaning")
        for name, default, doc in _options(policy):
            options.add_row(f"--set policy.{name}=", json.dumps(default), doc)
        if options.row_count:
            console.print(options)
        else:
            console.print(f"{policy.name}: {policy.summary}; no options", style="bold")
        console.print()


def models_as_mapping() -> dict[str, Any]:
    """What `show_models` prints, for scripts."""
    return {
        "builtin": {
            name: {"description": m.description, "licence": m.licence, "present": is_present(name)}
            for name, m in BUILTIN.items()
        },
        "families": {f.title: {"takes": _takes(f), "model_types": list(f.model_types)} for f in FAMILIES},
        "recommended": RECOMMENDED,
    }


def policies_as_mapping() -> Mapping[str, Any]:
    """What `show_policies` prints, for scripts."""
    return {
        policy.name: {
            "summary": policy.summary,
            "options": {name: {"default": default, "doc": doc} for name, default, doc in _options(policy)},
        }
        for policy in POLICIES.values()
    }


def _options(policy: Any) -> list[tuple[str, Any, str]]:
    return [(f.name, f.default, f.metadata["doc"]) for f in dataclasses.fields(policy)]


def _takes(family: type[Family]) -> str:
    return "video and text" if family.vision is not Family.vision else "text"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, header_style="dim", overflow="fold", no_wrap=place == 0)
    return table
