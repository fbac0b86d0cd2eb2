"""Sight grafted on a language model that is there already: only what was trained for it is shipped.

A graft is a folder like a checkpoint's, smaller: the vision tower, the projector, and low-rank updates (Hu et al.,
arXiv 2106.09685) which are added to the language model's matrices once, when it is loaded. What comes out is a stock
LLaVA.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

from inf_stream.base.errors import ModelError
from inf_stream.models.towers import EfficientNetLiteConfig
from inf_stream.models.weights.loaded import LoadedWeights

WEIGHTS, CONFIG, PROCESSOR, TEMPLATE = (
    "graft.safetensors",
    "config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
)
_DOWN, _UP = ".down", ".up"


def load_grafted(base: LoadedWeights, folder: Path) -> LoadedWeights:
    """The model that `folder` makes of `base`, which is used up.

    Raises:
        ModelError: the graft is incomplete or belongs to another language model.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    state = load_file(folder / WEIGHTS)
    like = next(base.model.parameters())
    model = llava_around(base.model, EfficientNetLiteConfig(**config["vision_config"]), config["image_token_index"])
    graft(model, state, like.dtype, like.device)
    tokenizer = base.tokenizer
    tokenizer.chat_template = (folder / TEMPLATE).read_text(encoding="utf-8")
    processor = json.loads((folder / PROCESSOR).read_text(encoding="utf-8"))
    return LoadedWeights(model.eval(), tokenizer, model.config, processor)


def llava_around(
    base: PreTrainedModel, tower: EfficientNetLiteConfig, image_token_id: int
) -> LlavaForConditionalGeneration:
    """A LLaVA whose language model is `base` itself, and whose tower and projector have no weights yet."""
    config = LlavaConfig(
        vision_config=tower,
        text_config=base.config,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_token_index=image_token_id,
        image_seq_length=(tower.image_size // tower.patch_size) ** 2,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    model.model.language_model, model.lm_head = base.model, base.lm_head
    model.generation_config = base.generation_config
    return model


def graft(model: LlavaForConditionalGeneration, state: dict[str, Tensor], dtype: torch.dtype, device: Any) -> None:
    """Give tower and projector their weights, and add the updates of the language model.

    Raises:
        ModelError: a weight is missing, or one does not fit.
    """
    updates = {name for name in state if name.endswith((_DOWN, _UP))}
    own = {name: weight.to(device, dtype) for name, weight in state.items() if name not in updates}
    try:
        found = model.load_state_dict(own, strict=False, assign=True)
        for name in sorted(n.removesuffix(_UP) for n in updates if n.endswith(_UP)):
            weight = model.get_submodule(name).weight
            change = state[name + _UP].float() @ state[name + _DOWN].float()
            weight.data = (weight.data.float() + change.to(device)).to(dtype)
    except (RuntimeError, AttributeError, KeyError) as error:
        raise ModelError(f"the graft does not fit its language model: {error}; reinstall inf-stream") from error
    missing = [name for name in found.missing_keys if not name.startswith(("model.language_model.", "lm_head."))]
    if missing or found.unexpected_keys:
        raise ModelError(
            f"the graft lacks {len(missing)} weights and has {len(found.unexpected_keys)} unknown ones, e.g. "
            f"{[*missing, *found.unexpected_keys][0]}; reinstall inf-stream"
        )
