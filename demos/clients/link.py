"""What the clients share: their flags, errors in one line, and a session of `/v1/stream` that outlives its connections.

ws://HOST:PORT/v1/stream      hello {handle} ... seq 41 | lost
... ?resume=HANDLE&after=41   hello {handle}, seq 42, 43: what was missed, each message once
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from inf_stream.base.errors import InfStreamError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Between attempts to connect, growing twofold."""
GREETING_S = 10.0
"""Longest wait for the first message of a server."""
GONE = (1000, 1008, 1009, 1011)
"""Close codes after which the server holds the session no more (the README of the server lists all)."""
REFUSED, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
"""Exit statuses, as those of `inf-stream`."""


class ClientError(Exception):
    """Ends the client; its message is shown in one line."""


# ---- the program -----------------------------------------------------------------------------------


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that all clients have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source",
        default="camera:0",
        help="camera:0, rtsp://..., http(s)://..., a video file or a folder of images (default: %(default)s)",
    )
    parser.add_argument(
        "--url", type=server_url, default="http://127.0.0.1:8765", help="the server's address (default: %(default)s)"
    )
    parser.add_argument(
        "--key",
        default=os.environ.get("INF_STREAM_API_KEY") or "none needed",
        help="the server's API key; better given in the environment variable INF_STREAM_API_KEY",
    )
    return parser


def server_url(text: str) -> str:
    """`http://HOST:PORT`, with or without `/` or `/v1` behind it."""
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise argparse.ArgumentTypeError(f"'{text}' is no address of a server; write it as http://HOST:PORT")
    return text.rstrip("/").removesuffix("/v1")


def positive(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return number


def guarded(program: Callable[[], None]) -> int:
    """Run a program; returns its exit status. What is refused or lost is one line, and Ctrl-C none."""
    try:
        program()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads what is still to be flushed
        return BROKEN_PIPE
    except (ClientError, InfStreamError) as error:
        note(f"error: {error}")
        return REFUSED
    return 0


def note(message: str) -> None:
    """A line for people, beside the output."""
    show_status("")
    print(message, file=sys.stderr, flush=True)


def show_status(text: str) -> None:
    """On a terminal, write the last line of standard error over; elsewhere nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


# ---- what went wrong -------------------------------------------------------------------------------


def explain(error: Exception, url: str) -> str:
    """Why there is no connection, and what can be done."""
    match error:
        case InvalidStatus() if error.response.status_code in (401, 403):
            return f"the server at {url} refuses the key; give it with --key or in INF_STREAM_API_KEY"
        case InvalidStatus():
            return f"what listens at {url} answers {error.response.status_code}; it is no inf-stream server"
        case ssl.SSLCertVerificationError():
            where = (urlsplit(url).hostname, urlsplit(url).port or 443)
            fetch = f'python -c "import ssl; print(ssl.get_server_certificate({where}))" > server.pem'
            remedy = f"if it is your server's own, fetch it, {fetch}, and set SSL_CERT_FILE=server.pem"
            return f"the certificate of {url} is not trusted; {remedy}"
        case InvalidMessage() if url.startswith("http:"):
            return f"what listens at {url} is no inf-stream server ({error}), unless it speaks TLS: try https://"
        case InvalidHandshake() | ssl.SSLError():
            return f"what listens at {url} is no inf-stream server ({error})"
        case ConnectionClosed() if error.rcvd is not None:
            return f"the server has closed the connection: {error.rcvd.reason or error.rcvd.code}"
        case ConnectionClosed():
            return "the connection to the server is lost"
        case asyncio.TimeoutError() | TimeoutError():
            return f"the server at {url} does not answer"
    reason = "connection refused" if isinstance(error, ConnectionRefusedError) else error
    return f"no server at {url} ({reason}); start one with `inf-stream serve`"


NOT_CONNECTED = (OSError, InvalidHandshake, ConnectionClosed, asyncio.TimeoutError)
"""What `explain` explains."""


def pause_s(attempt: int) -> float:
    """Wait before attempt 1, 2, ... to connect again, however many there are."""
    return min(FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 16), LONGEST_PAUSE_S)


# ---- a session of /v1/stream -----------------------------------------------------------------------


class StreamConnection:
    """One connection: `async for message in connection` ends when it is lost.

    Attributes:
        is_new: the session has just begun; otherwise it is the one of the connection before.
        lost: why the connection is lost, once it is.
    """

    def __init__(self, socket: ClientConnection, link: "StreamLink", *, is_new: bool):
        self.is_new = is_new
        self.lost: ConnectionClosed | None = None
        self._socket, self._link = socket, link

    async def say(self, kind: str, **fields: Any) -> None:
        """Send a message; what is said on a connection that is lost is lost."""
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(json.dumps({"type": kind, **fields}))

    async def frame(self, jpeg: bytes, at_s: float) -> None:
        """Send a picture of that stream time."""
        await self.say("frame", timestamp_ms=round(1000 * at_s, 3))
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(jpeg)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            try:
                message = json.loads(await self._socket.recv())
            except ConnectionClosed as closed:
                self.lost = closed
                return
            self._link.seen = message["seq"]
            yield message


class StreamLink:
    """A session over as many connections as it takes.

    Args:
        url: of the server.
        key: to it.
        say: told why a connection was lost, and when it is back.

    Attributes:
        seen: `seq` of the last message.
    """

    def __init__(self, url: str, key: str, say: Callable[[str], None] = note):
        self._url, self._say = url, say
        self._headers = {"Authorization": f"Bearer {key}"}
        self._handle: str | None = None
        self._has_talked = False
        self.seen = 0

    async def connections(self) -> AsyncGenerator[StreamConnection, None]:
        """A connection, and another one each time it is lost; leave it before that, and there is no other.

        Raises:
            ClientError: the first attempt fails, or the server refuses the key.
        """
        attempt = 0
        while True:
            try:
                socket = await connect(
                    self._address(), additional_headers=self._headers, max_size=None, compression=None
                )
                try:
                    connection = await self._greeted(socket)
                    yield connection
                    attempt = 0
                    if connection.lost is None:
                        return
                    raise connection.lost
                finally:
                    # `async with connect()` would tell an interrupted client's server to wait for it (code 1011).
                    await socket.close()
            except NOT_CONNECTED as error:
                why = self._lost(error)
            attempt += 1
            wait_s = pause_s(attempt) * random.uniform(0.75, 1.0)
            self._say(f"{why}; trying again in {wait_s:.1f} s")
            await asyncio.sleep(wait_s)

    def _address(self) -> str:
        resume = {} if self._handle is None else {"resume": self._handle, "after": self.seen}
        return f"{self._url.replace('http', 'ws', 1)}/v1/stream?{urlencode(resume)}"

    async def _greeted(self, socket: ClientConnection) -> StreamConnection:
        said = await asyncio.wait_for(socket.recv(), GREETING_S)
        try:
            hello = json.loads(said)
            handle, seen = hello["handle"], hello["seq"]
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidMessage("its first message is no greeting") from error
        is_new = handle != self._handle
        if self._has_talked:
            self._say("connected again, " + ("in a new session: what was seen before is forgotten" if is_new else
                                             "in the same session"))  # fmt: skip
        self._handle, self.seen, self._has_talked = handle, seen, True
        return StreamConnection(socket, self, is_new=is_new)

    def _lost(self, error: Exception) -> str:
        why = explain(error, self._url)
        is_refused = isinstance(error, InvalidStatus) and error.response.status_code in (401, 403)
        if is_refused or not self._has_talked:
            raise ClientError(why) from error
        if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code in GONE:
            self._handle = None
        return why
