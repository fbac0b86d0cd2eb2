"""Families and variants that cannot work are refused with a word on what can."""

from typing import Any

import pytest
from support.tiny_models import TEXT, VISION, gemma_text, qwen_text, rope, text_shape, tiny_weights
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    InternVLConfig,
    LlamaConfig,
    LlavaOnevisionConfig,
    PreTrainedConfig,
    Qwen2VLConfig,
)

from inf_stream.base.errors import ModelError
from inf_stream.models.families import FAMILIES, family_of
from inf_stream.models.families.base import Family
from inf_stream.models.stream_model import StreamModel


def test_an_unknown_family_is_told_all_that_are_known() -> None:
    with pytest.raises(ModelError, match="models of type 'gpt2' are not supported") as refused:
        family_of(GPT2Config())
    for family in FAMILIES:
        assert family.title in str(refused.value)


@pytest.mark.parametrize("name", [*TEXT, *VISION])
def test_every_tiny_model_has_its_family(name: str) -> None:
    config = (TEXT | VISION)[name]()
    family = family_of(config)
    assert config.model_type in family.model_types
    assert family.title


def test_no_model_type_belongs_to_two_families() -> None:
    types = [model_type for family in FAMILIES for model_type in family.model_types]
    assert len(types) == len(set(types))


DYNAMIC = rope("dynamic", factor=2.0)
LONGROPE = rope("longrope", short_factor=[1.0] * 8, long_factor=[2.0] * 8, original_max_position_embeddings=64)


@pytest.mark.parametrize("parameters", [DYNAMIC, LONGROPE], ids=["dynamic", "longrope"])
@pytest.mark.parametrize("where", ["text", "inside a vision model", "inside InternVL", "in one kind of layer"])
def test_rotary_embeddings_that_depend_on_length_are_refused(parameters: dict[str, Any], where: str) -> None:
    config: PreTrainedConfig
    match where:
        case "text":
            config = LlamaConfig(**text_shape(rope_parameters=parameters))
        case "inside a vision model":
            config = Qwen2VLConfig(text_config=qwen_text() | {"rope_parameters": parameters})
        case "inside InternVL":
            config = InternVLConfig(text_config={"model_type": "llama"} | text_shape(rope_parameters=parameters))
        case _:
            kinds = {"sliding_attention": rope(), "full_attention": parameters}
            config = Gemma3TextConfig(**gemma_text() | {"rope_parameters": kinds})
    with pytest.raises(ModelError, match=f"'{parameters['rope_type']}' depends on the length of the text.*YaRN"):
        family_of(config)


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn"])
def test_rotary_embeddings_that_do_not_are_taken(kind: str) -> None:
    more = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    original = {} if kind == "linear" else {"original_max_position_embeddings": 64}
    family_of(LlamaConfig(**text_shape(rope_parameters=rope(kind, factor=4.0, **more, **original))))


@pytest.mark.parametrize("kind", [InternVLConfig, LlavaOnevisionConfig])
def test_a_vision_model_around_an_unknown_language_model_is_refused(kind: type[PreTrainedConfig]) -> None:
    config = kind(text_config={"model_type": "gpt2"})
    with pytest.raises(ModelError, match=r"language model inside is of type 'gpt2'.*supported: Llama, Mistral, Qwen2"):
        family_of(config)


def test_a_sliding_language_model_inside_a_vision_model_slides() -> None:
    text = {"model_type": "mistral"} | text_shape(sliding_window=20)
    config = InternVLConfig(text_config=text)
    assert family_of(config).sliding_windows(config.text_config) == (20, 20, 20)


def test_an_embedding_gemma_is_refused() -> None:
    with pytest.raises(ModelError, match="use_bidirectional_attention"):
        family_of(Gemma3TextConfig(**gemma_text(use_bidirectional_attention=True)))


def test_layers_without_a_key_value_cache_are_refused() -> None:
    config = LlamaConfig(**text_shape())
    config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    with pytest.raises(ModelError, match="layers of kind linear_attention"):
        Family().sliding_windows(config)


def test_a_refused_model_keeps_its_own_attention() -> None:
    weights = tiny_weights("llama")
    weights.config.model_type = "unheard-of"
    with pytest.raises(ModelError, match="unheard-of"):
        StreamModel(weights)
    assert weights.model.config._attn_implementation == "sdpa"
