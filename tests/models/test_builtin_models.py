"""The built-in model: its file, its converted copy, and what happens when either is damaged."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from support.gguf_files import TinyGguf, tiny

from inf_stream.base.errors import ModelError
from inf_stream.models.weights import converted
from inf_stream.models.weights.builtin import BUILTIN, fetch_builtin, is_present
from inf_stream.models.weights.converted import converted_folder, is_intact, load_converted
from inf_stream.models.weights.fetch import sha256
from inf_stream.models.weights.gguf import load_gguf
from inf_stream.models.weights.loaded import LoadedWeights

CPU = torch.device("cpu")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return TinyGguf("llama", tiny("llama")).write(tmp_path / "tiny.gguf")


def test_smollm2_is_what_it_should_be(smollm2_file: Path) -> None:
    source = BUILTIN["smollm2-135m"].source
    assert smollm2_file.stat().st_size == source.size_bytes
    assert sha256(smollm2_file) == source.sha256
    assert is_present("smollm2-135m")


def test_smollm2_answers(weights: LoadedWeights) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = weights.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = weights.model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert weights.tokenizer.decode(out[0, prompt["input_ids"].shape[1] :]) == (
        "The capital of France is Paris.<|im_end|>"
    )


def test_smollm2_converted_equals_the_file(
    smollm2_file: Path, load_weights: Callable[[torch.dtype], LoadedWeights]
) -> None:
    copy = load_weights(torch.bfloat16)
    model, tokenizer = load_gguf(smollm2_file, torch.bfloat16, CPU)
    for (name, ours), (_, theirs) in zip(copy.model.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert copy.tokenizer.chat_template == tokenizer.chat_template
    assert copy.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert copy.model.generation_config.eos_token_id == model.generation_config.eos_token_id == [2, 0]
    assert not copy.model.training


def test_demo_is_shipped_whole_and_small() -> None:
    folder = Path(converted.__file__).parent / str(BUILTIN["demo"].graft)
    weights = folder / "graft.safetensors"
    assert 20e6 < weights.stat().st_size <= 25e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    figures = re.findall(r"^\| ([^|]+?) \| ([\d.]+%?) \|", card, re.MULTILINE)
    assert {"caption BLEU-4", "yes/no", "motion direction", "count"} <= {name for name, _ in figures}
    assert BUILTIN["demo"].sees
    assert not BUILTIN["smollm2-135m"].sees


def test_absent_files_are_said_to_be_absent(tmp_path: Path) -> None:
    assert not is_present("smollm2-135m", tmp_path)


def test_fetching_goes_to_the_given_folder(tmp_path: Path) -> None:
    path = BUILTIN["smollm2-135m"].gguf_path(tmp_path)
    path.parent.mkdir(parents=True)
    with path.open("wb") as out:
        out.truncate(BUILTIN["smollm2-135m"].source.size_bytes)
    assert fetch_builtin("smollm2-135m", folder=tmp_path) == path


def test_copy_is_made_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sha256(file)
    first, _ = load_converted(file, digest, torch.float32, CPU)
    monkeypatch.setattr(converted, "load_gguf", None)
    second, tokenizer = load_converted(file, digest, torch.float32, CPU)
    ids = tokenizer("hello 19", return_tensors="pt").input_ids
    assert torch.equal(first(ids).logits, second(ids).logits)


def test_a_copy_made_by_another_process_meanwhile_is_used(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sha256(file)
    load_converted(file, digest, torch.float32, CPU)
    answers = iter([False, True])
    monkeypatch.setattr(converted, "is_intact", lambda *_: next(answers))
    monkeypatch.setattr(converted, "load_gguf", None)
    load_converted(file, digest, torch.float32, CPU)


def test_each_number_format_has_its_copy(file: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model, _ = load_converted(file, sha256(file), dtype, CPU)
        assert model.dtype is dtype
        assert is_intact(converted_folder(file, dtype), sha256(file))


@pytest.mark.parametrize("damage", ["weights", "missing", "manifest", "json", "foreign", "no files"])
def test_damaged_copy_is_made_anew(file: Path, damage: str) -> None:
    digest = sha256(file)
    load_converted(file, digest, torch.float32, CPU)
    folder = converted_folder(file, torch.float32)
    manifest = folder / "manifest.json"
    match damage:
        case "weights":
            path = folder / "model.safetensors"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(bytes(content))
        case "missing":
            (folder / "tokenizer.json").unlink()
        case "manifest":
            manifest.write_text("{")
        case "json":
            manifest.write_text("[]")
        case "foreign":
            manifest.write_text(manifest.read_text().replace(digest, "0" * 64))
        case "no files":
            manifest.write_text(json.dumps({"gguf_sha256": digest, "files": {}}))
    assert not is_intact(folder, digest)
    load_converted(file, digest, torch.float32, CPU)
    assert is_intact(folder, digest)


def test_a_file_with_another_hash_is_deleted(file: Path) -> None:
    with pytest.raises(ModelError, match=r"has the hash \w+, 0000 is expected; it was deleted: run"):
        load_converted(file, "0000", torch.float32, CPU)
    assert not file.exists()


def test_a_disk_that_fills_up_leaves_no_copy(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(ModelError, match="No space left on device"):
        load_converted(file, sha256(file), torch.float32, CPU)
    assert {path.name for path in file.parent.iterdir()} == {"tiny.gguf", ".lock"}
