"""An engine that was restored answers as the one that was saved, and takes nothing that is not its own."""

from typing import Any

import pytest
import torch
from support.lived_engine import S, hear, live, make_engine

from inf_stream.base.errors import SessionError, StateError
from inf_stream.base.events import Question
from inf_stream.engine.engine import Engine


@pytest.mark.parametrize("name", ["llama", "smolvlm", "qwen2.5-vl", "gemma3", "llava-lite"])
@pytest.mark.parametrize("policy", ["inf-mllm", "h2o", "last-frames"])
def test_a_restored_engine_gives_the_same_answers(name: str, policy: str) -> None:
    cache = {"policy": policy}
    one = make_engine(name, cache=cache)
    live(one, 0, 9)
    saved = one.state().on_cpu()
    told = live(one, 9, 9)
    assert one.cache.evictions > 0
    again = make_engine(name, cache=cache)
    again.restore(saved)
    again.cache.check()
    assert again.now_ns == 8 * S
    assert live(again, 9, 9) == told
    assert all(text for text in told)
    kept = "tokens_seen", "tokens_kept", "evictions", "frames", "answers"
    assert [one.stats()[k] for k in kept] == [again.stats()[k] for k in kept]
    for plane, same in zip(vars(one.cache.planes).values(), vars(again.cache.planes).values(), strict=True):
        used = one.cache.used_tokens
        assert torch.equal(plane[:, :, :used], same[:, :, :used])


def test_asides_are_drawn_as_they_would_have_been() -> None:
    """Each aside has random numbers of its own; a restored engine goes on with the next."""

    def aside(engine: Engine) -> str:
        return hear(engine, Question("aside", "and by the way?", 9 * S, max_tokens=8, aside=True))[0]

    one = make_engine("smolvlm")
    live(one, 0, 2)
    first, _ = aside(one), aside(one)
    saved = one.state().on_cpu()
    again, early = make_engine("smolvlm"), make_engine("smolvlm")
    again.restore(saved)
    assert aside(again) == aside(one) != first
    del saved.facts["counts"]["asides"]
    early.restore(saved)
    assert aside(early) == first, "files of before count from the first again"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "is one of another model, or of the same in another number format"),
        ({"dtype": torch.bfloat16}, "is one of another model, or of the same in another number format"),
        ({"cache": {"budget_tokens": 96}}, "has budget_tokens 128, this one 96; resume it with the settings"),
        ({"cache": {"policy": "h2o"}}, "policy inf-mllm, this one h2o"),
        ({"policy": {"bias_slope": 3.0}}, "bias_slope 2.0, this one 3.0"),
    ],
)
def test_another_model_or_other_settings_are_refused(other: dict[str, Any], message: str) -> None:
    one = make_engine("llama")
    live(one, 0, 4)
    with pytest.raises(StateError, match=message):
        make_engine("llama", **other).restore(one.state().on_cpu())


def test_an_engine_is_saved_between_answers_and_restored_fresh() -> None:
    one = make_engine("llama")
    live(one, 0, 2)
    saved = one.state().on_cpu()
    one.begin_answer(Question("q", "what?", 0))
    assert one.is_answering
    with pytest.raises(SessionError, match="is still open"):
        one.state()
    one.end_answer()
    with pytest.raises(SessionError, match="into a fresh engine only"):
        one.restore(saved)


def test_a_state_that_no_engine_gives_is_refused() -> None:
    one = make_engine("llama")
    live(one, 0, 2)
    saved = one.state().on_cpu()
    saved.facts["assembler"]["turn"] = "answer"
    with pytest.raises(StateError, match="unknown state 'answer'"):
        make_engine("llama").restore(saved)


def test_an_engine_without_a_past_can_be_saved() -> None:
    again = make_engine("smolvlm")
    again.restore(make_engine("smolvlm").state().on_cpu())
    assert live(again, 0, 3) == live(make_engine("smolvlm"), 0, 3)
