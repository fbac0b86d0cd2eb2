"""WebSocket connections: bytes between a client and its channel, pings, close codes, clients that do not read."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeAlias

from aiohttp import WebSocketError, WSMsgType, web

from inf_stream.base.errors import InfStreamError, SessionError
from inf_stream.server.connections.channel import Channel, MakeAdapter
from inf_stream.server.connections.channels import Channels
from inf_stream.server.log import fields
from inf_stream.server.protocols.adapter import INTERNAL, INVALID, NORMAL, POLICY, TRY_LATER, HangUp
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.sessions.admission import AdmissionError

_LOG = logging.getLogger(__name__)
_CLOSE_S = 2.0
"""Longest wait for a client to take notice that the connection is closed."""
_MOST_REASON_BYTES = 123
LOST = HangUp(1006, "the connection was lost")
"""Stands for the end of a connection on which nobody said goodbye (RFC 6455, section 7.1.5)."""

Return: TypeAlias = tuple[str, int | None]
"""The handle of a session that a client comes back to, and the last message it has seen, or None for all sent."""
ReadFirst: TypeAlias = Callable[[str | bytes], Return | None]
"""From the first message of a client, for protocols in which that says whether it comes back; raises `MessageError`."""


class SocketConnection:
    """One connection on a channel, from its upgrade to its end (`inf_stream.server.connections.channel.Connection`).

    What the client sends is taken in one message after the other: while the images of one are decoded, the next one
    waits in the network, so that nothing piles up here.
    """

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.BaseTransport | None, channel: Channel):
        self._socket, self._transport, self._channel = socket, transport, channel
        self._cut: tuple[int, str] | None = None
        self._said: HangUp | None = None
        self._is_cut = asyncio.Event()

    def cut(self, code: int, reason: str) -> None:
        """Hang up at once."""
        self._cut = self._cut or (code, reason)
        self._said = self._said or HangUp(code, reason)
        self._is_cut.set()

    async def run(self, greeting: list[str], first: str | bytes | None) -> HangUp:
        """Talk until either side hangs up; returns how. `greeting` goes first, and `first` has come already."""
        channel, was_cancelled = self._channel, True
        reading = asyncio.create_task(self._read(first))
        writing = asyncio.create_task(self._write(greeting))
        cutting = asyncio.create_task(self._is_cut.wait())
        tasks = {reading, writing, cutting}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            was_cancelled = False
        finally:
            is_lost = was_cancelled or self._cut is not None or self._socket.close_code != NORMAL
            if writing.done() and not writing.cancelled() and writing.exception() is None:
                is_lost = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            channel.detach(self, lost=is_lost)
            if self._cut is not None:
                await self._close(*self._cut)
            self._let_go()
        return self._said or self._heard()

    def _heard(self) -> HangUp:
        """How the client hung up, if it did."""
        code = self._socket.close_code
        return LOST if code is None or code == LOST.code else HangUp(int(code), "the client hung up")

    def _let_go(self) -> None:
        """Whoever does not read what was sent keeps no socket here."""
        transport = self._transport
        if isinstance(transport, asyncio.Transport) and (self._cut is not None or _unsent_bytes(transport)):
            transport.abort()

    async def _read(self, first: str | bytes | None) -> None:
        if first is not None:
            await self._channel.receive(first)
        async for message in self._socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._channel.receive(message.data)
                await asyncio.sleep(0)  # a client with much to say leaves others their turn
            elif isinstance(message.data, WebSocketError):
                self._said = HangUp(message.data.code, str(message.data))

    async def _write(self, greeting: list[str]) -> None:
        """Ends by itself when the channel has closed and all was sent."""
        channel = self._channel
        for text in greeting:
            await self._socket.send_str(text)
        while not self._is_cut.is_set():  # from then on, what waits is for another connection
            waiting = channel.outbox.take()
            if waiting is not None:
                await self._socket.send_str(waiting)
            elif channel.is_closed:
                assert channel.hang_up is not None, "a closed channel says why"
                self._said = channel.hang_up
                await self._close(channel.hang_up.code, channel.hang_up.reason)
                return
            else:
                channel.wake.clear()
                await channel.wake.wait()

    async def _close(self, code: int, reason: str) -> None:
        """As well as a client that may not read lets one; in a task of its own, which aiohttp may cancel at will."""
        closing = asyncio.create_task(close(self._socket, code, reason))
        await asyncio.wait({closing}, timeout=_CLOSE_S)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)


def _unsent_bytes(transport: asyncio.Transport) -> int:
    """What still waits to be sent; nothing if the connection is gone, which asyncio's TLS transports cannot say."""
    try:
        return transport.get_write_buffer_size()
    except AttributeError:
        return 0


class SocketDoor:
    """Takes WebSocket connections in.

    Args:
        channels: of the server.
        message_bytes: longest message of a client.
        ping_s: a silent client is asked so often; one that does not answer within half of that is gone.
        patience_s: for the first message, where that says whether a client comes back.
        on_closed: told how each connection ended.
    """

    def __init__(
        self,
        channels: Channels,
        *,
        message_bytes: int,
        ping_s: float,
        patience_s: float,
        on_closed: Callable[[HangUp], None] = lambda _end: None,
    ):
        self._channels, self._message_bytes, self._ping_s = channels, message_bytes, ping_s
        self._patience_s, self._on_closed = patience_s, on_closed

    async def serve(
        self,
        request: web.Request,
        subprotocol: str,
        make_adapter: MakeAdapter,
        read_first: ReadFirst | None = None,
    ) -> web.WebSocketResponse:
        """One connection, from its upgrade to its end.

        `?resume=HANDLE&after=N` goes on with a session, unless the first message says so, by `read_first`.
        """
        socket = web.WebSocketResponse(
            protocols=(subprotocol,),
            heartbeat=self._ping_s,
            max_msg_size=self._message_bytes,
            compress=False,
            timeout=_CLOSE_S,
        )
        await socket.prepare(request)
        end, is_over, session_id = LOST, False, None
        try:
            first, back = (None, _return_of(request)) if read_first is None else await self._first(socket, read_first)
            if back is None:
                channel = self._channels.open(make_adapter, subprotocol)
            else:
                channel = await self._channels.resume(back[0], make_adapter, subprotocol)
            session_id = channel.session.id
            end, is_over = await self._talk(request, socket, channel, back, first), True
        except AdmissionError as error:
            end = HangUp(TRY_LATER, str(error))
        except MessageError as error:
            end = HangUp(INVALID, str(error))
        except InfStreamError as error:
            end = HangUp(POLICY, str(error))
        except Exception:  # noqa: BLE001 after the upgrade nobody else can tell the client
            _LOG.exception("connection failed", extra=fields(path=request.path))
            end = HangUp(INTERNAL, "the server failed; its log says more")
        finally:
            self._on_closed(end)
            facts = {"path": request.path, "code": end.code, "reason": end.logged}
            _LOG.info("connection closed", extra=fields(session=session_id, **facts))
        if not is_over:
            await close(socket, end.code, end.reason)
        return socket

    async def _talk(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        channel: Channel,
        back: Return | None,
        first: str | bytes | None,
    ) -> HangUp:
        connection = SocketConnection(socket, request.transport, channel)
        greeting: list[str] = []
        facts = {"path": request.path, "remote": request.remote, "resumed": back is not None}
        _LOG.info("connection opened", extra=fields(session=channel.session.id, **facts))
        channel.attach(connection)
        try:
            if back is not None:
                greeting = channel.resume(back[1])
        except InfStreamError:
            channel.detach(connection, lost=True)
            raise
        return await connection.run(greeting, first)

    async def _first(self, socket: web.WebSocketResponse, read_first: ReadFirst) -> tuple[str | bytes, Return | None]:
        """The first message, and whether it says that its client comes back."""
        try:
            message = await asyncio.wait_for(socket.receive(), self._patience_s)
        except asyncio.TimeoutError:
            raise SessionError(f"no first message came within {self._patience_s:g} s") from None
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            raise SessionError("the client has left before its first message")
        first: str | bytes = message.data
        return first, read_first(first)


def _return_of(request: web.Request) -> Return | None:
    handle, after = request.query.get("resume"), request.query.get("after")
    if handle is None:
        return None
    digits = "" if after is None else after.removeprefix("event_")
    if after is not None and (not digits.isascii() or not digits.isdigit() or len(digits) > 18):
        raise SessionError("'after' is no number of a message; give the last event_id or seq you have seen")
    return handle, int(digits) if digits else None


async def close(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    """Close with a code and a reason, shortened to what the protocol allows."""
    await socket.close(code=code, message=reason.encode()[:_MOST_REASON_BYTES].decode(errors="ignore").encode())
