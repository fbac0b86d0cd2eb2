"""All channels of a server: opened, found again by their handle, ended together."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

from inf_stream.base.errors import SessionError
from inf_stream.server.connections.channel import Channel, MakeAdapter
from inf_stream.server.log import fields
from inf_stream.server.protocols.adapter import GOING_AWAY
from inf_stream.server.protocols.pictures import PictureDecoder
from inf_stream.server.sessions.hub import RETRY_S, Hub
from inf_stream.server.sessions.live_session import ACCEPTED, DROPPED, ERROR

_LOG = logging.getLogger(__name__)


class Channels:
    """The channels of one hub.

    Args:
        hub: of the sessions.
        decoder: of images.
        on_closed: told each channel that has closed.
    """

    def __init__(self, hub: Hub, decoder: PictureDecoder, on_closed: Callable[[Channel], None] = lambda _channel: None):
        self._hub, self._decoder, self._on_closed = hub, decoder, on_closed
        self._channels: dict[str, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Channel]:
        return iter(list(self._channels.values()))

    def __len__(self) -> int:
        return len(self._channels)

    def open(self, make_adapter: MakeAdapter) -> Channel:
        """A new session and its channel.

        Raises:
            AdmissionError: no further session now.
        """
        channel = Channel(self._hub, self._decoder, make_adapter, self._tasks, self._closed)
        self._channels[channel.handle] = channel
        _LOG.info("session opened", extra=fields(session=channel.session.id, sessions=self._hub.admission.sessions))
        return channel

    def find(self, handle: str) -> Channel:
        """The channel with a handle that a client gave.

        Raises:
            SessionError: there is none, or it is about to close.
        """
        channel = self._channels.get(handle)
        if channel is None or channel.hang_up is not None:
            raise SessionError("no session has this handle, or it has ended; open a new one")
        return channel

    def retry_after_s(self) -> float:
        """When a place may become free: as soon as the session of a lost or silent client is given up.

        While every client is there, or a plain request is being answered, one may be done at any time.
        """
        now_s = time.monotonic()
        ends_s = [channel.ends_in_s(now_s) for channel in self]
        if all(channel.is_connected for channel in self) or len(self) < self._hub.admission.sessions:
            ends_s.append(RETRY_S)
        return min(ends_s)

    async def drain(self, patience_s: float) -> None:
        """Let all answers end for at most `patience_s`, then end the rest; the hub is closed afterwards."""
        self._hub.is_draining = True
        for channel in self:
            channel.end(GOING_AWAY, "the server stops", patience_s)
        await self._hub.close(patience_s)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _closed(self, channel: Channel) -> None:
        self._channels.pop(channel.handle, None)
        assert channel.hang_up is not None, "a closed channel says why"
        stats = channel.session.stats()
        counts = {f"frames_{outcome}": stats["frames"][outcome] for outcome in (ACCEPTED, DROPPED, ERROR)}
        facts = {"code": channel.hang_up.code, "reason": channel.hang_up.reason, "age_s": stats["age_s"]}
        _LOG.info("session closed", extra=fields(session=channel.session.id, **facts, **counts))
        self._on_closed(channel)
