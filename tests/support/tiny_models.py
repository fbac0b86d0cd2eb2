"""Tiny models of every supported family: random weights that matter, a real byte-level tokenizer, processor settings.

The weights are scaled up until the logits really depend on what is seen: with small ones, any two pictures give the
same logits to six digits, and a test would pass with frames left out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from inf_stream.models.weights.loaded import LoadedWeights

LAYERS = 3
WIDTH = 64
SIGLIP_MEAN = [0.5, 0.5, 0.5]
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<fake_token_around_image>",
    "<global-img>",
    "<image>",
    "<video>",
    "<end_of_utterance>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
]


def tiny_tokenizer(
    chat_template: str | None = None, special: Sequence[str] = SPECIAL, **names: str
) -> PreTrainedTokenizerFast:
    """One token a byte, and the special tokens of all families."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate([*special, *letters])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=names.pop("eos_token", "<|im_end|>"),
        extra_special_tokens=list(special),
        **names,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


TOKENIZER = tiny_tokenizer()
VOCABULARY = len(TOKENIZER)


def token(text: str) -> int:
    found = TOKENIZER.convert_tokens_to_ids(text)
    assert isinstance(found, int)
    return found


def text_shape(**changes: Any) -> dict[str, Any]:
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
        "tie_word_embeddings": False,
    }
    return shape | changes


def rope(kind: str = "default", theta: float = 1e4, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": theta, **more}


def yarn(theta: float = 1e4, **more: Any) -> dict[str, Any]:
    """Stretched fourfold; it scales queries and keys, which must happen once."""
    return rope("yarn", theta, factor=4.0, original_max_position_embeddings=128, **more)


def gemma_text(**changes: Any) -> dict[str, Any]:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    return text_shape(
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=24,
        layer_types=kinds,
        rope_parameters={"sliding_attention": rope(), "full_attention": yarn(1e5)},
        **changes,
    )


def siglip(**changes: Any) -> dict[str, Any]:
    shape = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 24,
        "patch_size": 4,
    }
    return shape | changes


def qwen_text(**changes: Any) -> dict[str, Any]:
    return text_shape(rope_parameters=rope("default", 1e4, mrope_section=[2, 3, 3]), **changes)


def _gpt_neox() -> PreTrainedConfig:
    shape = text_shape(rope_parameters=rope(partial_rotary_factor=0.25))
    del shape["num_key_value_heads"]
    return _config("gpt_neox", **shape)


def _config(model_type: str, **values: Any) -> PreTrainedConfig:
    return CONFIG_MAPPING[model_type](**values)


def _mistral() -> PreTrainedConfig:
    return _config("mistral", **text_shape(sliding_window=20))


def _qwen2_vl() -> PreTrainedConfig:
    return _config(
        "qwen2_vl",
        text_config=qwen_text(),
        vision_config={
            "depth": 2, "embed_dim": 32, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 2,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip


def _qwen2_5_vl() -> PreTrainedConfig:
    return _config(
        "qwen2_5_vl",
        text_config=qwen_text() | {"rope_parameters": yarn(mrope_section=[2, 3, 3])},
        vision_config={
            "depth": 2, "hidden_size": 32, "out_hidden_size": WIDTH, "num_heads": 2, "intermediate_size": 48,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16,
            "fullatt_block_indexes": [1], "tokens_per_second": 2,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip


def _qwen3_vl() -> PreTrainedConfig:
    return _config(
        "qwen3_vl",
        text_config=qwen_text(head_dim=16) | {"rope_parameters": rope(mrope_section=[4, 2, 2], mrope_interleaved=True)},
        vision_config={
            "depth": 3, "hidden_size": 32, "out_hidden_size": WIDTH, "num_heads": 2, "intermediate_size": 48,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip


def _smolvlm(model_type: str = "smolvlm") -> PreTrainedConfig:
    vision = siglip()
    del vision["model_type"]
    return _config(
        model_type,
        text_config={"model_type": "llama"} | text_shape(),
        vision_config=vision,
        scale_factor=2,
        image_token_id=token("<image>"),
        pad_token_id=token("<|endoftext|>"),
        tie_word_embeddings=False,
    )


def _llava_onevision() -> PreTrainedConfig:
    return _config(
        "llava_onevision",
        text_config={"model_type": "qwen2"} | text_shape(),
        vision_config=siglip(image_size=20, vision_use_head=False),
        image_token_id=token("<image>"),
        video_token_id=token("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[20, 20]],
        tie_word_embeddings=False,
    )


def _llava(vision: dict[str, Any], **changes: Any) -> PreTrainedConfig:
    return _config(
        "llava",
        text_config={"model_type": "llama"} | text_shape(),
        vision_config=vision,
        image_token_index=token("<image>"),
        tie_word_embeddings=False,
        **changes,
    )


LITE_TOWER = {
    "model_type": "efficientnet_lite", "image_size": 32, "patch_size": 8, "stem_channels": 8,
    "blocks": [(1, 3, 1, 8), (2, 5, 2, 8), (2, 3, 2, 16), (2, 3, 1, 16)], "taps": [1, 3],
}  # fmt: skip


def _internvl() -> PreTrainedConfig:
    return _config(
        "internvl",
        text_config={"model_type": "qwen2"} | text_shape(),
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [24, 24], "patch_size": [4, 4], "use_qk_norm": False,
        },
        image_token_id=token("<IMG_CONTEXT>"),
        image_seq_length=9,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )  # fmt: skip


def _gemma3() -> PreTrainedConfig:
    return _config(
        "gemma3",
        text_config=gemma_text(),
        vision_config=siglip(),
        mm_tokens_per_image=9,
        image_token_index=token("<image_soft_token>"),
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
        tie_word_embeddings=False,
    )


TEXT: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: _config("llama", **text_shape()),
    "llama-yarn": lambda: _config("llama", **text_shape(rope_parameters=yarn())),
    "mistral": _mistral,
    "qwen2": lambda: _config("qwen2", **text_shape()),
    "qwen3": lambda: _config("qwen3", **text_shape(head_dim=32)),
    "gpt-neox": _gpt_neox,
    "gemma3-text": lambda: _config("gemma3_text", **gemma_text(final_logit_softcapping=20.0)),
}

VISION: dict[str, Callable[[], PreTrainedConfig]] = {
    "qwen2-vl": _qwen2_vl,
    "qwen2.5-vl": _qwen2_5_vl,
    "qwen3-vl": _qwen3_vl,
    "smolvlm": _smolvlm,
    "idefics3": lambda: _smolvlm("idefics3"),
    "llava": lambda: _llava(siglip(model_type="clip_vision_model"), vision_feature_select_strategy="default"),
    "llava-lite": lambda: _llava(LITE_TOWER, vision_feature_layer=-1, vision_feature_select_strategy="full"),
    "llava-onevision": _llava_onevision,
    "internvl": _internvl,
    "gemma3": _gemma3,
}

_CLIP = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD, "rescale_factor": 1 / 255}
_SIGLIP = {"image_mean": SIGLIP_MEAN, "image_std": SIGLIP_MEAN, "rescale_factor": 1 / 255}
_QWEN = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}

PROCESSORS: dict[str, dict[str, Any]] = {
    "qwen2-vl": _CLIP | _QWEN | {"min_pixels": 256, "max_pixels": 4096},
    "qwen2.5-vl": _CLIP | _QWEN | {"size": {"shortest_edge": 256, "longest_edge": 4096}},
    "qwen3-vl": _SIGLIP | _QWEN | {"size": {"shortest_edge": 256, "longest_edge": 4096}},
    "smolvlm": _SIGLIP | {"size": {"longest_edge": 24}, "max_image_size": {"longest_edge": 24}},
    "idefics3": _SIGLIP | {"size": {"longest_edge": 24}, "max_image_size": {"longest_edge": 24}},
    "llava": _CLIP | {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
    "llava-lite": _SIGLIP | {"size": {"height": 32, "width": 32}, "time_format": "{clock}"},
    "llava-onevision": _SIGLIP | {"size": {"height": 20, "width": 20}},
    "internvl": _CLIP | {"size": {"height": 24, "width": 24}},
    "gemma3": _SIGLIP | {"size": {"height": 24, "width": 24}},
}


def tiny_weights(name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> LoadedWeights:
    """A model of the family called `name`, its attention SDPA, ready for `StreamModel`.

    `changes` are set on the language model's configuration.
    """
    config = (TEXT | VISION)[name]()
    for key, value in changes.items():
        setattr(config.get_text_config(decoder=True), key, value)
    torch.manual_seed(seed)
    kind = AutoModelForCausalLM if name in TEXT else AutoModelForImageTextToText
    model = kind.from_config(config, attn_implementation="sdpa").eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(3.0)
            if not parameter.data.any():
                parameter.data.normal_(std=0.2)
        else:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    return LoadedWeights(model.to(dtype), tiny_tokenizer(), model.config, PROCESSORS.get(name))
