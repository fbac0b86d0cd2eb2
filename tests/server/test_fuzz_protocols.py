"""Thousands of random messages, valid, half valid and senseless: nothing is raised, every reply is well-formed."""

import json
import random
from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from support.fake_session import LIMITS, WATCH_LIMITS, FakeSession, answer
from support.realtime_clients import image_item, serving, text_item
from support.serving import ListMaker, picture, run_clean
from support.sockets import streaming
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from inf_stream.base.events import FinishReason
from inf_stream.server.protocols.adapter import Adapter, TakeFrames
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.realtime import _ON_EVENT, RealtimeAdapter
from inf_stream.server.protocols.stream import _ON_MESSAGE, StreamAdapter
from inf_stream.server.protocols.watches import Watchman

ORACLE: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
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
JUNK: list[Any] = [
    None, True, 0, -1, 1.5, 2**63, 10**300, "", "x" * 300, "\ud800", "\x00", [], {}, [[]], {"a": {}}, "none", "auto",
    "inf", "disabled", "data:image/jpeg;base64,AAAA", "http://a.example", ["text"], {"type": "message"}, "i1", "q",
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


def message(kinds: list[str], dice: random.Random) -> str | bytes:
    """Something a client might send, by mistake or by malice."""
    kind = dice.choice(kinds)
    text = json.dumps(mutated({"type": kind, **WHOLE.get(kind, {})}, dice))
    roll = dice.random()
    if roll < 0.05:
        return dice.randbytes(dice.randrange(60))
    if roll < 0.12:
        at = dice.randrange(len(text))
        return text[:at] + dice.choice(["", "\x00", "{", '"', "\ud800", "9" * 40, "[" * 500]) + text[at + 1 :]
    if roll < 0.15:
        return text.encode(errors="replace")
    return text


@pytest.mark.parametrize("protocol", ["realtime", "stream"])
@pytest.mark.parametrize("seed", range(3))
def test_random_messages_raise_nothing_and_are_answered_well(protocol: str, seed: int) -> None:
    dice = random.Random(seed)
    session, watchman = FakeSession(), Watchman(WATCH_LIMITS)
    is_realtime = protocol == "realtime"
    make = RealtimeAdapter if is_realtime else StreamAdapter
    adapter: Adapter = make(session, LIMITS, watchman, "handle")
    kinds = sorted(_ON_EVENT if is_realtime else _ON_MESSAGE)
    open_questions = 0
    errors = others = 0
    for _ in range(2500):
        replies = list(adapter.received(message(kinds, dice)))
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
        for reply in replies:
            if isinstance(reply, TakeFrames):
                continue
            text = json.dumps(adapter.numbered(reply, 1))
            assert len(text) < 20_000
            assert "Traceback" not in text
            assert "inf_stream/" not in text
            errors += reply["type"] == "error"
            others += reply["type"] != "error"
            if is_realtime:
                ORACLE.validate_json(text)
    assert errors > 500, "many are senseless"
    assert others > 300, "and some are not"


def test_a_server_stays_up_under_random_messages_and_others_do_not_notice() -> None:
    """Whole servers: the messages of the same fuzzer on sockets, images of all kinds, connections that break off."""
    dice = random.Random(7)

    async def main() -> None:
        maker = ListMaker()
        async with serving(maker, grace_s=0.0, sessions=50) as server, streaming(server) as witness:
            await witness.next()
            address = server.address.replace("http", "ws")
            for round_number in range(30):
                path, kinds = dice.choice([("stream", sorted(_ON_MESSAGE)), ("realtime", sorted(_ON_EVENT))])
                socket = await connect(f"{address}/v1/{path}", compression=None, max_queue=None)
                try:
                    for _ in range(40):
                        data = message(kinds, dice)
                        if isinstance(data, str):
                            data = data.encode("utf-8", "replace").decode()
                        if dice.random() < 0.1:
                            data = picture(dice.choice([".jpg", ".png", ".webp"]))[: dice.randrange(5, 900)]
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
