"""Sight grafted on a language model: what is added, what stays, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import LITE_TOWER, tiny_tokenizer, tiny_weights, token
from torch import Tensor

from inf_stream.base.errors import ModelError
from inf_stream.models.stream_model import StreamModel
from inf_stream.models.weights.grafted import load_grafted
from inf_stream.models.weights.loaded import LoadedWeights

UPDATED = "model.language_model.layers.1.mlp.up_proj"


def base(dtype: torch.dtype = torch.float32) -> LoadedWeights:
    weights = tiny_weights("llama", dtype=dtype)
    weights.model.generation_config.eos_token_id = 7
    return weights


def graft_state() -> dict[str, Tensor]:
    """Of a whole tiny LLaVA, what is not the language model's; and one update."""
    whole = tiny_weights("llava-lite", seed=3).model.state_dict()
    state = {k: v for k, v in whole.items() if not k.startswith(("model.language_model.", "lm_head."))}
    rows, columns = whole[f"{UPDATED}.weight"].shape
    return state | {f"{UPDATED}.up": torch.randn(rows, 2), f"{UPDATED}.down": torch.randn(2, columns)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({k: v.contiguous() for k, v in graft_state().items()}, tmp_path / "graft.safetensors")
    config = {"model_type": "llava", "image_token_index": token("<image>"), "vision_config": LITE_TOWER}
    (tmp_path / "config.json").write_text(json.dumps(config))
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "time_format": "{clock}"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}")
    return tmp_path


def test_a_graft_adds_tower_projector_and_updates(folder: Path) -> None:
    before = {k: v.clone() for k, v in base().model.state_dict().items()}
    loaded = load_grafted(base(), folder)
    state, after = load_file(folder / "graft.safetensors"), loaded.model.state_dict()
    for name, weight in after.items():
        origin = name.replace("model.language_model.", "model.")
        if name == f"{UPDATED}.weight":
            change = state[f"{UPDATED}.up"] @ state[f"{UPDATED}.down"]
            torch.testing.assert_close(weight, before[origin] + change)
        elif origin in before:
            assert torch.equal(weight, before[origin]), name
        else:
            assert torch.equal(weight, state[name]), name
    assert not loaded.model.training
    assert loaded.model.generation_config.eos_token_id == 7
    assert loaded.tokenizer.chat_template.startswith("{% for m in messages %}[")


def test_a_grafted_model_sees_like_any_other(folder: Path) -> None:
    model = StreamModel(load_grafted(base(torch.bfloat16), folder))
    assert model.vision is not None
    assert model.vision.frame_size(640, 480) == (32, 32)
    frames = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    one, two = model.encode(frames)
    assert one.embeds.shape == (16, 64)
    assert one.embeds.dtype == torch.bfloat16
    assert not torch.equal(one.embeds, two.embeds)
    assert model.turns.ask == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.multi_modal_projector.linear_1.bias"), "lacks 1 weights and has 0 unknown ones"),
        (lambda s: s.update(extra=torch.zeros(1)), "lacks 0 weights and has 1 unknown ones, e.g. extra"),
        (lambda s: s.update({f"{UPDATED}.up": torch.zeros(3, 2)}), "does not fit its language model"),
        (lambda s: s.pop(f"{UPDATED}.down"), "does not fit its language model"),
        (lambda s: s.update({"model.nowhere.up": torch.zeros(3, 2)}), "does not fit its language model"),
        (lambda s: s.update({"model.vision_tower.position": torch.zeros(1)}), "does not fit its language model"),
    ],
)
def test_a_graft_that_does_not_fit_is_refused(folder: Path, change, message: str) -> None:
    state = load_file(folder / "graft.safetensors")
    change(state)
    save_file(state, folder / "graft.safetensors")
    with pytest.raises(ModelError, match=message):
        load_grafted(base(), folder)


def test_the_tokenizer_keeps_its_words(folder: Path) -> None:
    assert load_grafted(base(), folder).tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
