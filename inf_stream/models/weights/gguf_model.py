"""A GGUF file's metadata and tensors as a transformers configuration and its state dict.

One `Architecture` per family llama.cpp names; adding a family is one entry in `ARCHITECTURES`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Gemma3TextConfig, LlamaConfig, Qwen2Config, Qwen3Config

from inf_stream.base.errors import ModelError
from inf_stream.models.weights.gguf_file import GgufFile

ROPE_FACTORS = "rope_freqs.weight"
"""Llama 3.1's frequency divisors; in transformers they are part of the configuration."""

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.(weight|bias)")

_OUTSIDE_BLOCKS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_BLOCKS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA3_BLOCKS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def to_half_split(rows: Float[Tensor, "..."], heads: int) -> Float[Tensor, "..."]:
    """Undo llama.cpp's reordering of query and key rows.

    llama.cpp rotates neighbouring rows (0, 1), (2, 3), ...; transformers rotates row i with row i + half.

    Args:
        rows: weight ``[heads * head_dim, width]`` or bias ``[heads * head_dim]``.
        heads: heads of this projection (key/value heads for keys).
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


def _same(values: Tensor, _: str, __: Any) -> Tensor:
    return values


def _llama_values(values: Tensor, name: str, config: Any) -> Tensor:
    if ".q_proj." in name:
        return to_half_split(values, config.num_attention_heads)
    if ".k_proj." in name:
        return to_half_split(values, config.num_key_value_heads)
    return values


def _gemma3_values(values: Tensor, name: str, _: Any) -> Tensor:
    """llama.cpp stores Gemma's norms as the factor itself, transformers as the factor minus one."""
    return values - 1 if name.endswith("norm.weight") else values


@dataclass(frozen=True)
class Architecture:
    """How one llama.cpp family maps to transformers.

    Attributes:
        config: makes the transformers configuration.
        in_blocks: tensor names inside a block, where they differ from `_IN_BLOCKS`.
        values: turns a tensor's values into transformers' form, given the name there and the configuration.
    """

    config: Callable[[GgufFile], Any]
    in_blocks: dict[str, str] = field(default_factory=dict)
    values: Callable[[Tensor, str, Any], Tensor] = _same

    def name(self, gguf_name: str) -> str | None:
        """The transformers name of a tensor, or None for an unknown one."""
        if (block := _BLOCK.fullmatch(gguf_name)) is None:
            stem, _, kind = gguf_name.rpartition(".")
            outside = _OUTSIDE_BLOCKS.get(stem)
            return None if outside is None else f"{outside}.{kind}"
        number, part, kind = block.groups()
        inside = (_IN_BLOCKS | self.in_blocks).get(part)
        return None if inside is None else f"model.layers.{number}.{inside}.{kind}"


def _shared(file: GgufFile) -> dict[str, Any]:
    """Configuration values that all supported families state in the same way."""
    prefix = file.architecture
    heads = file.integer(f"{prefix}.attention.head_count")
    width = file.integer(f"{prefix}.embedding_length")
    if heads < 1 or width < 1:
        raise ModelError(f"'{file.path}' states {heads} heads and width {width}; the file is damaged")
    head_dim = file.integer(
        f"{prefix}.attention.key_length", file.integer(f"{prefix}.rope.dimension_count", width // heads)
    )
    layers = file.integer(f"{prefix}.block_count")
    stored = len({block[1] for name in file.tensor_names if (block := _BLOCK.fullmatch(name))})
    if layers != stored:
        raise ModelError(f"'{file.path}' states {layers} layers and holds {stored}; the file is damaged")
    if len(shape := file.shape("token_embd.weight")) != 2:
        raise ModelError(f"'{file.path}' has embeddings of shape {shape}; the file is damaged")
    return {
        "vocab_size": shape[0],
        "hidden_size": width,
        "intermediate_size": file.integer(f"{prefix}.feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": file.integer(f"{prefix}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": file.integer(f"{prefix}.context_length"),
        "rms_norm_eps": file.number(f"{prefix}.attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in file.tensor_names,
        "bos_token_id": _token_id(file, "bos"),
        "eos_token_id": _token_id(file, "eos"),
        "pad_token_id": _token_id(file, "padding"),
    }


def _token_id(file: GgufFile, which: str) -> int | None:
    key = f"tokenizer.ggml.{which}_token_id"
    return file.integer(key) if file.has(key) else None


def _rope(file: GgufFile, default_theta: float) -> dict[str, Any]:
    """The rotary embedding's parameters in transformers' words."""
    prefix = file.architecture
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": file.number(f"{prefix}.rope.freq_base", default_theta),
    }
    if ROPE_FACTORS in file.tensor_names:
        return rope | _llama3_scaling(file, rope["rope_theta"])
    match file.text(f"{prefix}.rope.scaling.type", "none"):
        case "none":
            return rope
        case "linear":
            return rope | {"rope_type": "linear", "factor": file.number(f"{prefix}.rope.scaling.factor")}
        case "yarn":
            return rope | {
                "rope_type": "yarn",
                "factor": file.number(f"{prefix}.rope.scaling.factor"),
                "original_max_position_embeddings": file.integer(f"{prefix}.rope.scaling.original_context_length"),
            }
        case other:
            raise ModelError(f"'{file.path}' stretches positions by '{other}'; supported: none, linear, yarn, llama3")


def _llama3_scaling(file: GgufFile, theta: float) -> dict[str, Any]:
    """Llama 3.1's parameters, recovered from the divisors it came to and checked against them."""
    stored = file.tensor(ROPE_FACTORS)
    low, high, trained = 1.0, 4.0, 8192
    factor = float(stored.max())
    exponents = torch.arange(stored.numel(), dtype=torch.float64) / stored.numel()
    wavelengths = 2 * torch.pi * theta**exponents
    smooth = ((trained / wavelengths - low) / (high - low)).clamp(0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if not torch.allclose(expected, stored.double(), rtol=1e-3):
        raise ModelError(
            f"'{file.path}' stretches positions in a way that is not Llama 3's; use the safetensors checkpoint"
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": trained,
    }


def _llama_config(file: GgufFile) -> Any:
    return LlamaConfig(**_shared(file), rope_parameters=_rope(file, 10_000.0))


def _qwen2_config(file: GgufFile) -> Any:
    return Qwen2Config(**_shared(file), rope_parameters=_rope(file, 1_000_000.0))


def _qwen3_config(file: GgufFile) -> Any:
    return Qwen3Config(**_shared(file), rope_parameters=_rope(file, 1_000_000.0))


def _gemma3_config(file: GgufFile) -> Any:
    shared = _shared(file)
    local_theta = file.number("gemma3.rope.freq_base_swa", 10_000.0)
    full = _rope(file, 1_000_000.0)
    if full["rope_type"] == "default" and file.has("gemma3.rope.scaling.factor"):
        full |= {"rope_type": "linear", "factor": file.number("gemma3.rope.scaling.factor")}
    largest = shared["num_hidden_layers"] == 62
    return Gemma3TextConfig(
        **shared,
        sliding_window=file.integer("gemma3.attention.sliding_window"),
        query_pre_attn_scalar=shared["hidden_size"] // shared["num_attention_heads"] if largest else shared["head_dim"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": local_theta},
            "full_attention": full,
        },
    )


ARCHITECTURES = {
    "llama": Architecture(_llama_config, values=_llama_values),
    "qwen2": Architecture(_qwen2_config),
    "qwen3": Architecture(_qwen3_config),
    "gemma3": Architecture(_gemma3_config, in_blocks=_GEMMA3_BLOCKS, values=_gemma3_values),
}
"""By llama.cpp's name. Mistral files call themselves `llama`; Gemma 3 files hold the text part only."""


def architecture_of(file: GgufFile) -> Architecture:
    """The mapping for `file`.

    Raises:
        ModelError: naming the supported families.
    """
    if (found := ARCHITECTURES.get(file.architecture)) is None:
        raise ModelError(
            f"'{file.path}' is a '{file.architecture}' model; GGUF is supported for "
            f"{', '.join(sorted(ARCHITECTURES))}. For other families use the Hugging Face checkpoint"
        )
    return found


def tensor_names(file: GgufFile) -> dict[str, str]:
    """transformers' name of each weight -> its name in the file.

    Raises:
        ModelError: a tensor is of an unknown name: another variant of the family.
    """
    architecture = architecture_of(file)
    names: dict[str, str] = {}
    for gguf_name in file.tensor_names:
        if gguf_name == ROPE_FACTORS:
            continue
        name = architecture.name(gguf_name)
        if name is None:
            raise ModelError(
                f"'{file.path}' holds the tensor '{gguf_name}', which a plain {file.architecture} model does "
                "not have; this variant is not supported"
            )
        names[name] = gguf_name
    return names


def state_dict(file: GgufFile, config: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """All weights under transformers' names, converted one tensor at a time.

    Raises:
        ModelError: a tensor is of an unknown name, or damaged.
    """
    values = architecture_of(file).values
    return {
        name: values(file.tensor(gguf_name), name, config).to(dtype) for name, gguf_name in tensor_names(file).items()
    }
