"""The supported model families; adding one is one file here, one line below, and one test."""

from transformers import PreTrainedConfig

from inf_stream.base.errors import ModelError
from inf_stream.models.families.base import Family, VisionAdapter
from inf_stream.models.families.text import GPTNeoX, Llama, Mistral, Qwen2, Qwen3

FAMILIES: tuple[type[Family], ...] = (Llama, Mistral, Qwen2, Qwen3, GPTNeoX)


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
