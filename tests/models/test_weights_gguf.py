"""GGUF files become the model they were made from, and damaged ones a clear error."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_files import TinyGguf, plain_rope, tiny

from inf_stream.base.errors import ModelError
from inf_stream.models.weights.gguf import load_gguf
from inf_stream.models.weights.gguf_file import GgufFile
from inf_stream.models.weights.gguf_model import ARCHITECTURES

CPU = torch.device("cpu")
IDS = torch.arange(24).unsqueeze(0) % 100


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def loaded(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    return load_gguf(path, dtype, CPU)[0]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_family_loads_to_the_same_logits(tmp_path: Path, architecture: str, tied: bool) -> None:
    model = tiny(architecture, tie_word_embeddings=tied)
    copy = loaded(TinyGguf(architecture, model).write(tmp_path / "tiny.gguf"))
    assert type(copy) is type(model)
    assert not copy.training
    assert copy.config._attn_implementation == "sdpa"
    torch.testing.assert_close(logits(copy), logits(model), rtol=1e-5, atol=1e-5)


def test_llama_without_undoing_the_permutation_would_differ(tmp_path: Path) -> None:
    model = tiny("llama")
    file = TinyGguf("llama", model)
    file.tensors["blk.0.attn_q.weight"] = model.state_dict()["model.layers.0.self_attn.q_proj.weight"].numpy()
    copy = loaded(file.write(tmp_path / "tiny.gguf"))
    assert not torch.allclose(logits(copy), logits(model), atol=1e-2)


def test_dtype_is_honoured(tmp_path: Path) -> None:
    path = TinyGguf("llama", tiny("llama")).write(tmp_path / "tiny.gguf")
    assert {p.dtype for p in loaded(path, torch.bfloat16).parameters()} == {torch.bfloat16}


def test_quantised_tensors_are_dequantised(tmp_path: Path) -> None:
    model = tiny("qwen2")
    file = TinyGguf("qwen2", model)
    copy = loaded(file.write(tmp_path / "tiny.gguf", gguf.GGMLQuantizationType.Q8_0))
    weight = copy.model.layers[1].mlp.up_proj.weight
    original = model.model.layers[1].mlp.up_proj.weight
    assert 0 < (weight - original).abs().max() < original.abs().max() / 127


ROPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": (
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
    ),
    "yarn": (
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 16,
        },
    ),
}


@pytest.mark.parametrize("kind", sorted(ROPES))
def test_stretched_positions(tmp_path: Path, kind: str) -> None:
    rope, fields = ROPES[kind]
    model = tiny("llama", rope_parameters=rope)
    file = TinyGguf("llama", model)
    file.fields |= fields
    copy = loaded(file.write(tmp_path / "tiny.gguf"))
    torch.testing.assert_close(logits(copy), logits(model), rtol=1e-5, atol=1e-5)


def llama3(**changes: float) -> dict[str, Any]:
    base = {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    return base | changes


def with_rope_factors(rope: dict[str, Any]) -> tuple[Any, TinyGguf]:
    model = tiny("llama", rope_parameters=rope, head_dim=64, max_position_embeddings=1 << 16)
    plain = tiny("llama", rope_parameters=plain_rope(rope["rope_theta"]), head_dim=64)
    file = TinyGguf("llama", model)
    factors = plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq
    file.tensors["rope_freqs.weight"] = factors.numpy()
    return model, file


def test_llama3_positions_are_recovered_from_their_divisors(tmp_path: Path) -> None:
    model, file = with_rope_factors(llama3(factor=32.0))
    copy = loaded(file.write(tmp_path / "tiny.gguf"))
    assert copy.config.rope_parameters["factor"] == pytest.approx(32.0)
    torch.testing.assert_close(copy.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


def test_divisors_of_another_kind_are_refused(tmp_path: Path) -> None:
    _, file = with_rope_factors(llama3(high_freq_factor=9.0))
    with pytest.raises(ModelError, match="not Llama 3's"):
        loaded(file.write(tmp_path / "tiny.gguf"))


def test_gemma3_stretches_only_its_full_layers(tmp_path: Path) -> None:
    full = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
    ropes = {"sliding_attention": plain_rope(1e4), "full_attention": full}
    model = tiny("gemma3", rope_parameters=ropes, num_hidden_layers=6)
    file = TinyGguf("gemma3", model)
    file.fields["gemma3.rope.scaling.factor"] = 8.0
    copy = loaded(file.write(tmp_path / "tiny.gguf"))
    torch.testing.assert_close(logits(copy), logits(model), rtol=1e-5, atol=1e-5)


def test_gemma3_27b_scales_queries_by_its_width(tmp_path: Path) -> None:
    model = tiny("gemma3", num_hidden_layers=62, head_dim=16, query_pre_attn_scalar=8)
    copy = loaded(TinyGguf("gemma3", model).write(tmp_path / "tiny.gguf"))
    assert copy.config.query_pre_attn_scalar == 8


def test_answers_end_at_every_end_token(tmp_path: Path) -> None:
    file = TinyGguf("llama", tiny("llama"))
    file.fields["tokenizer.ggml.eot_token_id"] = 1
    assert loaded(file.write(tmp_path / "tiny.gguf")).generation_config.eos_token_id == [2, 1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"llama.block_count": None}, "lacks the metadata 'llama.block_count'"),
        ({"llama.block_count": "two"}, "not a single int"),
        ({"llama.block_count": 3}, "states 3 layers and holds 2"),
        ({"llama.attention.head_count": 0}, "states 0 heads"),
        ({"llama.attention.head_count": [4, 4]}, "not a single int"),
        ({"llama.attention.head_count": 5}, "impossible model"),
        ({"llama.attention.key_length": 16}, r"has shape \(16, 32\), \(32, 32\) is expected"),
        ({"llama.attention.layer_norm_rms_epsilon": "small"}, "not a single float"),
        ({"llama.rope.scaling.type": "longrope"}, "stretches positions by 'longrope'"),
        ({"tokenizer.ggml.tokens": "abc"}, "not a list"),
    ],
)
def test_odd_metadata_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = TinyGguf("llama", tiny("llama"))
    file.fields = {k: v for k, v in (file.fields | change).items() if v is not None}
    with pytest.raises(ModelError, match=message):
        loaded(file.write(tmp_path / "tiny.gguf"))


def test_whole_numbers_do_for_numbers(tmp_path: Path) -> None:
    file = TinyGguf("llama", tiny("llama"))
    file.fields["llama.rope.freq_base"] = 10_000
    assert loaded(file.write(tmp_path / "tiny.gguf")).config.rope_parameters["rope_theta"] == 1e4


def test_unknown_family_names_the_supported_ones(tmp_path: Path) -> None:
    file = TinyGguf("llama", tiny("llama"))
    file.architecture = "mamba"
    with pytest.raises(ModelError, match="'mamba' model; GGUF is supported for gemma3, llama, qwen2, qwen3"):
        loaded(file.write(tmp_path / "tiny.gguf"))


@pytest.mark.parametrize("name", ["blk.0.ffn_gate_exps.weight", "vision.weight"])
def test_variants_with_other_tensors_are_refused(tmp_path: Path, name: str) -> None:
    file = TinyGguf("llama", tiny("llama"))
    file.tensors[name] = file.tensors["output_norm.weight"]
    with pytest.raises(ModelError, match=f"holds the tensor '{name}'"):
        loaded(file.write(tmp_path / "tiny.gguf"))


def test_missing_embeddings_are_named(tmp_path: Path) -> None:
    file = TinyGguf("llama", tiny("llama"))
    del file.tensors["token_embd.weight"]
    with pytest.raises(ModelError, match=r"no tensor 'token_embd.weight'"):
        loaded(file.write(tmp_path / "tiny.gguf"))


def test_quantisation_unknown_to_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = TinyGguf("llama", tiny("llama")).write(tmp_path / "tiny.gguf")

    def unknown(*_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("inf_stream.models.weights.gguf_file.dequantize", unknown)
    with pytest.raises(ModelError, match="is quantised as F32, which the installed gguf package cannot read"):
        loaded(path)


def test_embeddings_of_another_rank_are_refused(tmp_path: Path) -> None:
    file = TinyGguf("llama", tiny("llama"))
    file.tensors["token_embd.weight"] = file.tensors["token_embd.weight"].reshape(-1)
    with pytest.raises(ModelError, match=r"embeddings of shape \(\d+,\)"):
        loaded(file.write(tmp_path / "tiny.gguf"))


def test_text_that_is_not_utf8_is_damage(tmp_path: Path) -> None:
    path = TinyGguf("llama", tiny("llama")).write(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes().replace(b"smollm", b"smo\xff\xfem"))
    with pytest.raises(ModelError, match=r"truncated or damaged: 'utf-8' codec"):
        loaded(path)


def test_data_that_does_not_fit_its_quantisation_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = TinyGguf("llama", tiny("llama")).write(tmp_path / "tiny.gguf")

    def misfit(*_: Any) -> None:
        raise ValueError("not a multiple of the block size")

    monkeypatch.setattr("inf_stream.models.weights.gguf_file.dequantize", misfit)
    with pytest.raises(ModelError, match="truncated or damaged: not a multiple"):
        loaded(path)


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 a zip archive"])
def test_what_is_not_gguf_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a GGUF file"):
        GgufFile(path)


def test_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        GgufFile(tmp_path / "missing.gguf")


@pytest.fixture(scope="module")
def good_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("good") / "good.gguf"
    return TinyGguf("llama", tiny("llama")).write(path).read_bytes()


@given(st.data())
def test_truncated_anywhere_is_a_model_error(
    good_bytes: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.gguf"
    path.write_bytes(good_bytes[: data.draw(st.integers(4, len(good_bytes) - 64))])
    with pytest.raises(ModelError, match="truncated or damaged"):
        loaded(path)


@given(st.data())
def test_damaged_anywhere_loads_or_is_a_model_error(
    good_bytes: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(good_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, 6000))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "damaged.gguf"
    path.write_bytes(bytes(damaged))
    with suppress(ModelError):
        loaded(path)
