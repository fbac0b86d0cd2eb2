"""A GGUF file's vocabulary as a fast tokenizer whose ids equal llama.cpp's.

Built from the file on the `tokenizers` library, since transformers' own conversion forgets the digit splitter
of SmolLM and differs from version to version.
"""

from collections.abc import Sequence
from enum import IntEnum

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import PreTrainedTokenizerFast

from inf_stream.base.errors import ModelError
from inf_stream.models.weights.gguf_file import GgufFile

_SPACE = "\u2581"
"""SentencePiece's visible space."""


class TokenKind(IntEnum):
    """Values of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
)
"""Control tokens that end an answer in some family, whatever the file's own end token is."""

_LETTERS_AND_MARKS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
)
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"

_SPLITS = {
    "qwen2": rf"{_CONTRACTIONS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "llama-bpe": rf"{_CONTRACTIONS}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "tekken": rf"{_LETTERS_AND_MARKS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
}
_ALIASES = {
    "deepseek-r1-qwen": "qwen2",
    "megrez": "qwen2",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "smaug-bpe": "llama-bpe",
    "falcon3": "llama-bpe",
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
}
_WHOLE_WORDS_FIRST = ("llama-bpe", "tekken")
_BOS_BY_DEFAULT = ("llama-bpe", "tekken")
SPLITTERS = ("gpt-2", "smollm", *_SPLITS)
"""Pre-tokenizers understood, by llama.cpp's names."""


def build_tokenizer(file: GgufFile) -> PreTrainedTokenizerFast:
    """The tokenizer a file describes, chat template included (None if the file has none).

    Raises:
        ModelError: the vocabulary is of an unsupported kind, or its metadata is missing or damaged.
    """
    tokens = file.texts("tokenizer.ggml.tokens")
    kinds = _kinds(file, len(tokens))
    match file.text("tokenizer.ggml.model"):
        case "gpt2":
            splitter = _splitter_name(file)
            backend = _byte_level(file, tokens, splitter)
            starts_with_bos = splitter in _BOS_BY_DEFAULT
        case "llama":
            backend = _sentencepiece(file, tokens, kinds)
            starts_with_bos = True
        case other:
            raise ModelError(
                f"'{file.path}' has a '{other}' vocabulary; supported: gpt2 (byte-level BPE) and llama "
                "(SentencePiece BPE)"
            )
    _add_whole_tokens(backend, tokens, kinds)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_special(file, tokens, "bos"),
        eos_token=_special(file, tokens, "eos"),
        unk_token=_special(file, tokens, "unknown"),
        pad_token=_special(file, tokens, "padding") or _special(file, tokens, "eos"),
        add_bos_token=file.flag("tokenizer.ggml.add_bos_token", starts_with_bos),
        add_eos_token=file.flag("tokenizer.ggml.add_eos_token", False),
        clean_up_tokenization_spaces=False,
    )
    if file.has("tokenizer.chat_template"):
        tokenizer.chat_template = file.text("tokenizer.chat_template")
    return tokenizer


def end_token_ids(file: GgufFile) -> list[int]:
    """Ids of all tokens that end an answer, the file's own first.

    Chat models often state the end of the *text* as their end token while their turns end with another one.
    """
    tokens = file.texts("tokenizer.ggml.tokens")
    kinds = _kinds(file, len(tokens))
    own = [
        file.integer(f"tokenizer.ggml.{which}_token_id")
        for which in ("eos", "eot", "eom")
        if file.has(f"tokenizer.ggml.{which}_token_id")
    ]
    others = [
        number
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == TokenKind.CONTROL and token in END_OF_TURN
    ]
    return list(dict.fromkeys([*own, *others]))


def _kinds(file: GgufFile, count: int) -> list[int]:
    key = "tokenizer.ggml.token_type"
    kinds = [int(kind) for kind in file.numbers(key)] if file.has(key) else [int(TokenKind.NORMAL)] * count
    if len(kinds) != count:
        raise ModelError(f"'{file.path}' has {count} tokens but {len(kinds)} token types; the file is damaged")
    return kinds


def _special(file: GgufFile, tokens: Sequence[str], which: str) -> str | None:
    key = f"tokenizer.ggml.{which}_token_id"
    if not file.has(key):
        return None
    number = file.integer(key)
    if not 0 <= number < len(tokens):
        raise ModelError(f"'{key}' of '{file.path}' is {number}, but there are {len(tokens)} tokens")
    return tokens[number]


def _splitter_name(file: GgufFile) -> str:
    stated = file.text("tokenizer.ggml.pre", "gpt-2")
    name = _ALIASES.get(stated, stated)
    if name not in SPLITTERS:
        raise ModelError(
            f"'{file.path}' splits words by the rule '{stated}'; supported: "
            f"{', '.join(sorted({*SPLITTERS, *_ALIASES}))}"
        )
    return name


def _splitter(name: str) -> PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name not in _SPLITS)
    match name:
        case "gpt-2":
            return byte_level
        case "smollm":
            return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
        case _:
            split = pre_tokenizers.Split(Regex(_SPLITS[name]), behavior="isolated")
            return pre_tokenizers.Sequence([split, byte_level])


def _byte_level(file: GgufFile, tokens: Sequence[str], splitter: str) -> Tokenizer:
    pairs = [merge.split(" ") for merge in file.texts("tokenizer.ggml.merges")]
    if any(len(pair) != 2 for pair in pairs):
        raise ModelError(f"'{file.path}' has a merge that is not a pair of tokens; the file is damaged")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [(left, right) for left, right in pairs]
    missing = next((pair for pair in merges if not {*pair, "".join(pair)} <= vocabulary.keys()), None)
    if missing is not None:
        raise ModelError(f"'{file.path}' merges {missing}, which its vocabulary lacks; the file is damaged")
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=splitter in _WHOLE_WORDS_FIRST))
    if splitter == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _splitter(splitter)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(file: GgufFile, tokens: Sequence[str], kinds: list[int]) -> Tokenizer:
    spelled = [_visible_spaces(token) for token in tokens]
    vocabulary = {token: number for number, token in enumerate(spelled)}
    scores = file.numbers("tokenizer.ggml.scores")
    if len(scores) != len(tokens):
        raise ModelError(f"'{file.path}' has {len(tokens)} tokens but {len(scores)} scores; the file is damaged")
    by_place = file.architecture == "gemma3"
    order = {
        token: (0.0 if by_place else -scores[number], number)
        for token, number in vocabulary.items()
        if kinds[number] == TokenKind.NORMAL or (kinds[number] == TokenKind.USER_DEFINED and _is_spaces(token))
    }
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_implied_merges(order, vocabulary),
            unk_token=_special(file, spelled, "unknown"),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = file.flag("tokenizer.ggml.add_space_prefix", True)
    replace = normalizers.Replace(" ", _SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), replace]) if prefixed else replace
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    return backend


def _implied_merges(order: dict[str, tuple[float, int]], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """SentencePiece's rule as BPE merges: the pair whose union ranks best goes first."""
    merges: list[tuple[str, str]] = []
    for piece in sorted(order, key=order.__getitem__):
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(left, right) for left, right in pairs if left in order and right in order]
        merges += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges


def _visible_spaces(token: str) -> str:
    """Gemma's files spell runs of spaces as real ones, its text has visible ones by then."""
    return _SPACE * len(token) if token and not token.strip(" ") else token


def _is_spaces(token: str) -> bool:
    return not token.strip(_SPACE)


def _add_whole_tokens(backend: Tokenizer, tokens: Sequence[str], kinds: list[int]) -> None:
    """Tokens that are matched in the text before anything is split."""
    numbered = list(zip(tokens, kinds, strict=True))
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in numbered if kind == TokenKind.CONTROL]
    )
    backend.add_tokens(
        [
            AddedToken(t, special=False, normalized=False)
            for t, kind in numbered
            if kind == TokenKind.USER_DEFINED and t.strip(" ")
        ]
    )
