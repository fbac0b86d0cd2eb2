"""Loading a GGUF file as an ordinary transformers model, without accelerate."""

from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from inf_stream.base.errors import ModelError
from inf_stream.models.weights.gguf_file import GgufFile
from inf_stream.models.weights.gguf_model import architecture_of, state_dict, tensor_names
from inf_stream.models.weights.gguf_tokenizer import build_tokenizer, end_token_ids
from inf_stream.models.weights.placement import SMALLER, machine_facts, require_memory


def load_gguf(path: Path, dtype: torch.dtype, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The model in eval mode on `device`, with its weights dequantised to `dtype`, and its tokenizer.

    Raises:
        ModelError: the file is missing, damaged, or of an unsupported family, quantisation or vocabulary, or
            does not fit into memory.
    """
    file = GgufFile(path)
    architecture = architecture_of(file)
    try:
        config = architecture.config(file)
    except (ValueError, TypeError, ArithmeticError, StrictDataclassError) as error:
        raise ModelError(f"'{path}' states an impossible model: {error}; the file is damaged") from error
    need_bytes = file.weight_count() * dtype.itemsize
    require_memory(f"the weights in '{path}'", need_bytes, device, machine_facts(), SMALLER)
    tokenizer = build_tokenizer(file)
    model = _model(file, config, dtype)
    model.generation_config.eos_token_id = end_token_ids(file)
    return model.to(device).eval(), tokenizer


def _model(file: GgufFile, config: object, dtype: torch.dtype) -> PreTrainedModel:
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    expected = {name: tuple(weight.shape) for name, weight in skeleton.named_parameters()}
    stored = {name: file.shape(gguf_name) for name, gguf_name in tensor_names(file).items()}
    for name in sorted(expected.keys() | stored.keys()):
        if (found := stored.get(name)) != (wanted := expected.get(name)):
            raise ModelError(
                f"weight '{name}' of '{file.path}' has shape {found}, {wanted} is expected; "
                "the file is damaged or an unsupported variant"
            )
    state = state_dict(file, config, dtype)
    return type(skeleton).from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, attn_implementation="sdpa"
    )
