"""`inf-stream models`: what is built in, what else runs, and the cache policies.

Families and policies are listed from a file that `python -m inf_stream.app.reference` writes: they themselves cannot be
asked without torch, which takes seconds to load.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from rich.console import Console
from rich.table import Table

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
    for title, family in _lists()["families"].items():
        families.add_row(title, family["takes"], ", ".join(family["model_types"]))
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
    for name, policy in policies_as_mapping().items():
        options = _table(f"{name}: {policy['summary']}", "option", "default", "meaning")
        for option, facts in policy["options"].items():
            options.add_row(f"--set policy.{option}=", json.dumps(facts["default"]), facts["doc"])
        if options.row_count:
            console.print(options)
        else:
            console.print(f"{name}: {policy['summary']}; no options", style="bold")
        console.print()


def models_as_mapping() -> dict[str, Any]:
    """What `show_models` prints, for scripts."""
    return {
        "builtin": {
            name: {"description": m.description, "licence": m.licence, "present": is_present(name)}
            for name, m in BUILTIN.items()
        },
        "families": _lists()["families"],
        "recommended": RECOMMENDED,
    }


def policies_as_mapping() -> Mapping[str, Any]:
    """What `show_policies` prints, for scripts."""
    policies: Mapping[str, Any] = _lists()["policies"]
    return policies


def _lists() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("inf_stream.app") / "data" / "lists.json").read_text(encoding="utf-8"))
    return found


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, header_style="dim", overflow="fold", no_wrap=place == 0)
    return table
