"""One door for all weights: what is loaded, with which class, and how each refusal reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from support.gguf_files import TinyGguf, tiny
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from inf_stream.base.errors import ModelError
from inf_stream.models.weights import hub
from inf_stream.models.weights.gguf import load_gguf
from inf_stream.models.weights.loaded import LoadedWeights
from inf_stream.models.weights.pretrained import load_pretrained

CPU = torch.device("cpu")


def load(name: str | Path, dtype: torch.dtype = torch.float32) -> LoadedWeights:
    return load_pretrained(str(name), CPU, dtype)


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    return TinyGguf("llama", tiny("llama")).write(tmp_path / "tiny.gguf")


@pytest.fixture
def folder(tmp_path: Path, gguf_file: Path) -> Path:
    """A tiny text model as `save_pretrained` writes it."""
    model, tokenizer = load_gguf(gguf_file, torch.float32, CPU)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def vision_folder(folder: Path, tmp_path: Path) -> Path:
    """A tiny vision-language model with its processor files."""
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    text |= {"intermediate_size": 16, "vocab_size": 128, "rope_parameters": {"mrope_section": [1, 1, 2]}}
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 16}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
    path = tmp_path / "vision"
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / name).write_bytes((folder / name).read_bytes())
    return path


def edit_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({k: v for k, v in (values | changes).items() if v is not None}))


def test_builtin_name(smollm2_file: Path) -> None:
    found = load("smollm2-135m", torch.bfloat16)
    assert found.config is found.model.config
    assert found.config.num_hidden_layers == 30
    assert found.image_processor is None


def test_gguf_file(gguf_file: Path) -> None:
    found = load(gguf_file, torch.bfloat16)
    assert found.model.dtype is torch.bfloat16
    assert found.tokenizer("hello").input_ids


def test_text_folder(folder: Path, gguf_file: Path) -> None:
    found = load(folder)
    original = load(gguf_file)
    ids = torch.arange(9).unsqueeze(0)
    assert torch.equal(found.model(ids).logits, original.model(ids).logits)
    assert not found.model.training
    assert found.config._attn_implementation == "sdpa"
    assert found.tokenizer.chat_template == original.tokenizer.chat_template
    assert found.image_processor is found.video_processor is None


def test_folder_below_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load("~/model").config.model_type == "llama"


def test_vision_folder_takes_the_vision_class(vision_folder: Path) -> None:
    edit_json(vision_folder / "preprocessor_config.json", patch_size=14)
    edit_json(vision_folder / "video_preprocessor_config.json", max_frames=768)
    edit_json(vision_folder / "chat_template.json", chat_template="with images")
    found = load(vision_folder)
    assert isinstance(found.model, Qwen2_5_VLForConditionalGeneration)
    assert found.image_processor == {"patch_size": 14}
    assert found.video_processor == {"max_frames": 768}
    assert found.tokenizer.chat_template == "with images"


def test_processor_file_with_sections(vision_folder: Path) -> None:
    edit_json(vision_folder / "processor_config.json", image_processor={"do_resize": True}, video_processor=[])
    found = load(vision_folder)
    assert found.image_processor == {"do_resize": True}
    assert found.video_processor is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pickled_beside_others(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "adapter.safetensors")


def other_model(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=3)


DAMAGES: dict[str, tuple[Any, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json; give the folder that save_pretrained"),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), r"config.json' is not valid JSON"),
    "config not an object": (lambda f: (f / "config.json").write_text("[]"), "holds a list, a JSON object"),
    "unknown family": (
        lambda f: edit_json(f / "config.json", model_type="viking"),
        r"\(model_type 'viking'\) is not one",
    ),
    "own code": (
        lambda f: edit_json(
            f / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
        ),
        r"\(model_type 'mine'\) is not one .*never run.*'-hf'",
    ),
    "impossible sizes": (lambda f: edit_json(f / "config.json", hidden_size="wide"), r"\(model_type 'llama'\)"),
    "no weights": (remove_weights, r"holds no \*.safetensors weights"),
    "pickled weights": (only_pickled, r"only pickled weights \(pytorch_model.bin\).*save_pretrained\(new_folder\)"),
    "pickled weights beside others": (pickled_beside_others, "cannot be loaded: .*model.safetensors"),
    "cut weights": (lambda f: cut(f / "model.safetensors"), r"model.safetensors' \(\d+ bytes\) are truncated"),
    "weights of another model": (other_model, r"lack 9 tensors, e.g. model.layers.2.\S+; .*LlamaForCausalLM"),
    "weights of other sizes": (lambda f: edit_json(f / "config.json", vocab_size=9), "cannot be loaded"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer in .* cannot be loaded"),
    "tokenizer not JSON": (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer in .* cannot be loaded"),
    "not a language model": (
        lambda f: (f / "config.json").write_text('{"model_type": "vit"}'),
        "cannot be loaded: Unrecognized configuration class",
    ),
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_folder(folder: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    change(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_of_gguf_files_names_one(gguf_file: Path) -> None:
    with pytest.raises(ModelError, match=f"give the file itself: {gguf_file}"):
        load(gguf_file.parent)


def test_single_safetensors_file_names_its_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match=f"give its folder: {folder}"):
        load(folder / "model.safetensors")


def test_gguf_too_big_for_the_memory(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inf_stream.models.weights.gguf_file.GgufFile.weight_count", lambda _: 1 << 50)
    with pytest.raises(ModelError, match=r"need \d+\.\d+ GiB on cpu, .*use a smaller model"):
        load(gguf_file)


def test_weights_too_big_for_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inf_stream.models.weights.checkpoint.weight_count", lambda _: 1 << 50)
    with pytest.raises(ModelError, match=r"need \d+\.\d+ GiB on cpu, .*use a smaller model"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2", r"model 'smollm2' is unknown; did you mean 'smollm2-135m'\?"),
        ("SmolLM2-135M", r"did you mean 'smollm2-135m'\?"),
        ("./missing", "does not exist"),
        ("/missing/model", "does not exist"),
        ("a/b/c", "does not exist"),
        (".\\missing", "does not exist"),
        ("missing.gguf", "does not exist"),
        ("", "no model is named"),
        ("two words", "neither a built-in name, a file, a folder nor a hub id"),
        ("someone/some-model", "could not be fetched from the hub: .*check the name and the network"),
    ],
)
def test_refused_names(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def hub_error(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "the hub says no")
    return error


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (GatedRepoError, "is gated: accept its licence on its hub page, then set HF_TOKEN"),
        (RepositoryNotFoundError, "is not on the hub, or is private; check the name"),
        (HFValidationError, "neither a built-in name"),
        (ConnectionError, "check the name and the network"),
        (hub._CLIENT_ERROR, "check the name and the network"),
    ],
)
def test_hub_refusals(monkeypatch: pytest.MonkeyPatch, kind: type[Exception], message: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise hub_error(kind)

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=message):
        load("someone/some-model")


def test_hub_snapshot_is_loaded_from_the_hubs_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own cache layout, so that its real code finds the snapshot without a network."""
    repo = tmp_path / "hub" / "models--someone--some-model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("a" * 40)
    (repo / "snapshots").mkdir()
    folder.rename(repo / "snapshots" / ("a" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load("someone/some-model").config.model_type == "llama"


def test_only_what_is_needed_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["config.json", "model-00001-of-00002.safetensors", "tokenizer.json", "chat_template.jinja", "merges.txt"]
    others = ["pytorch_model.bin", "consolidated.safetensors", "onnx/model.onnx", "original/consolidated.00.pth"]
    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(options)
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    load("someone/some-model")
    assert list(filter_repo_objects([*files, *others], **asked)) == files
