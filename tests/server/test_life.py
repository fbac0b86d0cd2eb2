"""Connections that come, go, come back, say nothing, or do not read."""

import asyncio
import dataclasses
import gc
import json
import re
import socket
import struct
import threading
import weakref
from typing import Any

import pytest
from support.realtime_clients import connected, serving, until
from support.serving import ListMaker, picture, run_clean, server_settings
from support.session_engine import ListEngine
from support.sockets import StreamClient, streaming
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage

from inf_stream.server.protocols.pictures import PictureDecoder
from inf_stream.server.protocols.stream import StreamAdapter
from inf_stream.server.running import RunningServer, running_server
from inf_stream.server.sessions.engines import SessionOptions
from inf_stream.server.web.access import Access


async def gone(server: RunningServer) -> None:
    """Wait until no session is left."""
    while server.hub.sessions or len(server.channels):
        await asyncio.sleep(0.002)


async def away(server: RunningServer) -> None:
    """Wait until the server knows that its client is not connected."""
    while any(channel.is_connected for channel in server.channels):
        await asyncio.sleep(0.002)


def break_off(client: StreamClient) -> None:
    """Let the connection be lost without a word, as when a network breaks."""
    client.socket.transport.abort()


def test_a_lost_connection_is_taken_up_again_with_nothing_lost() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: setattr(engine, "tokens_per_answer", 40))
        async with serving(maker) as server:
            async with streaming(server) as client:
                hello = await client.next()
                await client.frame(picture())
                await client.outcomes(1)
                await client.say("ask", id="long", text="?")
                await client.until("answer.delta")
                maker.gate.clear()
                break_off(client)
                seen = client.heard
            await away(server)
            maker.gate.set()
            (session,) = server.hub.sessions
            while not session.is_idle:
                await asyncio.sleep(0.002)
            query = f"?resume={hello['handle']}&after={seen[-1]['seq']}"
            async with streaming(server, query) as again:
                greeting = await again.next()
                assert (greeting["type"], greeting["session"]) == ("hello", hello["session"])
                finished = await again.until("answer.finished")
                heard = seen + again.heard[1:]
                assert [m["seq"] for m in heard] == list(range(1, len(heard) + 1)), "each message once, in order"
                assert "".join(m["text"] for m in heard if m["type"] == "answer.delta") == finished["text"]
                await again.frame(picture())
                assert await again.outcomes(1) == {1: ("accepted", None)}, "numbers go on"
            await gone(server)

    run_clean(main())


def test_the_realtime_protocol_is_taken_up_by_handle_and_event_id() -> None:
    async def main() -> None:
        async with serving() as server:
            async with connected(server) as first:
                (created,) = await until(first, "session.created")
                handle = created.session.inf_stream["handle"]
                await first.response.create()
                events = await until(first, "response.content_part.added")
                first._connection.transport.abort()
            await away(server)
            query: Any = {"resume": handle, "after": events[-1].event_id}
            async with connected(server, extra_query=query) as again:
                missed = await until(again, "response.done")
                kinds = [e.type for e in missed]
                assert kinds[0] == "session.created"
                assert kinds[1:5] == ["response.output_text.delta"] * 3 + ["response.output_text.done"]
                assert kinds.count("response.done") == 1

    run_clean(main())


def test_a_client_that_does_not_come_back_is_given_up_and_its_place_is_free() -> None:
    async def main() -> None:
        async with serving(sessions=1, grace_s=1.4) as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                break_off(client)
            await away(server)
            async with streaming(server) as other:
                code, reason = await other.closed()
                assert code == 1013
                assert re.search(r"try again in 2 s$", reason), "once the grace is over, and not before"
            await gone(server)
            async with streaming(server, f"?resume={handle}&after=1") as late:
                assert await late.closed() == (1008, "no session has this handle, or it has ended; open a new one")
            async with streaming(server) as next_one:
                assert (await next_one.next())["type"] == "hello"

    run_clean(main())


def test_who_is_refused_is_told_when_a_place_may_be_free() -> None:
    async def refusal(server: RunningServer) -> int:
        async with streaming(server) as refused:
            code, reason = await refused.closed()
        assert code == 1013
        return int(reason.removesuffix(" s").rpartition(" ")[2])

    async def main() -> None:
        async with serving(sessions=2, grace_s=1000.0, idle_timeout_s=500.0) as server, streaming(server) as lost:
            await lost.next()
            async with streaming(server) as other:
                await other.next()
                assert await refusal(server) == 10, "either may leave at any time"
                break_off(lost)
                while all(channel.is_connected for channel in server.channels):
                    await asyncio.sleep(0.002)
                assert 480 < await refusal(server) <= 500, "the other, if it says nothing"
            while len(server.hub.sessions) == 2:
                await asyncio.sleep(0.002)
            plain = server.hub.open(lambda _event: None)
            assert await refusal(server) == 10, "plain requests are soon answered"
            plain.end()
            await plain.closed()
            async with streaming(server) as second:
                await second.next()
                break_off(second)
                await away(server)
                assert 980 < await refusal(server) <= 1000, "the one that was lost first"

    run_clean(main())


def test_a_client_that_says_goodbye_is_not_waited_for() -> None:
    async def main() -> None:
        async with serving(grace_s=1000.0) as server:
            async with streaming(server) as client:
                await client.next()
            await gone(server)

    run_clean(main())


def test_the_memory_of_a_closed_session_is_free_at_once() -> None:
    """Not when Python next looks for things that only hold each other: that may be a hundred sessions later."""
    engines: list[weakref.ref[ListEngine]] = []

    class Forgetful(ListMaker):
        def make(self, options: SessionOptions) -> ListEngine:
            engine = ListEngine()
            engines.append(weakref.ref(engine))
            return engine

    async def main() -> None:
        async with serving(Forgetful()) as server:
            async with streaming(server) as client:
                await client.frame(picture())
                await client.outcomes(1)
                await client.say("ask", id="a", text="?")
                await client.until("answer.finished")
                assert engines[0]() is not None
            await gone(server)
            assert engines[0]() is None

    gc.disable()
    try:
        run_clean(main())
    finally:
        gc.enable()


def test_a_second_connection_takes_the_session_over() -> None:
    async def main() -> None:
        async with serving() as server, streaming(server) as client:
            handle = (await client.next())["handle"]
            async with streaming(server, f"?resume={handle}&after=1") as second:
                await second.next()
                assert (await client.closed())[0] == 1001
                await second.say("stats")
                assert (await second.until("stats"))["seq"] == 2

    run_clean(main())


def test_nothing_is_lost_to_the_connection_that_is_left() -> None:
    """What waits when a second connection takes over is for that one alone, although the first was not lost."""

    async def main() -> None:
        async with serving() as server, streaming(server) as client:
            handle = (await client.next())["handle"]
            for _ in range(5):
                await client.say("stats")
                await client.until("stats")
            async with streaming(server, f"?resume={handle}&after=1") as second:
                assert [(await second.next())["seq"] for _ in range(6)] == [1, 2, 3, 4, 5, 6]

    run_clean(main())


def test_a_frame_that_has_come_has_its_outcome_although_its_connection_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoding, gate = threading.Event(), threading.Event()
    decode = PictureDecoder.decode

    def slow(self: PictureDecoder, data: bytes) -> Any:
        if not decoding.is_set():
            decoding.set()
            assert gate.wait(20)
        return decode(self, data)

    monkeypatch.setattr(PictureDecoder, "decode", slow)

    async def main() -> None:
        maker = ListMaker()
        async with serving(maker) as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                await client.frame(picture())
                while not decoding.is_set():
                    await asyncio.sleep(0.002)
                break_off(client)
            async with streaming(server, f"?resume={handle}&after=1") as again:
                await again.next()
                await again.frame(picture(grey=20))
                await asyncio.sleep(0.2)
                gate.set()
                assert await again.outcomes(2) == {0: ("accepted", None), 1: ("accepted", None)}
        assert maker.made[0].memory[0] == "frames 0", "in the order they came, over both connections"

    run_clean(main())


@pytest.mark.parametrize("query", ["after=-1", "after=x", "after=9999", "after=" + "9" * 30])
def test_what_cannot_be_sent_again_is_not_taken_up(query: str) -> None:
    async def main() -> None:
        async with serving() as server:
            async with streaming(server) as client:
                handle = (await client.next())["handle"]
                break_off(client)
            await away(server)
            async with streaming(server, f"?resume={handle}&{query}") as again:
                assert (await again.closed())[0] == 1008
            async with streaming(server, f"?resume={handle}") as again:
                assert (await again.next())["type"] == "hello", "the session is still there"

    run_clean(main())


def test_a_silent_client_is_sent_away() -> None:
    async def main() -> None:
        async with serving(idle_timeout_s=1.0) as server, streaming(server) as client:
            for _ in range(3):
                await asyncio.sleep(0.4)
                await client.say("stats")
            assert await client.closed() == (1000, "nothing came for 1 s")
            assert len([m for m in client.heard if m["type"] == "stats"]) == 3
            await gone(server)

    run_clean(main())


def test_a_client_that_answers_no_ping_is_gone() -> None:
    async def main() -> None:
        async with serving(ping_s=0.1, grace_s=0.0) as server:
            reader, writer = await upgraded(server)
            await asyncio.wait_for(reader.read(), 20)
            await gone(server)
            writer.close()

    run_clean(main())


UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def upgraded(server: RunningServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket connection on which nobody speaks the protocol."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def test_a_client_that_does_not_read_is_cut_off_and_others_do_not_notice() -> None:
    message = json.dumps({"type": "configure", "instructions": "x" * 60_000}).encode()

    async def send_for_ever(slow: socket.socket) -> None:
        while True:
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(slow, masked(message)), 20)

    async def main() -> None:
        limits = {"queue_messages": 32, "ping_s": 1000.0, "text_characters": 1 << 16}
        async with serving(**limits) as server, streaming(server) as other:
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.connect(("127.0.0.1", server.port))
                slow.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(slow, UPGRADE)
                while len(server.hub.sessions) < 2:
                    await asyncio.sleep(0.002)
                with pytest.raises(ConnectionError):
                    await send_for_ever(slow)
            while len(server.hub.sessions) > 1:
                await asyncio.sleep(0.002)
            await other.say("ask", id="a", text="?")
            assert (await other.until("answer.finished"))["reason"] == "stop"

    run_clean(main())


def masked(payload: bytes) -> bytes:
    """A text message of a client, with a mask of zeros."""
    return b"\x81" + bytes([0x80 | 127]) + struct.pack(">Q", len(payload)) + bytes(4) + payload


def test_connections_that_say_nothing_or_only_half_are_sent_away() -> None:
    async def main() -> None:
        async with serving(header_timeout_s=0.7) as server:
            silent = await asyncio.open_connection("127.0.0.1", server.port)
            slow = await asyncio.open_connection("127.0.0.1", server.port)
            slow[1].write(b"GET /health HTTP/1.1\r\nX-Long: ")
            for reader, writer in (silent, slow):
                with pytest.raises(ConnectionError):
                    await read_to_the_end(reader)
                writer.close()
            async with streaming(server) as client:
                await client.next()
                await asyncio.sleep(1.0)
                await client.say("stats")
                await client.until("stats")

    run_clean(main())


async def read_to_the_end(reader: asyncio.StreamReader) -> None:
    """Raises if the connection was aborted; one that is just closed counts as such, too."""
    if not await asyncio.wait_for(reader.read(), 20):
        raise ConnectionResetError


def test_one_connection_too_many_is_aborted() -> None:
    async def main() -> None:
        async with serving(connections=2) as server, streaming(server) as one, streaming(server) as two:
            await one.next()
            await two.next()
            with pytest.raises((ConnectionError, EOFError, InvalidMessage)):
                async with connect(f"ws://127.0.0.1:{server.port}/v1/stream", open_timeout=20):
                    pass
            await one.say("stats")
            await one.until("stats")

    run_clean(main())


def test_half_closed_and_broken_sockets_disturb_nobody() -> None:
    async def main() -> None:
        async with serving(sessions=8, grace_s=0.0, ping_s=0.5) as server, streaming(server) as client:
            for data in (b"", b"\x00" * 100, masked(b"{")[:5], b"\x81\xff" + b"\xff" * 8, b"\x88\x02\x03\xe8"):
                reader, writer = await upgraded(server)
                writer.write(data)
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 20)
                writer.close()
            raw = await asyncio.open_connection("127.0.0.1", server.port)
            raw[1].write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            await asyncio.wait_for(raw[0].read(), 20)
            raw[1].close()
            while len(server.hub.sessions) > 1:
                await asyncio.sleep(0.002)
            await client.say("stats")
            await client.until("stats")

    run_clean(main())


def test_a_server_that_stops_keeps_its_promises_but_not_for_ever() -> None:
    async def main() -> None:
        maker = ListMaker(prepare=lambda engine: setattr(engine, "tokens_per_answer", 10**9))
        closed: list[tuple[int, str]] = []

        async def listen(client: StreamClient) -> None:
            closed.append(await client.closed())

        async with serving(maker, drain_s=0.1) as server:
            context = streaming(server)
            client = await context.__aenter__()
            await client.say("ask", id="endless", text="?")
            await client.until("answer.delta")
            listening = asyncio.create_task(listen(client))
        await listening
        await context.__aexit__(None, None, None)
        assert closed == [(1001, "the server stops")]
        assert [m["reason"] for m in client.heard if m["type"] == "answer.finished"] == ["cancelled"]

    run_clean(main())


def test_a_bug_in_a_protocol_ends_its_session_with_a_code(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: StreamAdapter, event: object) -> list[Any]:
        raise ZeroDivisionError("a bug")

    async def main(order: str, method: str) -> None:
        async with serving() as server, streaming(server) as client, streaming(server) as other:
            await client.next()
            await other.next()
            monkeypatch.setattr(StreamAdapter, method, broken)
            await client.say(order, id="a", text="?")
            code, reason = await client.closed()
            assert code == 1011
            assert "bug" not in reason
            monkeypatch.undo()
            await other.say("ask", id="a", text="?")
            await other.until("answer.finished")
            assert len(server.hub.sessions) == 1

    for order, method in (("ask", "emitted"), ("stats", "received")):
        caplog.clear()
        run_clean(main(order, method))
        assert "a bug" in caplog.text, "the log says why"


def test_what_breaks_while_a_connection_is_made_is_told_with_a_code(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving() as server:
            monkeypatch.setattr(server.hub.maker, "free_bytes", lambda: 1 // 0)
            async with streaming(server) as client:
                assert await client.closed() == (1011, "the server failed; its log says more")

    run_clean(main())
    assert "ZeroDivisionError" in caplog.text


def test_under_the_rule_wait_a_client_is_held_up_and_loses_nothing() -> None:
    async def main() -> None:
        maker = ListMaker()
        settings = server_settings(queue_frames=2)
        settings = dataclasses.replace(settings, source=dataclasses.replace(settings.source, queue_rule="wait"))
        async with running_server(maker, settings, Access(())) as server:
            async with streaming(server) as client:
                for _ in range(12):
                    await client.frame(picture())
                assert await client.outcomes(12) == dict.fromkeys(range(12), ("accepted", None))
                maker.gate.clear()
                for _ in range(6):
                    await client.frame(picture())
                (session,) = server.hub.sessions
                while session.stats()["frames"]["received"] < 16:
                    await asyncio.sleep(0.002)
                session.end()
                maker.gate.set()
                outcomes = await client.outcomes(15)
            assert set(outcomes.values()) <= {("accepted", None), ("dropped", "ending")}

    run_clean(main())
