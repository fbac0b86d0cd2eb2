"""A session, its client's protocol, and what the client is told, whether it is connected or not."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from inf_stream.base.config import Settings
from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import AnswerDelta, AnswerFinished, AnswerStarted, FramesIngested
from inf_stream.server.connections.outbox import Outbox
from inf_stream.server.log import fields
from inf_stream.server.protocols.adapter import (
    GOING_AWAY,
    INTERNAL,
    NORMAL,
    POLICY,
    Adapter,
    HangUp,
    Message,
    Reply,
    TakeFrames,
)
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.pictures import PictureDecoder, PictureError, count_pixels
from inf_stream.server.protocols.watches import WatchLimits, Watchman
from inf_stream.server.sessions.hub import Hub
from inf_stream.server.sessions.live_session import DROPPED, ERROR, TOO_FAST, LiveSession, SessionEvent

_LOG = logging.getLogger(__name__)
_NOTICE_S = 60.0
"""A silent client is told so long before, at most, that its session is about to end."""


@runtime_checkable
class Connection(Protocol):
    """What a channel may do with the connection that is attached to it."""

    def cut(self, code: int, reason: str) -> None:
        """Hang up at once, whatever still waits to be sent."""
        ...


MakeAdapter: TypeAlias = Callable[[LiveSession, Watchman, str], Adapter]
"""From a session, its watches, and the handle with which its client can come back."""


class Channel:
    """Lives as long as its session; connections come and go. On the running event loop alone.

    Args:
        hub: where the session is opened.
        decoder: of the client's images.
        make_adapter: the protocol.
        tasks: where messages that are being taken in are noted; they outlive their connection.
        on_closed: called once, when the session has closed.

    Raises:
        AdmissionError: no further session now.
    """

    def __init__(
        self,
        hub: Hub,
        decoder: PictureDecoder,
        make_adapter: MakeAdapter,
        tasks: "set[asyncio.Task[None]]",
        on_closed: Callable[["Channel"], None] = lambda _channel: None,
    ):
        settings: Settings = hub.settings
        limits = settings.server
        self.handle = secrets.token_urlsafe(24)
        self.outbox = Outbox(limits.queue_messages)
        self.wake = asyncio.Event()
        self.hang_up: HangUp | None = None
        self.is_closed = False
        self.heard_s = time.monotonic()
        self._limits, self._decoder, self._on_closed = limits, decoder, on_closed
        self._tasks, self._turn = tasks, asyncio.Lock()
        self._sees = hub.maker.sees
        watches = WatchLimits(limits.watches, limits.watch_interval_s, limits.text_characters)
        self.watchman = Watchman(watches)
        self.session = hub.open(self._heard, self._closed)
        self.adapter = make_adapter(self.session, self.watchman, self.handle)
        self._connection: Connection | None = None
        self._away_since_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._warned_of_s: float | None = None
        self._say_all(self.adapter.opened())
        self._check_life()

    # ---- connections -------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether a connection is attached now."""
        return self._connection is not None

    def attach(self, connection: Connection) -> None:
        """A connection takes the channel over, from another one if there is any."""
        if self._connection is not None:
            self._connection.cut(GOING_AWAY, "the session goes on in another connection")
        self._connection, self._away_since_s = connection, None
        self.heard_s = time.monotonic()
        self._check_life()
        self.wake.set()

    def detach(self, connection: Connection, *, lost: bool) -> None:
        """A connection has gone; unless its client may come back, that wants no more of the session."""
        if self._connection is not connection:
            return
        self._connection = None
        if self.adapter.may_return(lost=lost) and self._limits.grace_s > 0 and self.hang_up is None:
            self._away_since_s = time.monotonic()
            self._check_life()
        else:
            self.stop(NORMAL, "the client has left")

    def resume(self, seen: int | None) -> list[str]:
        """A client is back that has seen message number `seen`; None: all that was sent.

        Returns what it is told first, before what it missed.

        Raises:
            SessionError: what it missed is not held any more.
        """
        self.outbox.rewind(self.outbox.last_sent if seen is None else seen)
        replies = self.adapter.resumed()
        return [self._coded(reply, self.outbox.last_sent) for reply in replies if isinstance(reply, dict)]

    def ends_in_s(self, now_s: float) -> float:
        """How much longer the session lasts if its client stays away or, connected, says nothing."""
        if self._away_since_s is not None:
            return max(0.0, self._away_since_s + self._limits.grace_s - now_s)
        return max(0.0, self.heard_s + self._limits.idle_timeout_s - now_s)

    # ---- messages ----------------------------------------------------------------------------------

    async def receive(self, data: str | bytes) -> None:
        """Take in one message of the client; returns when its images are decoded.

        What has come is taken in to its end, although the connection may be lost meanwhile. A message that breaks the
        server breaks its session, and nothing else.
        """
        self.heard_s = time.monotonic()
        task = asyncio.create_task(self._take_in(data))
        self._tasks.add(task)
        task.add_done_callback(self._taken_in)
        await asyncio.shield(task)

    async def _take_in(self, data: str | bytes) -> None:
        async with self._turn:
            for reply in self.adapter.received(data):
                if isinstance(reply, TakeFrames):
                    await self._take_frames(reply)
                else:
                    self._say_all([reply])

    def _taken_in(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _LOG.error("session broken", extra=fields(session=self.session.id), exc_info=error)
            self._cut_off(INTERNAL, "the server failed; its log says more")

    def _say_all(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            assert not isinstance(reply, TakeFrames), "frames come from clients alone"
            if isinstance(reply, HangUp):
                self._refuse(reply)
            else:
                self._say(reply)

    def _say(self, message: Message) -> None:
        self.outbox.put(self._coded(message, self.outbox.last_number + 1))
        if self.outbox.overflowed:
            self._cut_off(POLICY, f"more than {self._limits.queue_messages} messages wait to be read")
        self.wake.set()

    def _coded(self, message: Message, number: int) -> str:
        return json.dumps(self.adapter.numbered(message, number), separators=(",", ":"))

    # ---- frames ------------------------------------------------------------------------------------

    async def _take_frames(self, frames: TakeFrames) -> None:
        session = self.session
        numbers = [session.number_frame() for _ in frames.images]
        try:
            if not self._sees:
                raise MessageError("the model reads text only; it takes no frames", code="unsupported_content")
            wanted = [not session.comes_too_fast() for _ in numbers]
            self._check_pixels([data for data, take in zip(frames.images, wanted, strict=True) if take])
            times_ns = [session.stamp(stamp) for stamp in frames.timestamps_ms]
            run = asyncio.get_running_loop().run_in_executor
            pictures = [
                await run(self._decoder.pool, self._decoder.decode, data) if take else None
                for data, take in zip(frames.images, wanted, strict=True)
            ]
        except InfStreamError as refused:
            error = refused if isinstance(refused, MessageError) else MessageError(str(refused), param="timestamp_ms")
            for number in numbers:
                session.settle(number, session.now_ns(), ERROR, error.code)
            self._say_all(self.adapter.frames_refused(frames.tag, error))
            return
        for number, picture, at_ns in zip(numbers, pictures, times_ns, strict=True):
            if picture is None:
                session.settle(number, at_ns, DROPPED, TOO_FAST)
            else:
                await session.frame(number, picture, at_ns)
        self._say_all(self.adapter.frames_taken(frames.tag, numbers))

    def _check_pixels(self, images: Sequence[bytes]) -> None:
        most = self._limits.frame_pixels
        if sum(count_pixels(data, most) for data in images) > most:
            raise PictureError(f"the images of one message have more than {most} pixels; send them one by one",
                               code="image_too_large")  # fmt: skip

    # ---- what comes out of the session -------------------------------------------------------------

    def _heard(self, event: SessionEvent) -> None:
        match event:
            case AnswerStarted(question) if self.watchman.knows(question.id):
                pass
            case AnswerDelta(question_id) if self.watchman.knows(question_id):
                pass
            case AnswerFinished(question) if self.watchman.knows(question.id):
                alert = self.watchman.answered(event)
                if alert is not None:
                    self._say_all(self.adapter.alerted(alert))
            case _:
                self._say_all(self.adapter.emitted(event))
        if isinstance(event, FramesIngested) and self.session.takes_frames:
            self._ask_watches(event.at_ns)

    def _ask_watches(self, at_ns: int) -> None:
        for watch in self.watchman.due(at_ns):
            question = self.session.new_question(watch.question, max_tokens=watch.max_tokens, aside=True)
            self.watchman.asked(watch, question.id, at_ns)
            self.session.ask(question, in_order=False, patient=True)

    # ---- life --------------------------------------------------------------------------------------

    def end(self, code: int, reason: str, patience_s: float) -> None:
        """Let the answers end, for which they have so long, then hang up."""
        if self.hang_up is None:
            self._say_all(self.adapter.ending(patience_s))
        self.hang_up = self.hang_up or HangUp(code, reason)
        self.session.end()

    def stop(self, code: int, reason: str) -> None:
        """Hang up, and end the session as soon as may be."""
        self.hang_up = self.hang_up or HangUp(code, reason)
        self.session.stop()
        self.wake.set()

    def _cut_off(self, code: int, reason: str) -> None:
        self.stop(code, reason)
        if self._connection is not None:
            self._connection.cut(code, reason)

    def _refuse(self, wanted: HangUp) -> None:
        if not self.adapter.may_return(lost=False):
            self._cut_off(wanted.code, wanted.reason)
        elif self._connection is not None:
            self._connection.cut(wanted.code, wanted.reason)

    def _closed(self) -> None:
        if not self.session.was_ended:
            self.hang_up = HangUp(INTERNAL, "the session broke; the server's log says more")
        self.hang_up = self.hang_up or HangUp(NORMAL, "the session has ended")
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_closed(self)
        self.wake.set()

    def _check_life(self) -> None:
        """Stop the session if its client was silent or away for too long; else look again when that may be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left_s = self.ends_in_s(time.monotonic())
        is_away = self._away_since_s is not None
        if left_s <= 0:
            why = "the client did not come back" if is_away else f"nothing came for {self._limits.idle_timeout_s:g} s"
            self.stop(NORMAL, why)
            return
        pause_s = left_s if is_away else self._give_notice(left_s)
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._check_life)

    def _give_notice(self, left_s: float) -> float:
        """Tell a silent client that its session will end, once, in time; returns when to look again."""
        early_s = left_s - min(_NOTICE_S, self._limits.idle_timeout_s / 2)
        if early_s > 0:
            return early_s
        if self._warned_of_s != self.heard_s:
            self._warned_of_s = self.heard_s
            self._say_all(self.adapter.ending(left_s))
        return left_s
