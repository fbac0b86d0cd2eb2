"""What the demo clients share: errors in one line, exit statuses, a session that outlives its connections."""

import argparse
import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from link import (
    BROKEN_PIPE,
    INTERRUPTED,
    REFUSED,
    ClientError,
    StreamConnection,
    StreamLink,
    guarded,
    pause_s,
    server_url,
)
from support.demo_clients import quick_pauses
from support.servers import free_port, http
from support.servers import serving as serving_bytes
from support.serving import picture, run_clean, server_settings
from support.threaded import SayingMaker, threaded_server
from websockets.asyncio.server import ServerConnection, serve

from inf_stream.base.config import ServerSettings
from inf_stream.server.running import running_server
from inf_stream.server.web.access import Access
from inf_stream.server.web.tls import self_signed_certificate, tls_context

KEY = "a-key-of-many-characters"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> Any:
    with quick_pauses(monkeypatch) as patch:
        yield patch


def talk(url: str, use: Callable[[StreamConnection], Any], key: str = "x", most: int = 1) -> list[str]:
    """Use so many connections one after the other; returns what was said of them."""
    said: list[str] = []

    async def main() -> None:
        async with aclosing(StreamLink(url, key, said.append).connections()) as connections:
            number = 0
            async for connection in connections:
                await use(connection)
                number += 1
                if number == most:
                    return

    run_clean(main())
    return said


async def nothing(_connection: StreamConnection) -> None:
    """Leave at once."""


def refusal(url: str, key: str = "x") -> str:
    with pytest.raises(ClientError) as caught:
        talk(url, nothing, key)
    return str(caught.value)


def test_no_server() -> None:
    said = refusal(f"http://127.0.0.1:{free_port()}")
    assert "no server at http://127.0.0.1:" in said
    assert said.endswith("(connection refused); start one with `inf-stream serve`")


def test_another_kind_of_server() -> None:
    with serving_bytes(http(b"gone", status="404 Not Found")) as port:
        assert refusal(f"http://127.0.0.1:{port}").endswith("answers 404; it is no inf-stream server")
    with serving_bytes(lambda connection, _leaving: connection.sendall(b"SSH-2.0-x\r\n")) as port:
        assert "is no inf-stream server (" in (said := refusal(f"http://127.0.0.1:{port}"))
        assert said.endswith("unless it speaks TLS: try https://")


def test_another_kind_of_websocket() -> None:
    async def greet(connection: ServerConnection) -> None:
        await connection.send("[]")

    async def main() -> None:
        async with serve(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ClientError, match="its first message is no greeting"):
                await anext(StreamLink(f"http://127.0.0.1:{port}", "x").connections())

    run_clean(main())


def test_a_certificate_that_is_not_trusted_and_then_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.pem").write_bytes(self_signed_certificate("127.0.0.1"))
    tls = tls_context(ServerSettings(certificate=str(tmp_path / "own.pem")))

    async def main() -> None:
        async with running_server(SayingMaker(), server_settings(), Access([]), tls) as server:
            with pytest.raises(ClientError, match=r"set SSL_CERT_FILE=server\.pem") as caught:
                await anext(StreamLink(server.address, "x").connections())
            assert f"ssl.get_server_certificate(('127.0.0.1', {server.port}))" in str(caught.value)
            fetched = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", server.port))
            (tmp_path / "server.pem").write_text(fetched)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
            async with aclosing(StreamLink(server.address, "x").connections()) as connections:
                await anext(connections)

    run_clean(main())


def test_a_wrong_key() -> None:
    with threaded_server(SayingMaker(), keys=(KEY,)) as server:
        assert "refuses the key; give it with --key or in INF_STREAM_API_KEY" in refusal(server.address, "wrong")
        assert talk(server.address, nothing, KEY) == []


def test_a_server_that_is_full() -> None:
    async def crowd(url: str) -> str:
        async with aclosing(StreamLink(url, "x").connections()) as first:
            await anext(first)
            with pytest.raises(ClientError) as caught:
                await anext(StreamLink(url, "x").connections())
            return str(caught.value)

    with threaded_server(SayingMaker(), sessions=1) as server:
        said = asyncio.run(crowd(server.address))
    assert re.search(r"closed the connection: 1 sessions are open, the most allowed; try again in \d+ s", said)


def test_a_lost_connection_goes_on_in_the_same_session_with_nothing_lost() -> None:
    heard: list[list[dict[str, Any]]] = []
    new: list[bool] = []

    with threaded_server(SayingMaker()) as server:

        async def use(connection: StreamConnection) -> None:
            new.append(connection.is_new)
            heard.append([])
            await connection.frame(picture(), float(len(heard)))
            await connection.say("ask", id=f"q{len(heard)}", text="?", in_order=True)
            async for message in connection:
                heard[-1].append(message)
                if message["type"] == "answer.started" and message["id"] == "q1":
                    server.break_connections()
                if message["type"] == "answer.finished" and message["id"] == "q2":
                    return

        said = talk(server.address, use, most=2)
    assert new == [True, False]
    numbers = [message["seq"] for part in heard for message in part]
    assert numbers == list(range(2, len(numbers) + 2)), "each message once; 1 was the greeting"
    answers = [m["id"] for part in heard for m in part if m["type"] == "answer.finished"]
    assert answers == ["q1", "q2"]
    assert "is lost; trying again in" in said[0]
    assert said[-1] == "connected again, in the same session"


def test_a_server_that_comes_back_has_forgotten_and_says_so() -> None:
    port, new = free_port(), list[bool]()

    async def main() -> list[str]:
        said: list[str] = []
        async with aclosing(StreamLink(f"http://127.0.0.1:{port}", "x", said.append).connections()) as connections:
            with threaded_server(SayingMaker(), port=port):
                connection = await anext(connections)
                new.append(connection.is_new)
            async for _ in connection:
                pass
            assert connection.lost is not None
            await connection.say("stats")
            waiting = asyncio.create_task(anext(connections))
            while not any("connection refused" in line for line in said):
                await asyncio.sleep(0.01)
            with threaded_server(SayingMaker(), port=port):
                new.append((await waiting).is_new)
                await connections.aclose()
        return said

    said = asyncio.run(main())
    assert new == [True, True]
    assert "the server stops" in said[0]
    assert said[-1] == "connected again, in a new session: what was seen before is forgotten"


def test_pauses_grow_to_their_limit_and_stay_there_for_days(no_pauses: pytest.MonkeyPatch) -> None:
    no_pauses.undo()
    assert [pause_s(attempt) for attempt in (1, 2, 3, 7, 8, 100_000)] == [0.5, 1.0, 2.0, 30.0, 30.0, 30.0]


def test_whoever_is_interrupted_says_goodbye() -> None:
    """So that the server need not wait for it to come back."""

    async def main() -> None:
        connected = asyncio.Event()

        async def listen() -> None:
            async with aclosing(StreamLink(server.address, "x").connections()) as connections:
                async for connection in connections:
                    connected.set()
                    async for _ in connection:
                        pass

        listening = asyncio.create_task(listen())
        await connected.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        while server.server.hub.sessions:
            await asyncio.sleep(0.01)

    with threaded_server(SayingMaker(), grace_s=1000.0) as server:
        run_clean(main(), limit_s=20)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("https://host/", "https://host"),
        ("http://[::1]:1/v1/", "http://[::1]:1"),
    ],
)
def test_addresses_that_are_understood(given: str, taken: str) -> None:
    assert server_url(given) == taken


@pytest.mark.parametrize("given", ["127.0.0.1:8765", "ws://host", "http://", "", "http://host:x", "http://[::1"])
def test_addresses_that_are_not(given: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write it as http://HOST:PORT"):
        server_url(given)


def test_how_a_program_ends(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: BaseException) -> Callable[[], None]:
        def program() -> None:
            raise error

        return program

    assert guarded(lambda: None) == 0
    assert guarded(raising(KeyboardInterrupt())) == INTERRUPTED
    assert capsys.readouterr().err == ""
    assert guarded(raising(ClientError("no"))) == REFUSED
    assert capsys.readouterr().err == "error: no\n"
    there, here = socket.socketpair()
    with there, here, open(os.dup(here.fileno()), "w") as output:  # noqa: PTH123
        monkeypatch.setattr("sys.stdout", output)
        assert guarded(raising(BrokenPipeError())) == BROKEN_PIPE
