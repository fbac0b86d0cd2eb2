"""When sessions are saved: now and then, when their client is lost, and at their end."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from inf_stream.base.errors import InfStreamError, SessionError
from inf_stream.base.state import State, StateCopy
from inf_stream.engine.protocol import CopyInParts
from inf_stream.server.connections.channel import Channel
from inf_stream.server.connections.kept import Past
from inf_stream.server.connections.state_folder import StateFolder, name_of
from inf_stream.server.log import fields

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
SAVED, FAILED, REFUSED, EXPIRED = OUTCOMES = "saved", "failed", "refused", "expired"
"""What is counted."""
_SWEEP_S = 60.0


class SessionKeeper:
    """Saves channels into a folder (`inf_stream.server.connections.channel.Keeper`), and finds them again.

    Of a session that goes on the engine's thread makes a copy, in parts, between two of its steps; it is hashed and
    written on a thread of its own, which alone touches the folder. One such session is saved at a time, and one that
    has ended: there are two copies in memory at most. A save that fails is logged, counted and tried again; nothing
    else stops. On the running event loop alone.

    Args:
        folder: closed by whoever opened it.
        every_s: wall time between two saves of a session in which something happened.
        count: told `SAVED`, `FAILED`, `REFUSED` (to be gone on with) or `EXPIRED` each time.
    """

    def __init__(self, folder: StateFolder, every_s: float, count: Callable[[str], None] = lambda _what: None):
        self._folder, self._every_s, self._count = folder, every_s, count
        self._files = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inf-stream-saving")
        self._due_s: dict[Channel, float] = {}
        self._wake = asyncio.Event()
        self._swept_s = time.monotonic()
        self._task = asyncio.create_task(self._run())

    # ---- channels ----------------------------------------------------------------------------------

    def add(self, channel: Channel) -> None:
        """Save this channel from now on."""
        self._due_s[channel] = time.monotonic() + self._every_s
        self._wake.set()

    def hurry(self, channel: Channel) -> None:
        """Save a channel soon."""
        if channel in self._due_s:
            self._due_s[channel] = 0.0
            self._wake.set()

    async def ended(self, channel: Channel) -> None:
        """The channel's session has ended: save it once more, or remove it if it has ended for good."""
        self._due_s.pop(channel, None)
        try:
            if not channel.may_come_back:
                await self._on_files(lambda: self._folder.remove(name_of(channel.handle)))
            elif channel.is_sound and not (channel.is_saved_whole and not channel.is_changed):
                state = await channel.last_kept()
                await self._write(channel, lambda: state.on_cpu())
        except Exception as error:  # noqa: BLE001 a session's end must not wait for ever
            self._failed(channel, error)

    # ---- going on ----------------------------------------------------------------------------------

    async def find(self, handle: str, protocol: str) -> Past:
        """The saved session with a handle that a client gave, for a protocol.

        Raises:
            SessionError: there is none, it has expired, or it speaks another protocol.
            StateError: it cannot be used.
        """
        state, is_whole = await self._on_files(lambda: self._folder.read(handle))
        past = Past.of(state, is_whole=is_whole)
        require_protocol(past.protocol, protocol)
        return past

    async def reopen(self, channel: Channel) -> None:
        """Before its client is listened to again: what it will say is not in what was saved."""
        channel.is_changed, channel.is_saved_whole = True, False
        try:
            await self._on_files(lambda: self._folder.reopen(name_of(channel.handle)))
        except OSError as error:
            self._failed(channel, error)

    def refused(self, error: InfStreamError) -> None:
        """A saved session could not be gone on with."""
        _LOG.warning("session not restored", extra=fields(reason=str(error)))
        self._count(REFUSED)

    async def close(self) -> None:
        """Save no more; what is being written is waited for."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, self._files.shutdown)

    # ---- now and then ------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._wait()
            channel = self._next()
            try:
                await self._sweep()
                if channel is not None:
                    await self._save(channel)
            except Exception as error:  # noqa: BLE001 logged and counted; the next one may do better
                self._failed(channel, error)

    async def _wait(self) -> None:
        self._wake.clear()
        left_s = min([*self._due_s.values(), self._swept_s + _SWEEP_S]) - time.monotonic()
        if left_s > 0:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left_s)

    def _next(self) -> Channel | None:
        """One that is due; those that write no answer go first, since others are copied when it is written."""
        now_s = time.monotonic()
        due = [channel for channel, due_s in self._due_s.items() if due_s <= now_s]
        return min(due, key=lambda c: (bool(c.session.open_questions), self._due_s[c]), default=None)

    async def _save(self, channel: Channel) -> None:
        self._due_s[channel] = time.monotonic() + self._every_s
        if not channel.is_changed or not channel.may_come_back:
            return
        kept: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        spent_s = 0.0

        def take(copy: CopyInParts | InfStreamError) -> None:
            nonlocal spent_s
            if kept.done():
                return
            try:
                if isinstance(copy, InfStreamError):
                    raise copy
                assert isinstance(copy, StateCopy), "made by `inf_stream.engine.saved`"
                spent_s = sum(copy.parts_s)
                kept.set_result(channel.kept(copy.state))
            except Exception as error:  # noqa: BLE001 raised where it is waited for
                kept.set_exception(error)

        channel.session.copy_engine(take)
        try:
            state = await kept
        except SessionError:
            return  # it ends, and is saved once more
        if channel in self._due_s:
            await self._write(channel, lambda: state, spent_s)

    async def _write(self, channel: Channel, state: Callable[[], State], copied_s: float = 0.0) -> None:
        name, is_whole, held = name_of(channel.handle), channel.is_saved_whole, {name_of(c.handle) for c in self._due_s}
        began_s = time.monotonic()
        try:
            size_bytes = await self._on_files(lambda: self._folder.write(name, state(), is_whole=is_whole, held=held))
        except BaseException:
            channel.is_changed, channel.is_saved_whole = True, False
            raise
        spent = {"copied_s": round(copied_s, 4), "written_s": round(time.monotonic() - began_s, 4)}
        _LOG.info("session saved", extra=fields(session=channel.session.id, bytes=size_bytes, whole=is_whole, **spent))
        self._count(SAVED)

    async def _sweep(self) -> None:
        if time.monotonic() < self._swept_s + _SWEEP_S:
            return
        self._swept_s = time.monotonic()
        held = {name_of(channel.handle) for channel in self._due_s}
        for _ in range(await self._on_files(lambda: self._folder.sweep(held))):
            self._count(EXPIRED)

    # ---- inside ------------------------------------------------------------------------------------

    def _failed(self, channel: Channel | None, error: Exception) -> None:
        session_id = None if channel is None else channel.session.id
        unexpected = None if isinstance(error, InfStreamError | OSError) else error
        _LOG.error("session not saved", extra=fields(session=session_id, reason=str(error)), exc_info=unexpected)
        self._count(FAILED)

    async def _on_files(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, work)


def require_protocol(spoken: str, wanted: str) -> None:
    """A session goes on in its own protocol only.

    Raises:
        SessionError: it is another.
    """
    if spoken != wanted:
        raise SessionError(f"this handle is of a session that speaks '{spoken}'; connect where that is spoken")
