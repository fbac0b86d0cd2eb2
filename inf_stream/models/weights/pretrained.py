"""One door for all weights: a built-in name, a GGUF file, a local folder or a hub id."""

from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from inf_stream.base.errors import ModelError
from inf_stream.models.weights import checkpoint
from inf_stream.models.weights.builtin import BUILTIN, fetch_builtin, require_findable, resolve_auto
from inf_stream.models.weights.converted import load_converted
from inf_stream.models.weights.fetch import Progress, silent
from inf_stream.models.weights.gguf import load_gguf
from inf_stream.models.weights.grafted import load_grafted
from inf_stream.models.weights.hub import hub_folder
from inf_stream.models.weights.loaded import LoadedWeights
from inf_stream.models.weights.placement import SMALLER, machine_facts, require_memory

_BAD_CHECKPOINT = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError)
"""What transformers raises for files that are missing, damaged, or of an unknown kind."""


def load_pretrained(name: str, device: torch.device, dtype: torch.dtype, progress: Progress = silent) -> LoadedWeights:
    """Load the model called `name`.

    Args:
        name: a built-in name or ``auto``, a GGUF file, a folder with safetensors weights, or a hub id.
        device: where it goes.
        dtype: number format of its weights.
        progress: called while a built-in model is downloaded.

    Raises:
        ModelError: the model cannot be found, fetched, read or fitted into memory.
    """
    name = resolve_auto(name)
    require_findable(name)
    path = checkpoint.local_path(name)
    if name in BUILTIN:
        return load_builtin(name, dtype, device, progress)
    if path.is_file():
        return _from_file(path, device, dtype)
    if path.is_dir():
        return load_folder(path, device, dtype)
    return load_folder(hub_folder(name), device, dtype)


def load_builtin(
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    progress: Progress = silent,
    folder: Path | None = None,
) -> LoadedWeights:
    """The built-in `name` in eval mode, fetched if need be and converted once per number format.

    Raises:
        ModelError: as `fetch_builtin`.
    """
    built_in = BUILTIN[name]
    path = fetch_builtin(name, progress, folder)
    model, tokenizer = load_converted(path, built_in.source.sha256, dtype, device)
    loaded = LoadedWeights(model, tokenizer, model.config)
    return loaded if built_in.graft is None else load_grafted(loaded, Path(__file__).parent / built_in.graft)


def load_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> LoadedWeights:
    """Load a folder as `save_pretrained` writes it.

    Raises:
        ModelError: something is missing, damaged, of an unknown kind, or does not fit into memory.
    """
    checkpoint.require_checkpoint(folder)
    config = _config(folder)
    need_bytes = checkpoint.weight_count(folder) * dtype.itemsize
    require_memory(
        f"the weights in '{folder}'",
        need_bytes,
        device,
        machine_facts(),
        SMALLER,
    )
    model = _model(folder, config, dtype).to(device).eval()
    return LoadedWeights(
        model,
        _tokenizer(folder),
        model.config,
        checkpoint.image_processor_config(folder),
        checkpoint.video_processor_config(folder),
    )


def sees(config: PreTrainedConfig) -> bool:
    """Whether a configuration describes a model with a vision tower."""
    return getattr(config, "vision_config", None) is not None


def _from_file(path: Path, device: torch.device, dtype: torch.dtype) -> LoadedWeights:
    if path.suffix == ".safetensors":
        raise ModelError(f"'{path}' is one file of a checkpoint; give its folder: {path.parent}")
    model, tokenizer = load_gguf(path, dtype, device)
    return LoadedWeights(model, tokenizer, model.config)


def _config(folder: Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (*_BAD_CHECKPOINT, StrictDataclassError) as error:
        stated = (checkpoint.read_json(folder / "config.json") or {}).get("model_type")
        raise ModelError(
            f"the configuration in '{folder}' (model_type {stated!r}) is not one this transformers can run: "
            f"{_first_line(error)}. Code shipped with a checkpoint is never run; look for a version of the "
            "model "
            "in transformers' own format (often named '-hf'), or update transformers"
        ) from error


def _model(folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    loader = AutoModelForImageTextToText if sees(config) else AutoModelForCausalLM
    try:
        model, found = loader.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except _BAD_CHECKPOINT as error:
        raise ModelError(f"the weights in '{folder}' cannot be loaded: {_first_line(error)}") from error
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"the weights in '{folder}' lack {len(missing)} tensors, e.g. {missing[0]}; the download is "
            "incomplete or "
            f"they belong to another kind of model than {type(model).__name__}"
        )
    return model


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _BAD_CHECKPOINT as error:
        raise ModelError(
            f"the tokenizer in '{folder}' cannot be loaded: {_first_line(error)}; it needs a tokenizer.json"
        ) from error
    if (template := checkpoint.chat_template(folder)) is not None:
        tokenizer.chat_template = template
    return tokenizer


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
