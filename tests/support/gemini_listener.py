"""The Gemini Live protocol without a socket."""

import dataclasses
import json
from typing import Any

from google.genai.types import LiveServerMessage
from support.fake_session import LIMITS, WATCH_LIMITS, FakeSession, answer, told

from inf_stream.base.events import FinishReason
from inf_stream.server.protocols.adapter import HangUp, Reply, TakeFrames
from inf_stream.server.protocols.gemini import GeminiAdapter
from inf_stream.server.protocols.watches import Watchman


class GeminiListener:
    """Speaks to an adapter, and checks all it is told against the client's own schema."""

    def __init__(self, setup: dict[str, Any] | None = None, **limits: Any) -> None:
        self.session = FakeSession()
        self.watchman = Watchman(WATCH_LIMITS)
        self.adapter = GeminiAdapter(self.session, dataclasses.replace(LIMITS, **limits), self.watchman, "handle")
        self.told = 0
        self.hung_up: HangUp | None = None
        assert self.adapter.opened() == []
        if setup is not None:
            self.greeting = self.says(setup=setup)

    def checked(self, replies: Any) -> list[dict[str, Any]]:
        messages = []
        for message in told(replies):
            self.told += 1
            messages.append(self.adapter.numbered(message, self.told))
            LiveServerMessage.model_validate_json(json.dumps(messages[-1]))
        for reply in replies:
            if isinstance(reply, HangUp):
                self.hung_up = reply
        return messages

    def says(self, **message: Any) -> list[dict[str, Any]]:
        """A message, whose frames are taken."""
        heard = []
        for reply in self.adapter.received(json.dumps(message)):
            replies: Any = [reply]
            if isinstance(reply, TakeFrames):
                replies = self.adapter.frames_taken(reply.tag, range(len(reply.images)))
            heard += self.checked(replies)
        return heard

    def fails(self, **message: Any) -> str:
        assert self.says(**message) == []
        assert self.hung_up is not None, "refused"
        assert self.hung_up.code == 1007
        return self.hung_up.reason

    def asks(self, *texts: str, **more: Any) -> None:
        turn = {"role": "user", "parts": [{"text": text} for text in texts]}
        assert self.says(clientContent={"turns": [turn], "turnComplete": True, **more}) == []

    def hears(self, *pieces: str, at: int = -1, reason: FinishReason = FinishReason.STOP, **more: Any) -> Any:
        question, _ = self.session.asked[at]
        return self.checked(_answer(self.adapter, question, reason, *pieces, **more))

    @property
    def asked(self) -> list[str]:
        return [question.text for question, _ in self.session.asked]


def _answer(adapter: GeminiAdapter, *what: Any, **more: Any) -> list[Reply]:
    """As `support.fake_session.answer`, with what is no message."""
    replies: list[Reply] = []

    class Heard:
        def emitted(self, event: Any) -> Any:
            replies.extend(found := adapter.emitted(event))
            return found

    answer(Heard(), *what, **more)  # type: ignore[arg-type]
    return replies
