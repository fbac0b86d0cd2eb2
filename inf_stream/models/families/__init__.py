"""The supported model families; adding one is one file here, one line below, and one test."""

from transformers import PreTrainedConfig

from inf_stream.base.errors import ModelError
from inf_stream.models.families.base import Family
from inf_stream.models.families.gemma3 import Gemma3, Gemma3Text
from inf_stream.models.families.internvl import InternVL
from inf_stream.models.families.llava import Llava
from inf_stream.models.families.llava_onevision import LlavaOneVision
from inf_stream.models.families.qwen_vl import Qwen2VL, Qwen3VL
from inf_stream.models.families.smolvlm import SmolVLM
from inf_stream.models.families.text import TEXT_FAMILIES
from inf_stream.models.families.vision import VisionAdapter

FAMILIES: tuple[type[Family], ...] = (
    *TEXT_FAMILIES,
    Gemma3Text,
    Gemma3,
    Qwen2VL,
    Qwen3VL,
    SmolVLM,
    Llava,
    LlavaOneVision,
    InternVL,
)


def family_of(config: PreTrainedConfig) -> Family:
    """The family a model's configuration belongs to.

    Raises:
        ModelError: none of the supported ones, or a variant of one that cannot work.
    """
    for family in FAMILIES:
        if config.model_type in family.model_types:
            made = family()
            made.refuse_unfit(config)
            return made
    known = ", ".join(f.title for f in FAMILIES)
    raise ModelError(f"models of type '{config.model_type}' are not supported; supported families: {known}")


__all__ = ["FAMILIES", "Family", "VisionAdapter", "family_of"]
