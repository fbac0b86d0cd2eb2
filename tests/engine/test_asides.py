"""Asides: answered out of the memory, and not remembered. Slow twin: the same stream without them."""

from collections.abc import Callable

import pytest
from support.lived_engine import S, answer, live, make_engine, picture

from inf_stream.base.errors import BudgetError
from inf_stream.base.events import FinishReason, Question
from inf_stream.engine.engine import Engine
from inf_stream.engine.protocol import AnswerStep


def ask_aside(engine: Engine, text: str = "and now, by the way?", steps: int = 99, **more: int) -> list[AnswerStep]:
    engine.begin_answer(Question("aside", text, 999 * S, aside=True, **more))
    told = []
    while len(told) < steps and (not told or told[-1].finished is None):
        told.append(engine.step_answer())
    assert engine.end_answer() <= len(told)
    return told


def bookkeeping(engine: Engine) -> list[object]:
    state = engine.state()
    state.facts["counts"].pop("asides")
    return [state.facts, *(tensor.tolist() for tensor in state.tensors.values())]


@pytest.mark.parametrize("policy", ["inf-mllm", "h2o", "last-frames", "full"])
@pytest.mark.parametrize("name", ["llama", "smolvlm", "qwen2.5-vl", "gemma3"])
def test_an_aside_leaves_no_trace(name: str, policy: str) -> None:
    cache = {"policy": policy}
    with_asides, without = make_engine(name, cache=cache), make_engine(name, cache=cache)
    for start in range(0, 15, 3):
        assert live(with_asides, start, 3) == live(without, start, 3)
        before = bookkeeping(with_asides)
        for steps in (1, 99):
            assert ask_aside(with_asides, steps=steps)
            assert bookkeeping(with_asides) == before
    assert (without.cache.evictions > 0) == (policy != "full")
    assert with_asides.cache.evictions == without.cache.evictions
    assert answer(with_asides, 99) == answer(without, 99)
    with_asides.cache.check()


def test_an_aside_is_answered_like_a_question_of_the_stream() -> None:
    one, two = make_engine("smolvlm", greedy=True), make_engine("smolvlm", greedy=True)
    live(one, 0, 2)
    live(two, 0, 2)
    aside = "".join(step.text for step in ask_aside(one, "what is it?"))
    assert aside == answer(two, 2)


def test_an_aside_may_open_a_stream() -> None:
    engine, other = make_engine("smolvlm"), make_engine("smolvlm")
    ask_aside(engine)
    assert live(engine, 0, 6) == live(other, 0, 6)


def test_asides_differ_from_each_other_and_from_answers_by_their_draws() -> None:
    engine = make_engine("llama")
    live(engine, 0, 2)
    said = {"".join(step.text for step in ask_aside(engine)) for _ in range(4)}
    assert len(said) > 1


def test_an_aside_ends_where_its_room_does() -> None:
    engine = make_engine("llama", cache={"chunk_tokens": 32})
    live(engine, 0, 9)
    engine.begin_answer(Question("aside", "x", 999 * S, max_tokens=10_000, aside=True))
    room, steps = engine.cache.room_tokens, 1
    while (last := engine.step_answer()).finished is None:
        steps += 1
    assert last.finished is FinishReason.LENGTH
    assert steps == room > 8
    engine.end_answer()


def too_long(engine: Engine) -> None:
    with pytest.raises(BudgetError, match=r"aside of \d+ tokens; there is room for \d+ without forgetting anything"):
        ask_aside(engine, "x" * engine.cache.room_tokens)


def longer_than_half(engine: Engine) -> None:
    with pytest.raises(BudgetError, match="half of the cache budget"):
        ask_aside(engine, "x" * 70)


def broken(engine: Engine) -> None:
    forward = engine.model.forward

    def fail(*_: object) -> None:
        raise BudgetError("the device broke")

    engine.model.forward = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(BudgetError, match="the device broke"):
        ask_aside(engine)
    engine.model.forward = forward  # type: ignore[method-assign]


@pytest.mark.parametrize("refused", [too_long, longer_than_half, broken])
def test_an_aside_that_is_refused_leaves_no_trace_either(refused: Callable[[Engine], None]) -> None:
    engine, other = make_engine("smolvlm"), make_engine("smolvlm")
    live(engine, 0, 3)
    live(other, 0, 3)
    refused(engine)
    engine.ingest_frames([picture(3)])
    other.ingest_frames([picture(3)])
    assert live(engine, 4, 6) == live(other, 4, 6)


# ---- what an answer rests on -------------------------------------------------------------------------


def test_answers_and_asides_name_the_frames_they_rest_on() -> None:
    engine = make_engine("smolvlm", cache={"budget_tokens": 256})
    assert answer(engine, 0)
    assert engine.evidence() == ()
    for number in range(1, 8):
        engine.ingest_frames([picture(number)])
    ask_aside(engine)
    aside = engine.evidence()
    assert 1 <= len(aside) <= 5
    assert {e.at_ns // S for e in aside} <= set(range(1, 8))
    assert [e.share for e in aside] == sorted((e.share for e in aside), reverse=True)
    assert 0 < sum(e.share for e in aside) <= 1 + 1e-6
    engine.begin_answer(Question("q", "what is it?", 8 * S))
    engine.end_answer()
    assert engine.evidence() != aside
