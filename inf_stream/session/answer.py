"""One answer from the first look at its question to its last token."""

from inf_stream.base.clock import seconds
from inf_stream.base.events import AnswerDelta, AnswerFinished, Evidence, FinishReason, Question
from inf_stream.engine.protocol import AnswerStep


class OpenAnswer:
    """Gathers an answer's text and times.

    `asked_ns` and `now_ns` are readings of one clock; only their difference counts.

    Attributes:
        question: what is answered.
        warning: what its asker should know, or None.
    """

    def __init__(self, question: Question, asked_ns: int):
        self.question = question
        self.warning: str | None = None
        self._asked_ns = asked_ns
        self._first_token_ns: int | None = None
        self._latest_ns = asked_ns
        self._steps = 0
        self._pieces: list[str] = []
        self._reason: FinishReason | None = None

    @property
    def is_over(self) -> bool:
        """Whether only its end is left to do."""
        return self._reason is not None

    def cancel(self) -> None:
        """Decode no further. If the step in flight ends the answer by itself, that counts instead."""
        self._reason = self._reason or FinishReason.CANCELLED

    def fail(self) -> None:
        """Decode no further: the engine cannot."""
        self._reason = FinishReason.FAILED

    def decoded(self, step: AnswerStep, now_ns: int) -> AnswerDelta | None:
        """Take in one decoded token; returns its text, if it has any."""
        self._steps += 1
        if self._first_token_ns is None:
            self._first_token_ns = now_ns
        self._latest_ns = now_ns
        self._reason = step.finished or self._reason
        if not step.text:
            return None
        self._pieces.append(step.text)
        return AnswerDelta(self.question.id, step.text)

    def finished(
        self, tokens: int, stats: dict[str, float | int | str], evidence: tuple[Evidence, ...] = ()
    ) -> AnswerFinished:
        """The whole answer; `tokens` as the engine counts them."""
        assert self._reason is not None, f"answer '{self.question.id}' ends without a reason"
        first = self._first_token_ns
        ttft_s = None if first is None else seconds(first - self._asked_ns)
        return AnswerFinished(
            self.question,
            "".join(self._pieces),
            self._reason,
            tokens,
            ttft_s,
            stats,
            evidence,
            self._tokens_per_s(),
            self.warning,
        )

    def broken(self) -> AnswerFinished:
        """The answer as far as it came, when the engine cannot tell how many tokens it had."""
        self._reason = self._reason or FinishReason.FAILED
        return self.finished(self._steps, {})

    def _tokens_per_s(self) -> float | None:
        if self._first_token_ns is None or self._latest_ns <= self._first_token_ns:
            return None
        return (self._steps - 1) / seconds(self._latest_ns - self._first_token_ns)


def unanswered(question: Question, reason: FinishReason) -> AnswerFinished:
    """The end of an answer that never began."""
    return AnswerFinished(question, "", reason, tokens=0, ttft_s=None)
