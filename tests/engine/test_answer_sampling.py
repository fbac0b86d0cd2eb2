"""Choosing tokens, and giving out text when its characters are complete."""

import hypothesis.strategies as st
import torch
from hypothesis import given
from support.tiny_models import tiny_tokenizer

from inf_stream.base.config import AnswerSettings
from inf_stream.engine.sampling import Sampler, TextAssembler

LOGITS = torch.tensor([0.0, 3.0, 2.5, -1.0])


def test_temperature_zero_takes_the_likeliest() -> None:
    sampler = Sampler(AnswerSettings(), 0)
    assert [sampler.draw(LOGITS) for _ in range(3)] == [1, 1, 1]


def test_the_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    sampler = Sampler(AnswerSettings(repetition_penalty=2.0), 0)
    assert [sampler.draw(LOGITS) for _ in range(3)] == [1, 2, 1]
    sampler = Sampler(AnswerSettings(repetition_penalty=2.0), 0)
    negative = torch.tensor([-1.0, -1.5])
    assert [sampler.draw(negative) for _ in range(3)] == [0, 1, 0]


def test_a_tiny_nucleus_is_greedy_and_a_whole_one_is_not() -> None:
    greedy = Sampler(AnswerSettings(temperature=1.0, top_p=1e-6), 0)
    assert {greedy.draw(LOGITS) for _ in range(20)} == {1}
    free = Sampler(AnswerSettings(temperature=1.0), 0)
    assert {free.draw(LOGITS) for _ in range(200)} == {0, 1, 2, 3}


def test_the_nucleus_is_the_smallest_set_with_the_probability() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    sampler = Sampler(AnswerSettings(temperature=1.0, top_p=0.6), 0)
    assert {sampler.draw(probabilities) for _ in range(200)} == {0, 1}


def test_the_same_seed_and_answer_draw_the_same() -> None:
    def draws(seed: int, number: int) -> list[int]:
        sampler = Sampler(AnswerSettings(temperature=1.0, seed=seed), number)
        return [sampler.draw(LOGITS) for _ in range(30)]

    assert draws(1, 0) == draws(1, 0)
    assert draws(1, 0) != draws(1, 1)
    assert draws(1, 0) != draws(2, 0)


@given(st.text(min_size=1, max_size=12))
def test_pieces_join_to_the_text_and_no_piece_is_half_a_character(text: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assembler = TextAssembler(tokenizer)
    pieces = [assembler.push(i) for i in ids] + [assembler.finish()]
    assert "".join(pieces) == whole
    if "�" not in whole:
        assert not any("�" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_not_lost() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("aé", add_special_tokens=False)["input_ids"]
    assembler = TextAssembler(tokenizer)
    assert [assembler.push(i) for i in ids[:2]] == ["a", ""]
    assert assembler.finish() == "�"
    assert assembler.finish() == ""


def test_text_that_never_completes_is_given_out_at_last() -> None:
    tokenizer = tiny_tokenizer()
    half = tokenizer("é", add_special_tokens=False)["input_ids"][0]
    assembler = TextAssembler(tokenizer)
    pieces = [assembler.push(half) for _ in range(16)]
    assert pieces[:15] == [""] * 15
    assert pieces[15] == "�" * 16
