"""Thousands of random messages, valid, half valid and senseless: nothing is raised, every reply is well-formed."""

import json
import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
from google.genai.types import LiveServerMessage
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from support.fake_session import LIMITS, WATCH_LIMITS, FakeSession, answer
from support.gemini_clients import PATH, blob
from support.realtime_clients import image_item, serving, text_item
from support.serving import ListMaker, picture, run_clean
from support.sockets import streaming
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from inf_stream.base.events import FinishReason
from inf_stream.server.protocols.adapter import Adapter, HangUp, TakeFrames
from inf_stream.server.protocols.gemini import GeminiAdapter
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.realtime import _ON_EVENT, RealtimeAdapter
from inf_stream.server.protocols.stream import _ON_MESSAGE, StreamAdapter
from inf_stream.server.protocols.watches import Watchman

REALTIME: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
ORACLES: dict[str, Callable[[str], Any]] = {
    "realtime": REALTIME.validate_json,
    "stream": json.loads,
    "gemini": LiveServerMessage.model_validate_json,
}
WHOLE: dict[str, Any] = {
    "session.update": {"session": {"type": "realtime", "instructions": "x", "truncation": "auto", "inf_stream": {
        "watches": [{"id": "a", "question": "?"}]}}},
    "conversation.item.create": {"item": image_item()},
    "conversation.item.delete": {"item_id": "i1"},
    "conversation.item.retrieve": {"item_id": "i1"},
    "conversation.item.truncate": {"item_id": "i1", "content_index": 0, "audio_end_ms": 0},
    "response.create": {"response": {"conversation": "none", "input": [text_item("?")], "metadata": {"a": "b"}}},
    "response.cancel": {"response_id": "r"},
    "configure": {"instructions": "x", "budget_tokens": 100},
    "frame": {"timestamp_ms": 5},
    "ask": {"id": "q", "text": "?", "aside": True, "max_tokens": 5},
    "cancel": {"id": "q"},
    "watch": {"id": "w", "question": "?", "every_s": 1},
    "unwatch": {"id": "w"},
}  # fmt: skip
SETUP: dict[str, Any] = {
    "model": "models/any",
    "generationConfig": {"responseModalities": ["TEXT"], "maxOutputTokens": 5},
    "systemInstruction": {"parts": [{"text": "x", "partMetadata": {"inf_stream": {"watches": [
        {"id": "a", "question": "?"}]}}}]},
    "sessionResumption": {"transparent": True},
    "contextWindowCompression": {"triggerTokens": "300", "slidingWindow": {"targetTokens": 200}},
}  # fmt: skip
GEMINI: list[dict[str, Any]] = [
    {"clientContent": {"turns": [{"role": "user", "parts": [{"text": "?"}, {"inlineData": blob()}]}],
                       "turnComplete": True}},
    {"client_content": {"turns": [{"role": "model", "parts": [{"text": "!"}]}], "turn_complete": False}},
    {"realtimeInput": {"video": blob(timestamp_ms=5)}},
    {"realtimeInput": {"text": "?"}},
    {"realtimeInput": {"mediaChunks": [blob()], "activityStart": {}}},
    {"realtimeInput": {"activityEnd": {}}},
    {"toolResponse": {"functionResponses": []}},
    {"contextUpdate": {"systemInstruction": {"parts": [{"text": "y"}]}}},
    {"setup": SETUP},
]  # fmt: skip
JUNK: list[Any] = [
    None, True, 0, -1, 1.5, 2**63, 10**300, "", "x" * 300, "\ud800", "\x00", [], {}, [[]], {"a": {}}, "none", "auto",
    "inf", "disabled", "data:image/jpeg;base64,AAAA", "http://a.example", ["text"], {"type": "message"}, "i1", "q",
    {"text": "?"}, {"parts": [{"text": 1}]}, {"mimeType": "audio/pcm", "data": "AA=="}, {"mimeType": "image/png"},
    "https://a.example/" + "x" * 50, {"type": "item_reference", "id": "i1"}, "../../etc/passwd", "'; DROP TABLE x; --",
]  # fmt: skip


def mutated(value: Any, dice: random.Random) -> Any:
    """The value with some of its parts replaced, removed, doubled or renamed."""
    if dice.random() < 0.12:
        return dice.choice(JUNK)
    if isinstance(value, dict):
        changed = {}
        for key, inner in value.items():
            if dice.random() < 0.08:
                continue
            changed[key if dice.random() > 0.05 else str(dice.choice(JUNK))] = mutated(inner, dice)
        if dice.random() < 0.1:
            changed[dice.choice(["id", "type", "event_id", "metadata", "colour"])] = dice.choice(JUNK)
        return changed
    if isinstance(value, list):
        return [mutated(inner, dice) for inner in value for _ in range(dice.choice([1, 1, 1, 0, 2]))]
    return value


def message(wholes: list[dict[str, Any]], dice: random.Random) -> str | bytes:
    """Something a client might send, by mistake or by malice."""
    text = json.dumps(mutated(dice.choice(wholes), dice))
    roll = dice.random()
    if roll < 0.05:
        return dice.randbytes(dice.randrange(60))
    if roll < 0.12:
        at = dice.randrange(len(text))
        return text[:at] + dice.choice(["", "\x00", "{", '"', "\ud800", "9" * 40, "[" * 500]) + text[at + 1 :]
    if roll < 0.15:
        return text.encode(errors="replace")
    return text


def typed(kinds: Any) -> list[dict[str, Any]]:
    """Whole messages of these types."""
    return [{"type": kind, **WHOLE.get(kind, {})} for kind in sorted(kinds)]


def bad_picture(dice: random.Random) -> bytes:
    """An image that is cut short, or whose header says what is not true."""
    data = bytearray(picture(dice.choice([".jpg", ".png", ".webp"])))
    if dice.random() < 0.5:
        return bytes(data[: dice.randrange(5, len(data))])
    for _ in range(dice.randrange(1, 4)):
        data[dice.randrange(len(data))] = dice.choice([0, 0x7F, 0xFF])
    return bytes(data)


WHOLES = {"realtime": typed(_ON_EVENT), "stream": typed(_ON_MESSAGE), "gemini": GEMINI}
ADAPTERS = {"realtime": RealtimeAdapter, "stream": StreamAdapter, "gemini": GeminiAdapter}


@pytest.mark.parametrize("protocol", ["realtime", "stream", "gemini"])
@pytest.mark.parametrize("seed", range(3))
def test_random_messages_raise_nothing_and_are_answered_well(protocol: str, seed: int) -> None:
    dice = random.Random(seed)
    session, watchman = FakeSession(), Watchman(WATCH_LIMITS)
    adapter: Adapter = ADAPTERS[protocol](session, LIMITS, watchman, "handle")
    open_questions = 0
    errors = others = 0
    if protocol == "gemini":
        adapter.received(json.dumps({"setup": SETUP}))
    for _ in range(2500):
        replies = list(adapter.received(message(WHOLES[protocol], dice)))
        assert len(replies) <= 3
        for reply in list(replies):
            if isinstance(reply, TakeFrames):
                whole = dice.random() < 0.7
                refused = MessageError("no image", code="invalid_image", param="image_url")
                replies += adapter.frames_taken(reply.tag, [0]) if whole else adapter.frames_refused(reply.tag, refused)
        if len(session.asked) > open_questions and dice.random() < 0.5:
            question, _ = session.asked[open_questions]
            open_questions += 1
            replies += answer(adapter, question, dice.choice(list(FinishReason)), "a", started=dice.random() < 0.8)
        if protocol == "gemini" and dice.random() < 0.05:
            replies += adapter.resumed()
        for reply in replies:
            if isinstance(reply, TakeFrames):
                others += 1
                continue
            text = reply.reason if isinstance(reply, HangUp) else json.dumps(adapter.numbered(reply, 1))
            assert len(text) < 20_000
            assert "Traceback" not in text
            assert "inf_stream/" not in text
            if isinstance(reply, HangUp) or reply.get("type") == "error":
                assert text
                errors += 1
            else:
                others += 1
            if not isinstance(reply, HangUp):
                ORACLES[protocol](text)
    assert errors > 500, "many are senseless"
    assert others > 300, "and some are not"


def test_a_server_stays_up_under_random_messages_and_others_do_not_notice(caplog: pytest.LogCaptureFixture) -> None:
    """Whole servers: the messages of the same fuzzer on sockets, images of all kinds, connections that break off."""
    dice = random.Random(7)
    paths = {"realtime": "/v1/realtime", "stream": "/v1/stream", "gemini": PATH}

    async def main() -> None:
        maker = ListMaker()
        async with serving(maker, grace_s=0.0, sessions=50) as server, streaming(server) as witness:
            await witness.next()
            address = server.address.replace("http", "ws")
            for round_number in range(60):
                protocol = dice.choice(["realtime", "stream", *["gemini"] * 4])
                socket = await connect(address + paths[protocol], compression=None, max_queue=None)
                try:
                    if protocol == "gemini" and dice.random() < 0.9:
                        await socket.send(json.dumps({"setup": SETUP}))
                    for _ in range(40):
                        data = message(WHOLES[protocol], dice)
                        if protocol == "gemini" and dice.random() < 0.8:  # whose first error is its last
                            data = json.dumps(dice.choice(GEMINI[:6]))
                        if isinstance(data, str):
                            data = data.encode("utf-8", "replace").decode()
                        if dice.random() < 0.1:
                            data = bad_picture(dice)
                            if protocol == "gemini":
                                data = json.dumps({"realtimeInput": {"video": blob(data)}})
                        await socket.send(data)
                except ConnectionClosed:
                    pass
                if round_number % 3:
                    socket.transport.abort()
                await socket.close()
                await witness.say("ask", id=f"w{round_number}", text="still there?")
                assert (await witness.until("answer.finished"))["reason"] == "stop"
            stats = server.hub.sessions[0].stats()
            assert stats["frames"]["received"] == 0

    run_clean(main())
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == [], "nothing broke"
