"""Connections before they are requests: at most so many, and none that takes for ever to say what it wants."""

import asyncio
from collections.abc import Callable
from typing import cast


class Doorkeeper:
    """Makes the protocols of a listening socket; a connection over the limit, or one that is too slow, is aborted.

    A connection is too slow if it has not brought a whole request `patience_s` after it was made (slow-loris). Whoever
    handles requests says by `let_in` that one has come.

    Args:
        make: makes the protocol that does the work.
        most: connections at once.
        patience_s: for the first request's head.
    """

    def __init__(self, make: Callable[[], asyncio.BaseProtocol], most: int, patience_s: float):
        self._make, self._most, self._patience_s = make, most, patience_s
        self._timers: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}
        self._open = 0

    @property
    def connections(self) -> int:
        """Those that are open."""
        return self._open

    def __call__(self) -> asyncio.Protocol:
        """The protocol of one more connection."""
        return _Watched(self, cast(asyncio.Protocol, self._make()))

    def let_in(self, transport: asyncio.BaseTransport | None) -> None:
        """A whole request's head has come on this connection."""
        timer = None if transport is None else self._timers.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def entered(self, transport: asyncio.Transport) -> bool:
        """A connection was made; whether it may stay."""
        self._open += 1
        if self._open > self._most:
            transport.abort()
            return False
        self._timers[transport] = asyncio.get_running_loop().call_later(self._patience_s, self._send_off, transport)
        return True

    def left(self, transport: asyncio.BaseTransport | None) -> None:
        """A connection is gone."""
        self._open -= 1
        self.let_in(transport)

    def _send_off(self, transport: asyncio.Transport) -> None:
        self._timers.pop(transport, None)
        transport.abort()


class _Watched(asyncio.Protocol):
    """Hands everything on to the protocol that does the work, once the connection may stay."""

    def __init__(self, keeper: Doorkeeper, inner: asyncio.Protocol):
        self._keeper, self._inner = keeper, inner
        self._transport: asyncio.BaseTransport | None = None
        self._stays = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._stays = self._keeper.entered(cast(asyncio.Transport, transport))
        if self._stays:
            self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.left(self._transport)
        if self._stays:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._stays:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._stays else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
