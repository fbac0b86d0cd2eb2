"""Answers with an archive: what left the cache takes part, and nothing of it stays."""

from pathlib import Path

import pytest
import torch
from support.lived_engine import S, answer, live, make_engine, picture, rest_of_answer

from inf_stream.base.errors import BudgetError, ConfigError, StateError
from inf_stream.base.events import Question
from inf_stream.base.state import read_state, write_state
from inf_stream.engine.engine import Engine

ARCHIVE = {"host_mib": 8, "recall_tokens": 64, "merge_above": 2.0}
NAMES = ["llama", "smolvlm", "qwen2.5-vl", "gemma3"]


def ask(engine: Engine, text: str, at_s: int, *, aside: bool = True) -> tuple[str, set[int]]:
    """The answer, and from which seconds anything was recalled in any layer."""
    engine.begin_answer(Question("ask", text, at_s * S, aside=aside))
    recall, seconds = engine.cache.recall, set[int]()
    if recall is not None:
        for layer, window in enumerate(engine.cache.layout.sliding_windows):
            if window is None:
                seconds |= {t // S for t in recall.archive.times_ns()[recall.chosen(layer)].tolist()}
    return rest_of_answer(engine)[0], seconds


@pytest.mark.parametrize("policy", ["inf-mllm", "h2o", "last-frames"])
@pytest.mark.parametrize("name", NAMES)
def test_an_aside_that_recalls_leaves_no_trace(name: str, policy: str) -> None:
    cache = {"policy": policy}
    with_asides, without = (make_engine(name, cache=cache, archive=ARCHIVE) for _ in range(2))
    recalled = set()
    for start in range(0, 15, 3):
        assert live(with_asides, start, 3) == live(without, start, 3)
        recalled |= ask(with_asides, "and before that?", start + 3)[1]
        state, same = with_asides.state(), without.state()
        for name_, tensor in same.tensors.items():
            assert torch.equal(state.tensors[name_], tensor), name_
    assert recalled
    with_asides.cache.check()


def frames_engine(**archive: object) -> Engine:
    engine = make_engine("smolvlm", archive=ARCHIVE | archive, cache={"budget_tokens": 128})
    engine.ingest_frames([picture(0)])
    for number in range(1, 30):
        engine.ingest_frames([picture(number)])
    return engine


def test_a_time_in_the_question_narrows_what_is_recalled() -> None:
    engine = frames_engine()
    _, seconds = ask(engine, "What was shown at 00:04?", 30)
    assert seconds
    assert seconds <= set(range(10))
    _, all_over = ask(engine, "What was shown?", 30)
    assert not all_over <= set(range(10))


def test_evidence_names_recalled_seconds() -> None:
    engine = frames_engine()
    kept = {t // S for t in engine.cache.kept_times_ns().flatten().tolist()}
    _, seconds = ask(engine, "What was shown at 00:04?", 30)
    gone = seconds - kept
    assert gone, "else there would be nothing to show"
    engine.begin_answer(Question("ask", "What was shown at 00:04?", 30 * S, aside=True))
    assert engine.cache.recall is not None
    weights = engine.cache.recall.weights()
    assert {t // S for t in weights} <= seconds
    assert all(weight > 0 for weight in weights.values())
    engine.end_answer()


def test_what_is_recalled_changes_the_answer() -> None:
    """With weights that mean nothing, any change of what is attended to shows."""
    with_archive, without = frames_engine(), make_engine("smolvlm", cache={"budget_tokens": 128})
    for number in range(30):
        without.ingest_frames([picture(number)])
    assert ask(with_archive, "what?", 30)[0] != ask(without, "what?", 30)[0]


def test_an_answer_longer_than_the_room_goes_on_with_what_was_recalled() -> None:
    engine = make_engine("llama", archive=ARCHIVE, cache={"chunk_tokens": 32})
    live(engine, 0, 20)
    engine.model.stop_ids = frozenset()
    engine.begin_answer(Question("long", "tell me all", 20 * S, max_tokens=200))
    recall, evictions, steps = engine.cache.recall, engine.cache.evictions, 0
    assert recall is not None
    while engine.step_answer().finished is None:
        steps += 1
        engine.cache.slots.check()
    assert steps == 199
    assert engine.cache.recall is recall
    assert engine.cache.evictions > evictions
    engine.end_answer()
    assert engine.cache.recall is None
    engine.cache.check()
    assert answer(engine, 21)


def test_a_question_that_is_refused_closes_its_recall() -> None:
    engine = frames_engine()
    for aside in (True, False):
        with pytest.raises(BudgetError):
            engine.begin_answer(Question("x", "x" * 500, 30 * S, aside=aside))
        assert engine.cache.recall is None
        assert not engine.cache.is_asked
    assert ask(engine, "what?", 31)[1]


def test_questions_of_the_stream_are_learned_from_and_asides_are_not() -> None:
    engine = frames_engine()
    assert engine.cache.archive is not None
    before = engine.cache.archive.usual.state().copy()
    ask(engine, "Where is it?", 30)
    assert torch.equal(engine.cache.archive.usual.state().tensors["mean"], before.tensors["mean"])
    ask(engine, "Where is it?", 30, aside=False)
    assert not torch.equal(engine.cache.archive.usual.state().tensors["mean"], before.tensors["mean"])


@pytest.mark.parametrize("disk_mib", [0, 8])
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_session_recalls_the_same(name: str, disk_mib: int, tmp_path: Path) -> None:
    archive = ARCHIVE | {"disk_mib": disk_mib}
    engine = make_engine(name, archive=archive)
    live(engine, 0, 15)
    write_state(engine.state().on_cpu(), tmp_path / "s.ifs")
    again = make_engine(name, archive=archive)
    again.restore(read_state(tmp_path / "s.ifs"))
    told, seconds = ask(engine, "What was there at 00:03?", 16)
    assert (told, seconds) == ask(again, "What was there at 00:03?", 16)
    assert seconds
    assert live(engine, 16, 6) == live(again, 16, 6)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_recalled_may_stay_until_the_next_question(name: str, tmp_path: Path) -> None:
    engines = [make_engine(name, archive=ARCHIVE | {"keep_recalled": keeps}) for keeps in (True, False)]
    for engine in engines:
        live(engine, 0, 15)
        ask(engine, "What was there at 00:03?", 16, aside=False)
    kept, plain = engines
    assert kept.cache.recall is not None
    assert plain.cache.recall is None
    before = kept.state().copy()
    ask(kept, "and before that?", 17)
    for tensor_name, tensor in kept.state().tensors.items():
        assert torch.equal(tensor, before.tensors[tensor_name]), tensor_name
    write_state(kept.state().on_cpu(), tmp_path / "s.ifs")
    again = make_engine(name, archive=ARCHIVE | {"keep_recalled": True})
    again.restore(read_state(tmp_path / "s.ifs"))
    assert live(kept, 17, 6) == live(again, 17, 6)
    assert ask(kept, "What was it?", 30) == ask(again, "What was it?", 30)
    kept.cache.close_recall()
    kept.cache.check()


def test_a_session_goes_on_with_the_archive_it_was_saved_with() -> None:
    state = frames_engine().state()
    for other in ({"recall_tokens": 96}, {"host_mib": 9}, {"disk_mib": 1}, {"keep_recalled": True}):
        with pytest.raises(StateError, match=next(iter(other))):
            make_engine("smolvlm", archive=ARCHIVE | other).restore(state)
    with pytest.raises(StateError, match="host_mib 8, this one None"):
        make_engine("smolvlm").restore(state)


def test_stats_tell_of_it() -> None:
    stats = frames_engine().stats()
    assert int(stats["archive_blocks"]) > 0
    assert 0 < int(stats["archive_bytes"]) <= 8 << 20
    assert "archive_blocks" not in make_engine("smolvlm").stats()


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"archive\.disk_mib is 5, but archive\.host_mib is 0"):
        make_engine("llama", archive={"disk_mib": 5})
    with pytest.raises(BudgetError, match=r"archive\.host_mib is 16000000; \d+ MiB of memory are free"):
        make_engine("llama", archive={"host_mib": 16_000_000})
    with pytest.raises(ConfigError, match="'full' forgets nothing"):
        make_engine("llama", archive={"host_mib": 4}, cache={"policy": "full"})
    with pytest.raises(ConfigError, match=r"cannot be kept in '/nowhere'"):
        make_engine("llama", archive={"host_mib": 4, "disk_mib": 4, "folder": "/nowhere"})
    small = make_engine("llama", archive={"host_mib": 4, "recall_tokens": 100_000}).cache
    assert small.archive is not None
    assert small.archive.sizes.recall_tokens == small.budget_tokens
