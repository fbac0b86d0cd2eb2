"""Several answers, a token of each in one pass: said as each would be by itself, whatever the model and the cache."""

import pytest
import torch
from support.lived_engine import S, live, make_engine, picture

from inf_stream.base.events import Question
from inf_stream.cache.archive import Archive
from inf_stream.engine.engine import Engine
from inf_stream.engine.together import read_together

FAMILIES = ["llama", "smolvlm", "qwen2.5-vl", "qwen3-vl", "gemma3", "internvl"]


def lived(name: str, count: int, **sections: dict) -> list[Engine]:
    """Engines on one set of weights, each after a stream of its own, with an answer open."""
    engines = [make_engine(name, greedy=True, **sections) for _ in range(count)]
    for number, engine in enumerate(engines):
        live(engine, 0, 4 + 5 * number)
        what = ["what is it?", "and now, what is there?", "red?"][number % 3]
        engine.begin_answer(Question(f"q{number}", what, 99 * S, aside=number % 2 == 1))
    return engines


def step_together(engines: list[Engine]) -> int:
    """One token more of all; returns how many were read together."""
    unread = [engine for engine in engines if engine.has_unread]
    if unread:
        read_together(unread)
        assert not any(engine.has_unread for engine in unread)
    return len(unread)


@pytest.mark.parametrize("name", FAMILIES)
def test_together_every_family_says_what_it_says_alone(name: str) -> None:
    alone, together = lived(name, 3), lived(name, 3)
    for step in range(7):
        assert step_together(together) == (3 if step else 0)
        for one, other in zip(alone, together, strict=True):
            assert one.step_answer() == other.step_answer()
            assert one._open is not None
            assert other._open is not None
            assert torch.allclose(one._open.logits, other._open.logits, atol=1e-4)
    for one, other in zip(alone, together, strict=True):
        assert one.end_answer() == other.end_answer()
        for mine, its in zip(one.evidence(), other.evidence(), strict=True):
            assert (mine.at_ns, mine.share) == (its.at_ns, pytest.approx(its.share, abs=1e-4))
        assert one.cache.used_tokens == other.cache.used_tokens
        other.cache.check()


def test_together_with_evictions_and_with_what_was_recalled() -> None:
    sections: dict = {"archive": {"host_mib": 1, "recall_tokens": 32}, "cache": {"budget_tokens": 96}}
    alone, together = lived("smolvlm", 4, **sections), lived("smolvlm", 4, **sections)
    assert any(engine.cache.recall is not None for engine in together), "something was recalled"
    assert all(isinstance(engine.cache.archive, Archive) and engine.cache.evictions for engine in together)
    for _ in range(7):
        step_together(together)
        assert [e.step_answer() for e in alone] == [e.step_answer() for e in together]
    assert [e.end_answer() for e in alone] == [e.end_answer() for e in together]
    for one, other in zip(alone, together, strict=True):
        for engine in (one, other):
            engine.ingest_frames([picture(200)])
        assert one.cache.evictions == other.cache.evictions


def test_a_pass_that_breaks_leaves_everybody_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, together = lived("smolvlm", 2), lived("smolvlm", 2)
    for engine in (*alone, *together):
        engine.step_answer()

    def break_down(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(together[0].model, "forward_together", break_down)
        with pytest.raises(torch.OutOfMemoryError):
            read_together(together)
    assert all(engine.has_unread for engine in together)
    for _ in range(4):
        assert [e.step_answer() for e in alone] == [e.step_answer() for e in together]


def test_an_answer_that_says_nothing_yet_has_nothing_unread() -> None:
    engine = make_engine("llama")
    assert not engine.has_unread
    live(engine, 0, 2)
    engine.begin_answer(Question("q", "what?", 9 * S))
    assert not engine.has_unread
    engine.step_answer()
    assert engine.has_unread
    engine.end_answer()
    assert not engine.has_unread
