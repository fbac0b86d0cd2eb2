"""Engines on tiny models that have lived through a stream of their own, to compare one's life with another's."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from support.tiny_models import tiny_tokenizer, tiny_weights

from inf_stream.base.config import settings_from_mapping
from inf_stream.base.events import FinishReason, Frame, Question
from inf_stream.engine.build import build_engine
from inf_stream.engine.engine import Engine

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
S = 1_000_000_000


def make_engine(
    name: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    greedy: bool = False,
    **sections: dict[str, Any],
) -> Engine:
    settings = settings_from_mapping(
        {
            "cache": {"budget_tokens": 128, "chunk_tokens": 64} | sections.get("cache", {}),
            "archive": sections.get("archive", {}),
            "policy": sections.get("policy", {}),
            "answer": {"max_tokens": 8, "temperature": 0.0 if greedy else 0.7, "seed": 5},
        }
    )
    weights = tiny_weights(name, seed=seed, dtype=dtype)
    return build_engine(settings, replace(weights, tokenizer=tiny_tokenizer(CHAT)))


def picture(number: int) -> Frame:
    random = np.random.default_rng(number)
    return Frame(random.integers(0, 256, (30, 40, 3), dtype=np.uint8), number * S, number)


def answer(engine: Engine, number: int) -> str:
    return hear(engine, Question(f"q{number}", "what is it?", number * S))[0]


def hear(engine: Engine, asked: Question) -> tuple[str, FinishReason]:
    """The whole answer, and why it ended."""
    engine.begin_answer(asked)
    return rest_of_answer(engine)


def rest_of_answer(engine: Engine) -> tuple[str, FinishReason]:
    """What is still to come of an open answer, which then is closed; and why it ended."""
    text = ""
    while True:
        step = engine.step_answer()
        text += step.text
        if step.finished is not None:
            engine.end_answer()
            return text, step.finished


def live(engine: Engine, first: int, count: int) -> list[str]:
    """Frames or text, and a question now and then."""
    said = []
    for number in range(first, first + count):
        if engine.model.vision is None:
            engine.ingest_text(f"line {number} says {number * 7 % 5}. ", number * S)
        else:
            engine.ingest_frames([picture(number)])
        if number % 3 == 2:
            said.append(answer(engine, number))
    return said
