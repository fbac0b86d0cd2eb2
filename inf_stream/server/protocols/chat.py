"""`/v1/chat/completions`: a whole conversation in one request, answered by a session that lives no longer.

Messages are the stream: texts and images in their order, the images a second apart, and the last message of the user is
the question.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from inf_stream.base.clock import NS_PER_S
from inf_stream.base.events import AnswerDelta, AnswerFinished, FinishReason, Warned
from inf_stream.server.protocols.answers import said_earlier
from inf_stream.server.protocols.image_urls import read_image_url
from inf_stream.server.protocols.limits import ClientLimits
from inf_stream.server.protocols.messages import (
    MessageError,
    as_choice,
    as_count,
    as_flag,
    as_list,
    as_object,
    as_text,
    required,
)
from inf_stream.server.protocols.pictures import Image, PictureDecoder, PictureError
from inf_stream.server.protocols.realtime_items import new_id
from inf_stream.server.sessions.engines import SessionOptions
from inf_stream.server.sessions.hub import Hub
from inf_stream.server.sessions.live_session import SessionEvent

_MOST_MESSAGES, _MOST_PARTS = 256, 64
_FRAME_INTERVAL_NS = NS_PER_S
_ROLES = ("system", "developer", "user", "assistant")
_REFUSED_FIELDS = {"tools", "functions", "audio", "web_search_options"}
_FINISH = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", FinishReason.CANCELLED: "stop"}


@dataclass(frozen=True)
class ChatRequest:
    """A request as far as it matters here.

    Attributes:
        instructions: of all system messages.
        turns: texts and images before the question, in their order.
        question: the last text of the user.
        max_tokens: of the answer, or None.
        stream: whether the answer is wanted piece by piece.
        include_usage: whether a stream ends with its usage.
    """

    instructions: str
    turns: tuple[str | Image, ...]
    question: str
    max_tokens: int | None
    stream: bool
    include_usage: bool


def parse_chat(body: Mapping[str, Any], limits: ClientLimits) -> ChatRequest:
    """A request body.

    Raises:
        MessageError: naming the field.
    """
    for key in _REFUSED_FIELDS & body.keys():
        if body[key]:
            raise MessageError(f"'{key}' is not supported; leave it out", code="unsupported_parameter", param=key)
    if as_count(body.get("n") or 1, "n", 1, 1) and body.get("response_format"):
        as_choice(as_object(body["response_format"], "response_format").get("type"), "response_format.type", ["text"])
    gathered = _Gathered(limits)
    for index, one in enumerate(as_list(required(body, "messages"), "messages", most=_MOST_MESSAGES)):
        gathered.add(as_object(one, f"messages[{index}]"), f"messages[{index}]")
    question = gathered.turns.pop() if gathered.turns and isinstance(gathered.turns[-1], str) else ""
    tokens = body.get("max_completion_tokens") or body.get("max_tokens")
    options = as_object(body.get("stream_options") or {}, "stream_options")
    return ChatRequest(
        "\n".join(gathered.instructions),
        tuple(gathered.turns),
        question if isinstance(question, str) else "",
        None if tokens is None else min(as_count(tokens, "max_tokens", 1, 1 << 31), limits.answer_tokens),
        as_flag(body.get("stream") or False, "stream"),
        as_flag(options.get("include_usage") or False, "stream_options.include_usage"),
    )


@dataclass
class _Gathered:
    limits: ClientLimits
    instructions: list[str] = field(default_factory=list)
    turns: list[str | Image] = field(default_factory=list)
    characters: int = 0

    def add(self, message: Mapping[str, Any], where: str) -> None:
        """Take in one message."""
        role = as_choice(message.get("role"), f"{where}.role", _ROLES)
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts: list[str] = []
        for index, one in enumerate(as_list(parts, f"{where}.content", most=_MOST_PARTS)):
            at = f"{where}.content[{index}]"
            part = as_object(one, at)
            kind = as_choice(part.get("type"), f"{at}.type", ["text", "image_url"] if role == "user" else ["text"])
            if kind == "text":
                texts.append(self._text(part, at))
            else:
                self.turns.append(self._image(part, at))
        text = "\n".join(texts)
        if role in ("system", "developer"):
            self.instructions.append(text)
        elif text or role == "user":
            self.turns.append(said_earlier(text) if role == "assistant" else text)

    def _text(self, part: Mapping[str, Any], where: str) -> str:
        most = self.limits.text_characters
        text = as_text(required(part, "text", where), f"{where}.text", most=most)
        self.characters += len(text)
        if self.characters > most:
            raise MessageError(f"all texts together have more than {most} characters; shorten them", param="messages")
        return text

    def _image(self, part: Mapping[str, Any], where: str) -> Image:
        if not self.limits.sees:
            raise MessageError(f"model '{self.limits.model}' reads text only", code="unsupported_content", param=where)
        given = required(part, "image_url", where)
        uri = given.get("url") if isinstance(given, dict) else given
        if not isinstance(uri, str):
            raise PictureError("image_url is no text", code="invalid_type")
        return read_image_url(uri, self.limits.addresses, most_bytes=self.limits.message_bytes)


class ChatAnswer:
    """One answer on a throw-away session: `async for` its pieces, then ask for the rest.

    Args:
        hub: where the session is opened.
        decoder: of images.
        request: what is wanted.
    """

    def __init__(self, hub: Hub, decoder: PictureDecoder, request: ChatRequest):
        self.id, self.created_s = new_id("chatcmpl"), int(time.time())
        self.finished: AnswerFinished | None = None
        self.failure = ""
        self._hub, self._decoder, self._request = hub, decoder, request
        self._events: asyncio.Queue[SessionEvent | None] = asyncio.Queue()
        self._session = hub.open(
            self._events.put_nowait,
            lambda: self._events.put_nowait(None),
            waits=True,
            options=SessionOptions(request.instructions),
        )

    async def pieces(self) -> AsyncGenerator[str, None]:
        """The text, piece by piece; the session is closed at the end, however that comes.

        Raises:
            PictureError: an image cannot be taken.
        """
        try:
            await self._feed()
            while (event := await self._events.get()) is not None:
                match event:
                    case AnswerDelta(_, text):
                        yield text
                    case Warned(message):
                        self.failure = message
                    case AnswerFinished():
                        self.finished = event
                        self._session.end()
        finally:
            self._session.stop()
            await self._session.closed()

    @property
    def finish_reason(self) -> str | None:
        """As the protocol has it, or None if the answer failed."""
        return None if self.finished is None else _FINISH.get(self.finished.reason)

    def usage(self) -> dict[str, Any]:
        """Tokens in and out."""
        stats, tokens = ({}, 0) if self.finished is None else (self.finished.stats, self.finished.tokens)
        read = int(stats.get("input_tokens", 0))
        return {"prompt_tokens": read, "completion_tokens": tokens, "total_tokens": read + tokens}

    def completion(self, text: str) -> dict[str, Any]:
        """The whole answer."""
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": self.finish_reason}
        return self._object("chat.completion") | {"choices": [choice | {"logprobs": None}], "usage": self.usage()}

    def chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """A piece of it."""
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish_reason}
        return self._object("chat.completion.chunk") | {"choices": [choice]}

    def usage_chunk(self) -> dict[str, Any]:
        """The last piece, if it is wanted."""
        return self._object("chat.completion.chunk") | {"choices": [], "usage": self.usage()}

    def _object(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created_s, "model": self._hub.maker.name}

    async def _feed(self) -> None:
        session, at_ns = self._session, 0
        images = [turn for turn in self._request.turns if not isinstance(turn, str)]
        files = iter(await self._decoder.files(images))
        for turn in self._request.turns:
            if isinstance(turn, str):
                await session.text_in_turn(turn + "\n", at_ns)
                continue
            await session.frame(session.number_frame(), await self._decoder.decoded(next(files)), at_ns)
            at_ns += _FRAME_INTERVAL_NS
        question = session.new_question(self._request.question, max_tokens=self._request.max_tokens)
        session.ask(question, in_order=True)


def server_sent(value: Mapping[str, Any] | str) -> bytes:
    """One server-sent event."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"data: {text}\n\n".encode()
