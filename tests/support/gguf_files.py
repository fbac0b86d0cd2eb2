"""Writes small GGUF files the way llama.cpp's converter does, from transformers models with random weights."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

LETTERS = [chr(c) for c in range(33, 127)] + ["\u0120", "\u010a"]
"""Byte-level spelling of the printable ASCII characters, space and newline."""


@dataclass
class Vocabulary:
    """A byte-level vocabulary: special tokens, letters, and a few merges."""

    special: list[str] = field(default_factory=lambda: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    user_defined: list[str] = field(default_factory=lambda: ["<think>"])
    merges: list[tuple[str, str]] = field(
        default_factory=lambda: [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("1", "9"), ("8", "4")]
    )
    pre: str = "smollm"
    whole: list[str] = field(default_factory=list)
    """Words no merge leads to."""

    @property
    def tokens(self) -> list[str]:
        return [*self.special, *self.user_defined, *LETTERS, *("".join(m) for m in self.merges), *self.whole]

    @property
    def kinds(self) -> list[int]:
        rest = len(LETTERS) + len(self.merges) + len(self.whole)
        return [3] * len(self.special) + [4] * len(self.user_defined) + [1] * rest


SHAPE: dict[str, Any] = {
    "vocab_size": len(Vocabulary().tokens),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def plain_rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


def tiny(architecture: str, **changes: Any) -> Any:
    """A random model of a llama.cpp family, with weights that matter: norms too."""
    shape = SHAPE | changes
    match architecture:
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**({"rope_parameters": plain_rope(1e4)} | shape)))
        case "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**({"rope_parameters": plain_rope(1e6)} | shape)))
        case "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(**({"rope_parameters": plain_rope(1e6)} | shape)))
        case "gemma3":
            ropes = {"sliding_attention": plain_rope(1e4), "full_attention": plain_rope(1e6)}
            extra = {"sliding_window": 8, "query_pre_attn_scalar": shape["head_dim"], "rope_parameters": ropes}
            model = Gemma3ForCausalLM(Gemma3TextConfig(**(extra | shape)))
        case _:
            raise AssertionError(architecture)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.4)
    return model.eval()


class TinyGguf:
    """A GGUF file in the making; tests change `fields` or `tensors` before `write`."""

    def __init__(self, architecture: str, model: Any, vocabulary: Vocabulary | None = None) -> None:
        self.architecture = architecture
        self.vocabulary = vocabulary or Vocabulary()
        config = model.config
        self.fields: dict[str, Any] = {
            f"{architecture}.block_count": config.num_hidden_layers,
            f"{architecture}.context_length": config.max_position_embeddings,
            f"{architecture}.embedding_length": config.hidden_size,
            f"{architecture}.feed_forward_length": config.intermediate_size,
            f"{architecture}.attention.head_count": config.num_attention_heads,
            f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
            f"{architecture}.attention.key_length": config.head_dim,
            f"{architecture}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": self.vocabulary.pre,
            "tokenizer.ggml.tokens": self.vocabulary.tokens,
            "tokenizer.ggml.token_type": self.vocabulary.kinds,
            "tokenizer.ggml.merges": [" ".join(pair) for pair in self.vocabulary.merges],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.padding_token_id": 0,
            "tokenizer.chat_template": "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}",
        }
        if architecture == "gemma3":
            self.fields["gemma3.attention.sliding_window"] = config.sliding_window
        else:
            self.fields[f"{architecture}.rope.freq_base"] = config.rope_parameters["rope_theta"]
        self.tensors = _tensors(architecture, model)

    def write(self, path: Path, quantise: gguf.GGMLQuantizationType | None = None) -> Path:
        writer = gguf.GGUFWriter(path, self.architecture)
        for key, value in self.fields.items():
            _add(writer, key, value)
        for name, values in self.tensors.items():
            if quantise is not None and values.ndim == 2 and values.shape[1] % 32 == 0:
                writer.add_tensor(name, gguf.quants.quantize(values, quantise), raw_dtype=quantise)
            else:
                writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


_ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
}


def _tensors(architecture: str, model: Any) -> dict[str, np.ndarray]:
    names = gguf.get_tensor_name_map(_ARCHITECTURES[architecture], model.config.num_hidden_layers)
    tied = model.config.tie_word_embeddings
    tensors = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert gguf_name is not None, name
        values = weight.float().numpy().copy()
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            key = "k_proj" in name
            values = _permute(values, model.config.num_key_value_heads if key else model.config.num_attention_heads)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        tensors[gguf_name] = values
    return tensors


def _permute(values: np.ndarray, heads: int) -> np.ndarray:
    halves = values.reshape(heads, 2, -1, values.shape[1])
    return halves.swapaxes(1, 2).reshape(values.shape)
