"""A stepped engine of plain lists, and what tests of the session say to it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from inf_stream.base.events import Evidence, FinishReason, Frame, FrameArrived, Question, QuestionAsked
from inf_stream.base.state import State
from inf_stream.engine.protocol import AnswerStep

S = 1_000_000_000


def frame(number: int, at_s: float | None = None) -> Frame:
    """A black picture of one pixel."""
    at_ns = round((number if at_s is None else at_s) * S)
    return Frame(np.zeros((1, 1, 3), dtype=np.uint8), at_ns, number)


def frames(count: int, first: int = 0) -> list[FrameArrived]:
    return [FrameArrived(frame(first + i)) for i in range(count)]


def ask(question_id: str, at_s: float = 0.0, *, in_order: bool = False) -> QuestionAsked:
    return QuestionAsked(Question(question_id, f"what of {question_id}?", round(at_s * S)), in_order)


@dataclass
class ListEngine:
    """Remembers what it was told; an answer is `tokens_per_answer` words that depend on everything before.

    `failures` maps the number of a call (from 0, all methods counted) to what it raises.
    """

    frames_per_step: int = 2
    characters_per_step: int = 10
    tokens_per_answer: int = 3
    failures: dict[int, BaseException] = field(default_factory=dict)
    memory: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    said: list[str] | None = None
    warning: str | None = None

    def ingest_frames(self, frames: Sequence[Frame]) -> None:
        assert self.said is None, "no frames inside an answer"
        assert 1 <= len(frames) <= self.frames_per_step, "a bounded step"
        self._called("frames")
        self.memory.append("frames " + " ".join(str(f.number) for f in frames))

    def ingest_text(self, text: str, at_ns: int) -> None:
        assert self.said is None, "no text inside an answer"
        assert 1 <= len(text) <= self.characters_per_step, "a bounded step"
        self._called("text")
        self.memory.append(f"text {text} {at_ns}")

    def begin_answer(self, question: Question) -> str | None:
        assert self.said is None, "one answer at a time"
        self._called("begin")
        self.memory.append(f"question {question.id}")
        self.said = []
        return self.warning

    def step_answer(self) -> AnswerStep:
        assert self.said is not None, "an answer is open"
        self._called("step")
        assert len(self.said) < self.tokens_per_answer, "no token after the last"
        word = f"w{sum(map(len, self.memory)) + 7 * len(self.said)} "
        self.said.append(word)
        is_last = len(self.said) == self.tokens_per_answer
        return AnswerStep(word, FinishReason.STOP if is_last else None)

    def end_answer(self) -> int:
        assert self.said is not None, "an answer is open"
        try:
            self._called("end")
        finally:
            said, self.said = self.said, None
            self.memory.append("said " + "".join(said))
        return len(said)

    @property
    def is_answering(self) -> bool:
        return self.said is not None

    def state(self) -> State:
        """Everything it remembers, as facts and once more as a tensor."""
        assert self.said is None, "between two answers"
        self._called("state")
        letters = torch.tensor(list("".join(self.memory).encode()), dtype=torch.uint8)
        return State({"letters": letters}, {"memory": list(self.memory)})

    def restore(self, state: State) -> None:
        assert not self.calls, "into a fresh one"
        memory = state.fact("memory", list)
        letters = list("".join(memory).encode())
        assert state.tensor("letters", (len(letters),), torch.uint8).tolist() == letters
        self.memory = memory

    def evidence(self) -> tuple[Evidence, ...]:
        return (Evidence(7, 0.5),)

    def stats(self) -> dict[str, float | int | str]:
        return {"memories": len(self.memory)}

    def _called(self, name: str) -> None:
        number = len(self.calls)
        self.calls.append(name)
        self.threads.add(threading.get_ident())
        if number in self.failures:
            raise self.failures[number]
