"""All channels of a server: opened, found again by their handle, ended together."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

from inf_stream.base.errors import InfStreamError, SessionError
from inf_stream.server.connections.channel import Channel, MakeAdapter
from inf_stream.server.connections.session_keeper import SessionKeeper, require_protocol
from inf_stream.server.connections.state_folder import NO_SESSION
from inf_stream.server.log import fields
from inf_stream.server.protocols.adapter import GOING_AWAY, POLICY
from inf_stream.server.protocols.pictures import PictureDecoder
from inf_stream.server.sessions.admission import AdmissionError
from inf_stream.server.sessions.hub import RETRY_S, Hub
from inf_stream.server.sessions.live_session import ACCEPTED, DROPPED, ERROR

_LOG = logging.getLogger(__name__)


class Channels:
    """The channels of one hub.

    Args:
        hub: of the sessions.
        decoder: of images.
        on_closed: told each channel that has closed.
        keeper: of sessions that outlive the server; None if they end with it.
    """

    def __init__(
        self,
        hub: Hub,
        decoder: PictureDecoder,
        on_closed: Callable[[Channel], None] = lambda _channel: None,
        keeper: SessionKeeper | None = None,
    ):
        self._hub, self._decoder, self._on_closed, self._keeper = hub, decoder, on_closed, keeper
        self._restoring = asyncio.Lock()
        self._channels: dict[str, Channel] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Channel]:
        return iter(list(self._channels.values()))

    def __len__(self) -> int:
        return len(self._channels)

    def open(self, make_adapter: MakeAdapter, protocol: str = "") -> Channel:
        """A new session and its channel, which can be resumed by the same protocol only.

        Raises:
            AdmissionError: no further session now.
        """
        channel = Channel(
            self._hub, self._decoder, make_adapter, self._tasks, self._closed, protocol=protocol, keeper=self._keeper
        )
        self._channels[channel.handle] = channel
        if self._keeper is not None and channel.is_kept:
            self._keeper.add(channel)
        _LOG.info("session opened", extra=fields(session=channel.session.id, sessions=self._hub.admission.sessions))
        return channel

    def find(self, handle: str) -> Channel:
        """The channel with a handle that a client gave.

        Raises:
            SessionError: there is none, or it is about to close.
        """
        channel = self._channels.get(handle)
        if channel is None or channel.hang_up is not None:
            raise SessionError(NO_SESSION)
        return channel

    async def resume(self, handle: str, make_adapter: MakeAdapter, protocol: str = "") -> Channel:
        """The channel with a handle that a client gave: one that is there, or one that was saved.

        Raises:
            SessionError: there is none, it is about to close, or it speaks another protocol.
            InfStreamError: it was saved, but cannot be gone on with.
            AdmissionError: there is no place for it now.
        """
        if self._keeper is None:
            channel = self.find(handle)
            require_protocol(channel.protocol, protocol)
            return channel
        self._hub.require_going_on()
        leaving = self._channels.get(handle)
        if leaving is not None and leaving.hang_up is not None and leaving.may_come_back:
            await leaving.gone.wait()  # until then it is being saved
        if handle not in self._channels:
            async with self._restoring:  # one at a time, so that one state is in memory, and never two of a session
                if handle not in self._channels:
                    await self._restore(self._keeper, handle, make_adapter, protocol)
        channel = self.find(handle)
        require_protocol(channel.protocol, protocol)
        while channel.is_saved_whole:
            await self._keeper.reopen(channel)
        return self.find(handle)

    async def _restore(self, keeper: SessionKeeper, handle: str, make_adapter: MakeAdapter, protocol: str) -> None:
        try:
            past = await keeper.find(handle, protocol)
            channel = Channel(
                self._hub,
                self._decoder,
                make_adapter,
                self._tasks,
                self._closed,
                protocol=protocol,
                keeper=keeper,
                handle=handle,
                past=past,
            )
            try:
                await channel.restore()
                self._hub.require_going_on()
            except BaseException:
                channel.stop(POLICY, "the saved session could not be gone on with")
                raise
        except (AdmissionError, SessionError):
            raise
        except InfStreamError as error:
            keeper.refused(error)
            raise
        self._channels[handle] = channel
        keeper.add(channel)
        facts = {"lost_s": round(channel.session.lost_s, 3), "sessions": self._hub.admission.sessions}
        _LOG.info("session restored", extra=fields(session=channel.session.id, **facts))

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
        facts = {"code": channel.hang_up.code, "reason": channel.hang_up.logged, "age_s": stats["age_s"]}
        _LOG.info("session closed", extra=fields(session=channel.session.id, **facts, **counts))
        self._on_closed(channel)
