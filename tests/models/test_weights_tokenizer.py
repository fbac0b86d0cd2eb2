"""Vocabularies in GGUF files become tokenizers with llama.cpp's ids."""

from pathlib import Path
from typing import Any

import pytest
from support.gguf_files import LETTERS, TinyGguf, Vocabulary, tiny

from inf_stream.base.errors import ModelError
from inf_stream.models.weights.gguf_file import GgufFile
from inf_stream.models.weights.gguf_tokenizer import build_tokenizer


def tokenizer_of(path: Path, vocabulary: Vocabulary | None = None, **fields: Any) -> Any:
    vocabulary = vocabulary or Vocabulary()
    file = TinyGguf("llama", tiny("llama"), vocabulary)
    changed = file.fields | {f"tokenizer.{key}": value for key, value in fields.items()}
    file.fields = {key: value for key, value in changed.items() if value is not None}
    return build_tokenizer(GgufFile(file.write(path / "tiny.gguf")))


def pieces(tokenizer: Any, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)


def test_ids_are_those_of_the_file(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path)
    vocabulary = Vocabulary().tokens
    assert [vocabulary[i] for i in tokenizer("hello").input_ids] == ["hello"]
    assert len(tokenizer) == len(vocabulary)


def test_real_vocabulary_gives_llama_cpps_ids(smollm2_file: Path) -> None:
    tokenizer = build_tokenizer(GgufFile(smollm2_file))
    assert tokenizer("hello 1984  x").input_ids == [28120, 216, 33, 41, 40, 36, 216, 1792]
    text = "don't stop\n\n\tcafé 日本 🎉 <|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        ("smollm", ["1", "9", "8", "4"]),
        ("starcoder", ["1", "9", "8", "4"]),
        ("gpt-2", ["19", "84"]),
        ("qwen2", ["1", "9", "8", "4"]),
        ("deepseek-r1-qwen", ["1", "9", "8", "4"]),
        ("tekken", ["1", "9", "8", "4"]),
        ("llama-bpe", ["19", "8", "4"]),
        ("llama3", ["19", "8", "4"]),
    ],
)
def test_numbers_are_split_as_the_family_does(tmp_path: Path, pre: str, expected: list[str]) -> None:
    tokenizer = tokenizer_of(tmp_path, Vocabulary(pre=pre), **{"ggml.add_bos_token": False})
    assert pieces(tokenizer, "1984") == expected


@pytest.mark.parametrize(("pre", "composes"), [("qwen2", True), ("smollm", False)])
def test_accents_are_composed_where_the_family_does(tmp_path: Path, pre: str, composes: bool) -> None:
    normalizer = tokenizer_of(tmp_path, Vocabulary(pre=pre)).backend_tokenizer.normalizer
    assert (normalizer is not None) == composes
    if composes:
        assert normalizer.normalize_str("e\u0301") == "\u00e9"


@pytest.mark.parametrize(("pre", "expected"), [("llama-bpe", ["hello"]), ("gpt-2", ["he", "llo"])])
def test_words_known_whole_are_taken_whole_where_the_family_does(tmp_path: Path, pre: str, expected: list[str]) -> None:
    merges = [("h", "e"), ("l", "l"), ("ll", "o"), ("1", "9"), ("8", "4")]
    vocabulary = Vocabulary(pre=pre, merges=merges, whole=["hello"])
    assert pieces(tokenizer_of(tmp_path, vocabulary, **{"ggml.add_bos_token": False}), "hello") == expected


def test_absent_splitter_is_gpt2s(tmp_path: Path) -> None:
    assert pieces(tokenizer_of(tmp_path, **{"ggml.pre": None}), "1984") == ["19", "84"]


def test_unknown_splitter_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"by the rule 'viking'; supported: .*smollm"):
        tokenizer_of(tmp_path, Vocabulary(pre="viking"))


def test_unknown_vocabulary_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has a 't5' vocabulary; supported: gpt2"):
        tokenizer_of(tmp_path, **{"ggml.model": "t5"})


def test_whole_tokens_are_never_cut(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path)
    assert pieces(tokenizer, "<|im_start|>hello<think>") == ["<|im_start|>", "hello", "<think>"]
    ids = tokenizer("<|im_start|>hello<think>").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hello<think>"


def test_tokens_without_kinds_are_ordinary(tmp_path: Path) -> None:
    assert pieces(tokenizer_of(tmp_path, **{"ggml.token_type": None}), "he") == ["he"]


@pytest.mark.parametrize(("pre", "default"), [("smollm", False), ("llama-bpe", True)])
@pytest.mark.parametrize("stated", [None, True, False])
def test_sequence_starts_with_bos_as_stated_or_as_the_family_does(
    tmp_path: Path, pre: str, default: bool, stated: bool | None
) -> None:
    tokenizer = tokenizer_of(tmp_path, Vocabulary(pre=pre), **{"ggml.add_bos_token": stated})
    starts = pieces(tokenizer, "he")[0] == "<|im_start|>"
    assert starts == (default if stated is None else stated)


def test_sequence_ends_with_eos_if_stated(tmp_path: Path) -> None:
    assert pieces(tokenizer_of(tmp_path, **{"ggml.add_eos_token": True}), "he") == ["he", "<|im_end|>"]


def test_special_tokens_have_their_roles(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("<|endoftext|>", None)
    assert tokenizer_of(tmp_path, **{"ggml.padding_token_id": None}).pad_token == "<|im_end|>"


def test_chat_template_comes_along_or_is_none(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "he"}]
    assert tokenizer_of(tmp_path).apply_chat_template(messages, tokenize=False) == "<|im_start|>he<|im_end|>"
    assert tokenizer_of(tmp_path, chat_template=None).chat_template is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ggml.merges": ["a b c"]}, "not a pair of tokens"),
        ({"ggml.merges": ["q q"]}, r"merges \('q', 'q'\), which its vocabulary lacks"),
        ({"ggml.token_type": [1, 1]}, "but 2 token types"),
        ({"ggml.bos_token_id": 5000}, "is 5000, but there are"),
    ],
)
def test_damage_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tokenizer_of(tmp_path, **fields)


# ---- SentencePiece -----------------------------------------------------------------------------

SPACE = "\u2581"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = [*"abc", SPACE, "ab", SPACE + "a", "abc", SPACE + "ab", SPACE + "abc"]


def sentencepiece(path: Path, words: list[str], scores: list[float], architecture: str = "llama", **more: Any) -> Any:
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *words]
    file = TinyGguf(architecture, tiny(architecture))
    file.fields |= {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(words)],
        "tokenizer.ggml.scores": [0.0] * 259 + scores,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    file.fields |= {f"tokenizer.ggml.{key}": value for key, value in more.items()}
    return build_tokenizer(GgufFile(file.write(path / "tiny.gguf")))


def test_sentencepiece_joins_the_best_pair_first(tmp_path: Path) -> None:
    early = sentencepiece(tmp_path, WORDS, [-9.0, -9.0, -9.0, -9.0, -1.0, -2.0, -3.0, -4.0, -5.0])
    assert pieces(early, "ab abc") == ["<s>", SPACE + "ab", SPACE + "abc"]
    late = sentencepiece(tmp_path, WORDS[:-3], [-9.0, -9.0, -9.0, -9.0, -2.0, -1.0])
    assert pieces(late, "ab") == ["<s>", SPACE + "a", "b"]


def test_gemma_joins_in_file_order_whatever_the_scores(tmp_path: Path) -> None:
    scores = [-9.0, -9.0, -9.0, -9.0, -2.0, -1.0]
    tokenizer = sentencepiece(tmp_path, WORDS[:-3], scores, "gemma3", add_space_prefix=False)
    assert pieces(tokenizer, " ab") == ["<s>", SPACE, "ab"]


def test_unknown_letters_fall_back_to_bytes(tmp_path: Path) -> None:
    tokenizer = sentencepiece(tmp_path, WORDS, [-1.0] * len(WORDS))
    assert pieces(tokenizer, "é") == ["<s>", SPACE, "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer("abc é").input_ids, skip_special_tokens=True) == "abc é"


def test_prefix_space_is_left_out_if_stated(tmp_path: Path) -> None:
    tokenizer = sentencepiece(tmp_path, WORDS, [-1.0] * len(WORDS), add_space_prefix=False, add_bos_token=False)
    assert pieces(tokenizer, "ab") == ["ab"]
    assert tokenizer.decode(tokenizer(" ab").input_ids) == " ab"


def test_runs_of_spaces_are_one_token(tmp_path: Path) -> None:
    words = [*"ab", SPACE, "  "]
    tokenizer = sentencepiece(tmp_path, words, [-1.0] * 4, "gemma3", add_space_prefix=False, add_bos_token=False)
    assert pieces(tokenizer, "a  b") == ["a", SPACE * 2, "b"]


def test_runs_of_spaces_are_joined_even_if_marked_as_defined_by_a_user(tmp_path: Path) -> None:
    words = [*"ab", SPACE, "  "]
    kinds = [2, 3, 3, *[6] * 256, 1, 1, 1, 4]
    more = {"add_space_prefix": False, "add_bos_token": False, "token_type": kinds}
    assert pieces(sentencepiece(tmp_path, words, [-1.0] * 4, "gemma3", **more), "a  b") == ["a", SPACE * 2, "b"]


def test_scores_must_match_the_tokens(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="but 260 scores"):
        sentencepiece(tmp_path, WORDS, [-1.0])


def test_support_vocabulary_has_no_duplicates() -> None:
    assert len(set(LETTERS)) == len(LETTERS)
