"""The engine on tiny models: what it writes, in which order, and what it refuses."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.lived_engine import hear as answer
from support.tiny_models import tiny_tokenizer, tiny_weights

from inf_stream.base.config import Settings, settings_from_mapping
from inf_stream.base.errors import BudgetError, ConfigError, ModelError, SessionError
from inf_stream.base.events import FinishReason, Frame, Question
from inf_stream.engine.build import build_engine, load_weights
from inf_stream.engine.engine import Engine
from inf_stream.engine.pixels import fit_pixels
from inf_stream.engine.protocol import SteppedEngine
from inf_stream.models.weights.placement import MachineFacts

CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nbe kind<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SECOND_NS = 1_000_000_000


def make_engine(name: str = "smolvlm", **sections: dict) -> Engine:
    sections.setdefault("cache", {})
    settings: Settings = settings_from_mapping(
        {
            **sections,
            "cache": {"budget_tokens": 256, "chunk_tokens": 64} | sections["cache"],
            "answer": {"max_tokens": 6} | sections.get("answer", {}),
        }
    )
    return build_engine(settings, replace(tiny_weights(name), tokenizer=tiny_tokenizer(CHAT)))


def picture(number: int, seconds: float | None = None) -> Frame:
    random = np.random.default_rng(number)
    at_ns = int((number if seconds is None else seconds) * SECOND_NS)
    return Frame(random.integers(0, 256, (30, 40, 3), dtype=np.uint8), at_ns, number)


def question(text: str = "what?", number: int = 1, **more: int) -> Question:
    return Question(f"q{number}", text, number * SECOND_NS, **more)


class Transcript:
    """The text an engine hands to its tokenizer, and the lengths of visual runs, in order."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch):
        self.parts: list[str] = []
        ids = engine.model.ids

        def spy(text: str) -> torch.Tensor:
            self.parts.append(text)
            return ids(text)

        monkeypatch.setattr(engine.model, "ids", spy)

    def __str__(self) -> str:
        return "|".join(p for p in self.parts if p)


def test_an_engine_is_what_a_session_needs() -> None:
    assert isinstance(make_engine("llama"), SteppedEngine)


def test_the_stream_is_one_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(model={"time_format": "[{clock}] "})
    said = Transcript(engine, monkeypatch)
    engine.ingest_frames([picture(0)])
    engine.ingest_frames([picture(1), picture(2, 61)])
    answer(engine, question("what is it?", 70))
    engine.ingest_frames([picture(71)])
    answer(engine, question("and now?", 72))
    before, after = engine.model.vision.wrapping()
    gap = engine.model.vision.after_frames
    assert gap
    opening, user = "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>user\n"
    ask = "<|im_end|>\n<|im_start|>assistant\n"
    assert str(said) == "|".join(
        [
            opening,
            f"[00:00] {before}", after, f"[00:01] {before}", after, f"[01:01] {before}", after,
            f"{gap}what is it?{ask}",
            f"{user}[01:11] {before}", after,
            f"{gap}and now?{ask}",
        ]
    )  # fmt: skip


def test_streamed_text_reads_on_and_a_question_stands_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine("llama", model={"system_prompt": "short answers"})
    said = Transcript(engine, monkeypatch)
    engine.ingest_text("once upon ", 0)
    engine.ingest_text("", 0)
    engine.ingest_text("a time", 0)
    answer(engine, question("who?"))
    answer(engine, question("why?", 2))
    assert str(said) == "|".join(
        [
            "<|im_start|>system\nshort answers<|im_end|>\n<|im_start|>user\n",
            "once upon ",
            "a time",
            "\n\nwho?<|im_end|>\n<|im_start|>assistant\n",
            "<|im_end|>\n<|im_start|>user\nwhy?<|im_end|>\n<|im_start|>assistant\n",
        ]
    )


def test_what_is_in_the_cache_carries_its_time_and_frame() -> None:
    engine = make_engine()
    engine.ingest_frames([picture(0), picture(1, 5.5)])
    slots = engine.cache.slots
    frame, time = slots.view().frame[0, 0], engine.cache.kept_times_ns()[0, 0]
    visual = slots.planes["visual"][0, 0, : slots.used]
    opening = slots.opening_tokens
    assert frame[:opening].tolist() == [-1] * opening
    assert sorted(set(frame[opening:].tolist())) == [0, 1]
    assert set(time[frame == 1].tolist()) == {int(5.5 * SECOND_NS)}
    tokens = engine.model.vision.tokens(*engine.model.vision.frame_size(40, 30))
    assert int(visual.sum()) == 2 * tokens


def test_an_answer_ends_at_its_limit_and_stays_in_the_stream() -> None:
    engine = make_engine("llama")
    _, reason = answer(engine, question(max_tokens=4))
    seen = engine.cache.seen_tokens
    assert reason is FinishReason.LENGTH
    prompt = len(engine.model.opening_ids()) + len(engine.model.ids("what?" + engine.model.turns.ask))
    assert seen == prompt + 4
    engine.cache.check()


def test_who_asks_about_a_time_that_the_frames_do_not_have_is_told() -> None:
    engine = make_engine("smolvlm")
    engine.ingest_frames([picture(0, 0.0), picture(1, 40.0)])
    told = engine.begin_answer(Question("q1", "What is shown at 12:30?", 40 * SECOND_NS))
    assert told == "the question is about a time that the stream has not reached; it is at 00:40"
    engine.end_answer()
    assert engine.begin_answer(Question("q2", "What is shown at 00:05?", 40 * SECOND_NS)) is None


def test_times_in_a_conversation_about_text_are_none_of_a_stream() -> None:
    engine = make_engine("llama")
    engine.ingest_text("the train leaves at 12:30", 0)
    assert engine.begin_answer(Question("q1", "where is it at 12:30?", SECOND_NS)) is None


def test_a_stop_token_ends_the_answer_and_is_not_written_twice() -> None:
    engine = make_engine("llama")
    engine.begin_answer(question())
    seen = engine.cache.seen_tokens
    engine.model.stop_ids = frozenset({int(engine._open.logits.argmax())})
    assert engine.step_answer().finished is FinishReason.STOP
    assert engine.end_answer() == 0
    assert engine.cache.seen_tokens == seen


@pytest.mark.parametrize("name", ["llama", "smolvlm", "qwen2-vl", "gemma3"])
def test_a_cancelled_answer_leaves_the_same_cache_as_one_that_short(name: str) -> None:
    def run(cancel: bool) -> str:
        engine = make_engine(name)
        if engine.model.vision:
            engine.ingest_frames([picture(0)])
        engine.begin_answer(question(max_tokens=5 if cancel else 2))
        for _ in range(2):
            assert (engine.step_answer().finished is None) or not cancel
        assert engine.end_answer() == 2
        engine.cache.check()
        return answer(engine, question("and then?", 2))[0]

    assert run(cancel=True) == run(cancel=False)


@pytest.mark.parametrize("policy", ["inf-mllm", "h2o", "last-frames"])
def test_the_same_events_give_the_same_answers_bit_for_bit(policy: str) -> None:
    def run() -> tuple[list[str], torch.Tensor]:
        engine = make_engine(cache={"policy": policy, "budget_tokens": 96}, answer={"temperature": 0.8})
        said = []
        for i in range(12):
            engine.ingest_frames([picture(i)])
            if i % 4 == 3:
                said.append(answer(engine, question(number=i))[0])
        assert engine.cache.evictions > 2
        return said, engine.cache.planes.raw_keys.clone()

    (first, keys), (second, again) = run(), run()
    assert first == second
    assert torch.equal(keys, again)


def test_a_frame_longer_than_a_chunk_is_read_in_parts_with_the_same_result() -> None:
    whole, parts = make_engine("qwen2-vl"), make_engine("qwen2-vl", cache={"chunk_tokens": 5})
    for engine in (whole, parts):
        engine.ingest_frames([picture(0), picture(1)])
        engine.begin_answer(question())
    torch.testing.assert_close(whole._open.logits, parts._open.logits, rtol=1e-4, atol=1e-4)


def test_frames_that_see_both_ways_are_read_in_one_piece() -> None:
    engine = make_engine("gemma3", cache={"chunk_tokens": 4})
    with pytest.raises(BudgetError, match=r"longer than 4 tokens; raise cache.chunk_tokens"):
        engine.ingest_frames([picture(0)])
    small, large = make_engine("gemma3", cache={"chunk_tokens": 12}), make_engine("gemma3")
    for engine in (small, large):
        engine.ingest_frames([picture(0), picture(1)])
        engine.begin_answer(question())
    torch.testing.assert_close(small._open.logits, large._open.logits, rtol=1e-4, atol=1e-4)


def test_a_step_takes_as_many_frames_as_fill_a_chunk() -> None:
    engine = make_engine(cache={"chunk_tokens": 100})
    assert engine.frames_per_step == 1
    engine.ingest_frames([picture(0)])
    tokens = engine._counts.frame_tokens
    assert engine.frames_per_step == min(8, 100 // tokens) > 1
    assert engine.characters_per_step == 400


def test_pictures_of_several_shapes_go_in_one_step_as_they_would_one_by_one() -> None:
    tall, wide = picture(0), picture(1)
    tall = Frame(np.ascontiguousarray(tall.pixels.transpose(1, 0, 2)), 0, 0)
    together, apart = make_engine("qwen2-vl"), make_engine("qwen2-vl")
    together.ingest_frames([tall, wide])
    apart.ingest_frames([tall])
    apart.ingest_frames([wide])
    for engine in (together, apart):
        engine.begin_answer(question())
    torch.testing.assert_close(together._open.logits, apart._open.logits, rtol=1e-4, atol=1e-4)


def test_fewer_tokens_a_frame_can_be_asked_for() -> None:
    few, many = make_engine("qwen2-vl", model={"frame_tokens": 4}), make_engine("qwen2-vl")
    for engine in (few, many):
        engine.ingest_frames([picture(0)])
    assert few.cache.seen_tokens < many.cache.seen_tokens


def test_a_text_model_cannot_see() -> None:
    with pytest.raises(ModelError, match=r"'llama' is a text model and cannot see frames; choose"):
        make_engine("llama").ingest_frames([picture(0)])


def test_a_frame_larger_than_the_budget_is_refused_and_changes_nothing() -> None:
    engine = make_engine(cache={"budget_tokens": 20}, policy={"sinks": 8})
    with pytest.raises(BudgetError, match=r"system prompt of \d+ tokens; at most 10"):
        engine.ingest_frames([picture(0)])
    engine = make_engine(model={"time_format": "{clock}" * 20, "system_prompt": "x"}, cache={"budget_tokens": 100})
    with pytest.raises(BudgetError, match=r"a frame has \d+ tokens with its time text; a budget of 100"):
        engine.ingest_frames([picture(0)])
    seen = engine.cache.seen_tokens
    assert answer(engine, question())[1] is FinishReason.LENGTH
    assert engine.cache.seen_tokens > seen


def test_a_question_of_more_than_half_the_budget_is_refused() -> None:
    engine = make_engine("llama")
    with pytest.raises(BudgetError, match=r"question of \d+ tokens; at most 128"):
        engine.begin_answer(question("why " * 60))
    assert answer(engine, question())[1] is FinishReason.LENGTH


def test_calls_in_the_wrong_order_are_refused() -> None:
    engine = make_engine("llama")
    for call in (engine.step_answer, engine.end_answer):
        with pytest.raises(SessionError, match="no answer is open"):
            call()
    engine.begin_answer(question())
    for blocked in (
        lambda: engine.ingest_text("x", 0),
        lambda: engine.ingest_frames([picture(0)]),
        lambda: engine.begin_answer(question()),
    ):
        with pytest.raises(SessionError, match="answer to question 'q1' is still open"):
            blocked()


def test_running_out_of_memory_says_what_to_do_and_the_stream_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    engine.ingest_frames([picture(0)])
    forward = engine.model.forward

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.model, "forward", fail)
    with pytest.raises(BudgetError, match=r"out of memory on cpu while reading .* lower cache.budget_tokens"):
        engine.ingest_frames([picture(1)])
    monkeypatch.setattr(engine.model, "forward", forward)
    engine.ingest_frames([picture(2)])
    engine.cache.check()
    assert answer(engine, question())[1] is FinishReason.LENGTH


def test_an_answer_whose_last_token_cannot_be_read_is_closed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine("llama")
    engine.begin_answer(question())
    engine.step_answer()
    forward = engine.model.forward

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.model, "forward", fail)
    with pytest.raises(BudgetError, match="out of memory"):
        engine.end_answer()
    monkeypatch.setattr(engine.model, "forward", forward)
    engine.ingest_text("on it goes", 0)
    assert answer(engine, question("and?", 2))[1] is FinishReason.LENGTH


def test_stats_count() -> None:
    engine = make_engine()
    engine.ingest_frames([picture(0), picture(1)])
    answer(engine, question())
    stats = engine.stats()
    assert (stats["frames"], stats["answers"], stats["policy"]) == (2, 1, "inf-mllm")
    assert stats["tokens_seen"] == stats["tokens_kept"] > 0
    assert stats["cache_bytes"] == engine.cache.bytes()
    assert stats["process_bytes"] > 0
    assert 0 < stats["first_token_cpu_s"] < 60
    assert "first_token_cpu_s" not in make_engine().stats()


def test_building_checks_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown cache policy"):
        make_engine(cache={"policy": "lru"})


def test_a_cache_that_does_not_fit_is_refused_with_the_largest_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    free_bytes = 10 << 20
    monkeypatch.setattr(MachineFacts, "free_bytes", lambda self, device: free_bytes)
    with pytest.raises(BudgetError) as caught:
        make_engine("llama", cache={"budget_tokens": 1 << 22})
    found = re.search(
        r"^a cache of 4194304 tokens needs (\d+) bytes \(.* GiB\) on cpu, 10485760 bytes \(0.01 GiB\) are free; "
        r"the largest budget that fits is (\d+) tokens$",
        str(caught.value),
    )
    assert found is not None, str(caught.value)
    assert int(found[1]) > 4194304 * 1000
    engine = make_engine("llama", cache={"budget_tokens": int(found[2])})
    assert 0.85 * free_bytes < engine.cache.bytes() <= 0.9 * free_bytes
    assert engine.cache.bytes() + 64 * int(found[1]) // 4194304 > 0.9 * free_bytes, "one slot grid more is too much"


def test_where_no_cache_fits_no_budget_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MachineFacts, "free_bytes", lambda self, device: 1 << 16)
    with pytest.raises(BudgetError, match="not even the smallest cache fits: close other programs"):
        make_engine("llama")


def test_loading_sets_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    with pytest.raises(ModelError):
        load_weights(settings_from_mapping({"model": {"threads": 3, "name": "./no-such-folder.gguf"}}))
    assert asked == [3]


def test_pixels_are_resized_only_where_needed() -> None:
    pixels = picture(0).pixels
    assert np.array_equal(fit_pixels(pixels, lambda w, h: (w, h)).numpy(), pixels)
    assert fit_pixels(pixels, lambda w, h: (20, 10)).shape == (10, 20, 3)
    assert fit_pixels(pixels, lambda w, h: (80, 60)).shape == (60, 80, 3)
    frozen = pixels.copy()
    frozen.flags.writeable = False
    assert np.array_equal(fit_pixels(frozen, lambda w, h: (w, h)).numpy(), pixels)


def test_time_texts_are_settable_and_checked() -> None:
    vision = make_engine().model.vision
    assert vision.time_text("none", 0, 0) == ""
    assert vision.time_text("{number}@{seconds:.1f} ", 2_500_000_000, 3) == "4@2.5 "
    assert vision.time_text("auto", 0, 0) != ""
    for wrong in ("{frame}", "{0}", "{clock.x}", "{"):
        with pytest.raises(ConfigError, match="time_format"):
            vision.time_text(wrong, 0, 0)
