"""The same on a GPU as on the CPU: `pytest -m gpu` where there is one. Elsewhere the CPU tries the tests themselves."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from support.command_line import run as run_command
from support.scripts import Script, difference, pieces, random_frames, run
from support.tiny_models import tiny_weights

from inf_stream.base.config import settings_from_mapping
from inf_stream.base.events import Frame, Question
from inf_stream.cache.policies import make_policy
from inf_stream.cache.stream_cache import StreamCache
from inf_stream.engine.build import build_engine
from inf_stream.engine.engine import Engine
from inf_stream.engine.stopwatch import Stopwatch, stopwatch, untimed
from inf_stream.models.chunk import Chunk
from inf_stream.models.stream_model import StreamModel

CPU = torch.device("cpu")
TOLERANCE = 1e-3
POLICIES: dict[str, dict[str, Any]] = {
    "streaming-llm": {"sinks": 2},
    "inf-mllm": {"window": 8, "recent_share": 0.25, "sinks": 2},
    "h2o": {"recent_share": 0.25},
}
MIB = 1 << 20


def model_on(device: torch.device, name: str) -> StreamModel:
    weights = tiny_weights(name)
    return StreamModel(replace(weights, model=weights.model.to(device)))


def stream_for(model: StreamModel, name: str) -> Iterator[Chunk]:
    """Text for text models; six frames and some talk for the others; always in pieces that cut frames."""
    torch.manual_seed(7)
    script = Script(model, name)
    if model.vision is None:
        script.text("It was the epoch of belief, it was the epoch of incredulity, " * 3)
    else:
        for visual in model.encode(random_frames(model, 6)):
            script.frame(visual, "[{clock}]")
        script.text("What now?")
    return pieces(script.chunk, [7, 1, 4])


def played(device: torch.device, name: str, policy: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of every token of a stream with many evictions, and the tokens kept in the end."""
    model = model_on(device, name)
    sizes = {"budget_tokens": 40, "chunk_tokens": 40, "evict_every_tokens": 10}
    cache = StreamCache(model.layout, make_policy(policy, POLICIES[policy]), model.rotation, **sizes)
    logits = run(model, cache, stream_for(model, name))
    cache.check()
    assert cache.evictions >= 8
    return logits.cpu(), cache.slots.view().index.cpu()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["llama", "gpt-neox", "qwen2.5-vl", "qwen3-vl"])
def test_logits_after_evictions_are_those_of_the_cpu(device: torch.device, name: str, policy: str) -> None:
    logits, kept = played(device, name, policy)
    expected, expected_kept = played(CPU, name, policy)
    assert torch.equal(kept, expected_kept)
    assert difference(logits, expected) < TOLERANCE


def engine_on(device: torch.device, name: str, policy: str, watch: Stopwatch = untimed) -> Engine:
    sizes = {"budget_tokens": 64, "chunk_tokens": 32, "evict_every_tokens": 16, "policy": policy}
    options = {"window": 8} if policy == "inf-mllm" else {}
    settings = settings_from_mapping({"cache": sizes, "policy": options, "answer": {"max_tokens": 4}})
    weights = tiny_weights(name)
    return build_engine(settings, replace(weights, model=weights.model.to(device)), watch)


def see(engine: Engine, first: int, count: int) -> None:
    assert engine.model.vision is not None
    width, height = engine.model.vision.frame_size(40, 24)
    for number in range(first, first + count):
        pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy()
        engine.ingest_frames([Frame(pixels, number * 10**9, number)])


def answer(engine: Engine, number: int) -> None:
    engine.begin_answer(Question(f"q{number}", "What?", number * 10**9))
    while engine.step_answer().finished is None:
        pass
    engine.end_answer()


@pytest.mark.parametrize("policy", ["inf-mllm", "h2o"])
def test_all_of_the_cache_lives_on_the_device(device: torch.device, policy: str) -> None:
    engine = engine_on(device, "qwen2.5-vl", policy)
    see(engine, 0, 8)
    answer(engine, 8)
    cache = engine.cache
    tensors = [cache.planes.raw_keys, cache.planes.values, cache.planes.rotated_keys, cache.slots.offsets]
    tensors += cache.slots.planes.values()
    assert {tensor.device.type for tensor in tensors} == {device.type}
    assert all(bool(tensor.isfinite().all()) for tensor in tensors)
    assert cache.evictions > 0


def test_the_work_of_the_model_is_timed(device: torch.device) -> None:
    told: list[tuple[str, float]] = []
    engine = engine_on(device, "qwen2.5-vl", "h2o", stopwatch(device, lambda work, s: told.append((work, s))))
    began_s = time.perf_counter()
    see(engine, 0, 4)
    answer(engine, 4)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    see(engine, 5, 1)
    took_s = time.perf_counter() - began_s
    assert {work for work, _ in told} == {"encode", "chunk", "decode"}
    assert all(s > 0 for _, s in told)
    assert sum(s for _, s in told) <= took_s


def memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def test_memory_stays_flat_over_a_long_stream(device: torch.device) -> None:
    engine = engine_on(device, "qwen2.5-vl", "inf-mllm")
    see(engine, 0, 40)
    answer(engine, 40)
    planes, before = engine.cache.planes.raw_keys.data_ptr(), memory_bytes(device)
    for turn in range(1, 6):
        see(engine, 40 * turn, 40)
        answer(engine, 40 * turn + 40)
    assert engine.cache.planes.raw_keys.data_ptr() == planes
    assert memory_bytes(device) - before < (1 if device.type == "cuda" else 32) * MIB


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_whole_run_in_sixteen_bits(
    device: torch.device, dtype: str, tiny_seeing: Path, short_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--budget", 256, "--max-tokens", 4, "--set", "cache.chunk_tokens=64")
    words = ("--model", tiny_seeing, "--device", device.type, "--dtype", dtype, "--json", *sizes)
    ran = run_command(capsys, "ask", short_clip, "What?", "--at", "2", "--at", "6", *words)
    assert ran.status == 0
    assert [one["at_s"] for one in ran.answers] == [2, 6]
    stats = ran.answers[-1]["stats"]
    assert stats["tokens_seen"] > stats["tokens_kept"] > 0
    assert stats["answer_tokens"] > 0
