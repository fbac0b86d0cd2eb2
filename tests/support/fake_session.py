"""A session that only remembers what a protocol asked of it, and what sans-I/O tests of protocols need besides."""

import json
from collections.abc import Sequence
from typing import Any

from inf_stream.base.errors import SessionError
from inf_stream.base.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    Evidence,
    FinishReason,
    Question,
)
from inf_stream.server.protocols.adapter import Adapter, Message, Reply, TakeFrames
from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.watches import WatchLimits
from inf_stream.server.sessions.engines import Memory, SessionOptions

WATCH_LIMITS = WatchLimits(most=3, least_every_s=0.5, text_characters=200)
LIMITS = ClientLimits(
    model="lists",
    instructions="be brief",
    budget_tokens=1000,
    answer_tokens=64,
    text_characters=200,
    message_bytes=4096,
    watches=WATCH_LIMITS,
)
STATS: dict[str, float | int | str] = {"input_tokens": 40, "cached_tokens": 30, "image_tokens": 20, "tokens_kept": 44}


class FakeSession:
    """What `inf_stream.server.protocols.adapter.Session` asks for."""

    def __init__(self) -> None:
        self.id = "sess_fake"
        self.has_begun = False
        self.options = SessionOptions()
        self.asked: list[tuple[Question, bool]] = []
        self.cancelled: list[str] = []
        self.is_closed = False
        self.memory: Memory | None = None
        self.frames_received = 0
        self.lost_s = 0.0
        self._made = 0

    def configure(self, options: SessionOptions) -> None:
        if self.has_begun:
            raise SessionError("the stream has begun")
        self.options = options

    def new_question(self, text: str, *, max_tokens: int | None = None, aside: bool = False) -> Question:
        self._made += 1
        return Question(f"q{self._made}", text, 7_000_000_000, max_tokens, aside)

    def ask(self, question: Question, *, in_order: bool, patient: bool = False) -> None:
        if self.is_closed:
            raise SessionError("the session is closed")
        self.has_begun = True
        self.asked.append((question, in_order))

    def cancel(self, question_id: str) -> None:
        self.cancelled.append(question_id)

    def stats(self) -> dict[str, Any]:
        return {"frames": {"received": 0}}


def told(replies: Sequence[Reply]) -> list[Message]:
    """The messages among replies, as they arrive: through JSON and back."""
    return [json.loads(json.dumps(reply)) for reply in replies if isinstance(reply, dict)]


def say(adapter: Adapter, message: dict[str, Any]) -> list[Message]:
    """What a client is told that sends this; frames are taken at once."""
    all_told: list[Message] = []
    number = 0
    for reply in adapter.received(json.dumps(message)):
        if isinstance(reply, TakeFrames):
            all_told += told(adapter.frames_taken(reply.tag, range(number, number + len(reply.images))))
        else:
            all_told += told([reply])
    return all_told


def answer(
    adapter: Adapter,
    question: Question,
    reason: FinishReason = FinishReason.STOP,
    *pieces: str,
    started: bool = True,
    warning: str | None = None,
) -> list[Message]:
    """What a client is told of an answer from its begin to its end."""
    replies: list[Reply] = []
    if started:
        replies += adapter.emitted(AnswerStarted(question, warning))
        for piece in pieces:
            replies += adapter.emitted(AnswerDelta(question.id, piece))
    evidence = (Evidence(3_000_000_000, 0.75), Evidence(1_500_000_000, 0.125))
    finished = AnswerFinished(question, "".join(pieces), reason, len(pieces), 0.25, STATS, evidence, warning=warning)
    return told([*replies, *adapter.emitted(finished)])
