"""Times of the model's work, on a clock that tests turn and a GPU that they play."""

from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_models import tiny_weights

from inf_stream.base.config import CacheSettings, Settings
from inf_stream.base.events import Frame, Question
from inf_stream.engine.build import build_engine
from inf_stream.engine.stopwatch import CudaStopwatch, HostStopwatch, stopwatch
from inf_stream.engine.together import read_together


def test_work_of_the_host_is_told_when_it_is_done() -> None:
    told: list[tuple[str, float]] = []
    times = iter([1.0, 1.5, 7.0])
    watch = HostStopwatch(lambda work, s: told.append((work, s)), lambda: next(times))
    with watch.time("encode"):
        assert told == []
    assert told == [("encode", 0.5)]
    with pytest.raises(ZeroDivisionError), watch.time("chunk"):
        raise ZeroDivisionError
    assert told == [("encode", 0.5)], "work that failed is not told"


class PlayedGpu:
    """Its events are over once the test says so; each comes a millisecond after the one before."""

    def __init__(self) -> None:
        self.given = 0
        self.done = 0

    def event(self) -> type[torch.cuda.Event]:
        gpu = self

        class Event(torch.cuda.Event):
            def __new__(cls, enable_timing: bool) -> Any:
                return object.__new__(cls)

            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self, stream: Any = None) -> None:
                assert stream == "cuda:1"
                self.number = gpu.given
                gpu.given += 1

            def query(self) -> bool:
                return self.number < gpu.done

            def elapsed_time(self, later: Any) -> float:
                return float(later.number - self.number)

        return Event


def test_work_of_a_gpu_is_told_when_it_is_over_and_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = PlayedGpu()
    monkeypatch.setattr(torch.cuda, "Event", gpu.event())
    monkeypatch.setattr(torch.cuda, "current_stream", str)
    told: list[tuple[str, float]] = []
    watch = CudaStopwatch(torch.device("cuda:1"), lambda work, s: told.append((work, s)))
    for work in ("encode", "chunk", "decode"):
        with watch.time(work):
            pass
    assert told == [], "the GPU is still at it"
    gpu.done = 4
    with watch.time("decode"):
        pass
    assert told == [("encode", 0.001), ("chunk", 0.001)]
    gpu.done = gpu.given + 2
    with watch.time("chunk"):
        pass
    assert [work for work, _ in told] == ["encode", "chunk", "decode", "decode", "chunk"]


def test_tokens_that_are_read_together_are_one_pass() -> None:
    told: list[str] = []
    watch = stopwatch(torch.device("cpu"), lambda work, s: told.append(work))
    weights = tiny_weights("smolvlm")
    engines = [build_engine(Settings(), weights, watch) for _ in range(2)]
    for engine in engines:
        engine.begin_answer(Question("q", "what?", 0, max_tokens=3))
        engine.step_answer()
    told.clear()
    read_together(engines)
    assert told == ["decode"]
    for engine in engines:
        engine.step_answer()
    assert told == ["decode"], "what is drawn was read already"


def test_the_engine_tells_its_work_by_kind() -> None:
    told: list[tuple[str, float]] = []
    settings = Settings(cache=CacheSettings(budget_tokens=128, chunk_tokens=32))
    watch = stopwatch(torch.device("cpu"), lambda work, s: told.append((work, s)))
    engine = build_engine(settings, tiny_weights("smolvlm"), watch)
    engine.ingest_frames([Frame(np.zeros((24, 24, 3), dtype=np.uint8), 0, 0)])
    assert [work for work, _ in told][-2:] == ["encode", "chunk"]
    told.clear()
    engine.begin_answer(Question("q", "what?", 0, max_tokens=3))
    assert {work for work, _ in told} == {"chunk"}
    told.clear()
    while engine.step_answer().finished is None:
        pass
    tokens = engine.end_answer()
    assert [work for work, _ in told] == ["decode"] * tokens
    assert all(s > 0 for _, s in told)
