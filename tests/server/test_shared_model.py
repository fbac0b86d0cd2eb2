"""Engines of one model do not know of each other."""

import asyncio
import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from support.tiny_models import tiny_weights

from inf_stream.base.config import (
    AnswerSettings,
    ArchiveSettings,
    CacheSettings,
    ModelSettings,
    ServerSettings,
    Settings,
)
from inf_stream.base.errors import BudgetError
from inf_stream.base.events import AnswerFinished, Frame, Question
from inf_stream.engine.protocol import SteppedEngine
from inf_stream.models.weights.loaded import LoadedWeights
from inf_stream.models.weights.placement import CudaFacts, machine_facts
from inf_stream.server.sessions import engines as module
from inf_stream.server.sessions import worker as worker_module
from inf_stream.server.sessions.engines import SessionOptions, SharedModel
from inf_stream.server.sessions.hub import Hub
from inf_stream.server.sessions.lazy_engine import LazyEngine, read_together

S = 1_000_000_000
SETTINGS = Settings(
    model=ModelSettings(name="tiny"),
    cache=CacheSettings(budget_tokens=128, chunk_tokens=32),
    answer=AnswerSettings(max_tokens=8, temperature=0.8, seed=3),
)
FULL = CacheSettings(policy="full", budget_tokens=128, chunk_tokens=32)
STEPS = 7


@pytest.fixture(scope="module")
def weights() -> LoadedWeights:
    return tiny_weights("smolvlm")


def one_step(engine: SteppedEngine, which: int, step: int, said: list[str]) -> None:
    """What session `which` does: frames of its own, a question, its own aside."""
    if step % 3 < 2:
        pixels = np.full((24, 24, 3), (37 * which + 11 * step) % 256, dtype=np.uint8)
        pixels[which : which + 6, step : step + 9] = 255 - 40 * which
        engine.ingest_frames([Frame(pixels, step * S, step)])
        return
    engine.begin_answer(Question(f"q{step}", f"what about {which}?", step * S, aside=which == 1))
    text = ""
    while True:
        token = engine.step_answer()
        text += token.text
        if token.finished:
            break
    engine.end_answer()
    said.append(text)


def alone(model: SharedModel, which: int, options: SessionOptions) -> list[str]:
    engine, said = model.make(options), []
    for step in range(STEPS * 3):
        one_step(engine, which, step, said)
    return said


@pytest.mark.parametrize("archive", [ArchiveSettings(), ArchiveSettings(host_mib=1, recall_tokens=32)])
def test_interleaved_sessions_say_what_they_would_say_alone(weights: LoadedWeights, archive: ArchiveSettings) -> None:
    model = SharedModel(dataclasses.replace(SETTINGS, archive=archive), weights)
    options = [SessionOptions(), SessionOptions("be kind"), SessionOptions(budget_tokens=96)]
    wanted = [alone(model, which, one) for which, one in enumerate(options)]
    engines: Sequence[SteppedEngine] = [model.make(one) for one in options]
    said: list[list[str]] = [[], [], []]
    for step in range(STEPS * 3):
        for which, engine in enumerate(engines):
            one_step(engine, which, step, said[which])
    assert said == wanted
    assert len({str(one) for one in wanted}) == 3, "different streams are answered differently"
    assert all(int(engine.stats()["evictions"]) > 0 for engine in engines), "long enough to forget something"


def test_what_a_session_needs_is_known_before_it_is_made(weights: LoadedWeights) -> None:
    model = SharedModel(SETTINGS, weights)
    engine = model.make(SessionOptions())
    assert model.session_bytes == engine.stats()["cache_bytes"]
    assert model.characters_per_step == engine.characters_per_step
    assert model.sees
    assert (model.name, model.budget_tokens, model.instructions) == ("tiny", 128, "")
    assert model.free_bytes() > model.session_bytes
    with pytest.raises(BudgetError, match="at most 128"):
        model.check(SessionOptions(budget_tokens=129))
    with pytest.raises(BudgetError, match="too small"):
        model.make(SessionOptions(budget_tokens=2))


def test_the_memory_of_an_archive_is_promised_with_the_cache(
    weights: LoadedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = ArchiveSettings(host_mib=1, recall_tokens=32)
    model = SharedModel(dataclasses.replace(SETTINGS, archive=archive), weights)
    engine = model.make(SessionOptions())
    assert model.session_bytes == engine.stats()["cache_bytes"] + (1 << 20)
    facts = machine_facts()
    monkeypatch.setattr(module, "machine_facts", lambda: dataclasses.replace(facts, ram_free_bytes=5 << 20))
    assert model.free_bytes() == 5 << 20
    cuda = CudaFacts("gpu", 1 << 40, 1 << 40, (9, 0))
    facts = dataclasses.replace(facts, cuda=(cuda,))
    model._device = torch.device("cuda")
    assert model.free_bytes() // model.session_bytes == 5, "five archives fit, however large the GPU is"
    full = SharedModel(dataclasses.replace(SETTINGS, archive=archive, cache=FULL), weights)
    assert full.session_bytes < 1 << 20, "what is never evicted needs no archive"


def test_an_archive_that_holds_nothing_of_the_model_is_refused_at_once(weights: LoadedWeights) -> None:
    archive = dataclasses.replace(SETTINGS, archive=ArchiveSettings(host_mib=1, recall_tokens=32))
    assert SharedModel(archive, weights).session_bytes > 1 << 20
    with pytest.raises(BudgetError, match=r"raise archive\.host_mib to at least \d+"):
        SharedModel(archive, tiny_weights("smolvlm", head_dim=4096))


def test_usage_counts_what_an_answer_was_given(weights: LoadedWeights) -> None:
    engine = SharedModel(SETTINGS, weights).make(SessionOptions())
    said: list[str] = []
    one_step(engine, 0, 0, said)
    kept = int(engine.stats()["tokens_kept"])
    one_step(engine, 0, 2, said)
    stats = engine.stats()
    assert stats["cached_tokens"] == kept
    assert 0 < int(stats["image_tokens"]) < kept
    assert kept < int(stats["input_tokens"]) <= int(stats["tokens_kept"])


def test_a_lazy_engine_is_made_at_its_first_step(weights: LoadedWeights) -> None:
    model = SharedModel(SETTINGS, weights)
    times: list[str] = []
    engine = LazyEngine(model, SessionOptions(), lambda name, s: times.append(name))
    assert (engine.frames_per_step, engine.stats(), engine.evidence()) == (1, {}, ())
    said: list[str] = []
    one_step(engine, 0, 0, said)
    assert engine.stats()["frames"] == 1
    one_step(engine, 0, 2, said)
    engine.ingest_text("some words", 5)
    assert engine.evidence()
    assert engine.frames_per_step >= 1
    assert list(dict.fromkeys(times)) == ["frames", "question", "token", "text"]
    hopeless = LazyEngine(model, SessionOptions(budget_tokens=2), lambda name, s: None)
    for _ in range(2):
        with pytest.raises(BudgetError):
            hopeless.ingest_text("x", 0)


@pytest.mark.parametrize("together", [1, 8])
def test_sessions_that_answer_at_the_same_time_say_what_each_says_alone(
    weights: LoadedWeights, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real engine thread: several answers, read together or each by itself."""
    model = SharedModel(SETTINGS, weights)
    most = [0]

    def read(engines: Sequence[LazyEngine]) -> None:
        most[0] = max(most[0], len(engines))
        read_together(engines)

    monkeypatch.setattr(worker_module, "read_together", read)
    times: list[str] = []

    async def asked_all_at_once(count: int, first: int) -> list[str]:
        settings = dataclasses.replace(SETTINGS, server=ServerSettings(together=together))
        hub = Hub(model, settings, timer=lambda name, s: times.append(name))
        said: dict[str, str] = {}
        sessions = []
        for number in range(first, first + count):

            def listen(event: object, who: int = number) -> None:
                if isinstance(event, AnswerFinished):
                    said[str(who)] = event.text

            session = hub.open(listen, waits=True)
            for step in range(4 + number):
                pixels = np.full((24, 24, 3), (37 * number + 11 * step) % 256, dtype=np.uint8)
                await session.frame(session.number_frame(), pixels, step * S)
            sessions.append(session)
        while not all(session.is_idle for session in sessions):
            await asyncio.sleep(0.01)
        for number, session in enumerate(sessions, first):
            session.ask(session.new_question(f"what about {number}?", max_tokens=12), in_order=True)
        await hub.close(patience_s=30)
        return [said[str(number)] for number in range(first, first + count)]

    all_at_once = asyncio.run(asked_all_at_once(4, 0))
    assert most[0] == (4 if together > 1 else 0)
    assert times.count("token") >= 12, "tokens that were read together are counted, too"
    assert all_at_once == [said for number in range(4) for said in asyncio.run(asked_all_at_once(1, number))]
    assert len(set(all_at_once)) == 4, "different streams are answered differently"
