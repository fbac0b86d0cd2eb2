"""A session, its client's protocol, and what the client is told, whether it is connected or not."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from inf_stream.base.config import Settings
from inf_stream.base.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    FinishReason,
    FramesIngested,
    Question,
    SessionClosed,
    Warned,
)
from inf_stream.base.state import State
from inf_stream.server.connections.frame_intake import FrameIntake
from inf_stream.server.connections.kept import Kept, Past
from inf_stream.server.connections.outbox import Outbox
from inf_stream.server.log import fields
from inf_stream.server.protocols.adapter import (
    GOING_AWAY,
    INTERNAL,
    NORMAL,
    POLICY,
    Adapter,
    DurableAdapter,
    HangUp,
    Message,
    Reply,
    TakeFrames,
)
from inf_stream.server.protocols.pictures import PictureDecoder
from inf_stream.server.protocols.watches import WatchLimits, Watchman
from inf_stream.server.sessions.hub import Hub
from inf_stream.server.sessions.live_session import LiveSession, SessionEvent
from inf_stream.session.answer import unanswered

_LOG = logging.getLogger(__name__)
_NS_PER_US = 1000
_NOTICE_S = 60.0
"""A silent client is told so long before, at most, that its session is about to end."""


@runtime_checkable
class Connection(Protocol):
    """What a channel may do with the connection that is attached to it."""

    def cut(self, code: int, reason: str) -> None:
        """Hang up at once, whatever still waits to be sent."""
        ...


@runtime_checkable
class Keeper(Protocol):
    """Who saves channels, so that their clients can come back to another server."""

    def hurry(self, channel: "Channel") -> None:
        """Save a channel soon."""
        ...

    async def ended(self, channel: "Channel") -> None:
        """The channel's session has ended: save it once more, unless it has ended for good; raises nothing."""
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
        protocol: its name; a session is resumed by its own protocol only.
        keeper: saves the channel, if its protocol is a `DurableAdapter`.
        handle: of a channel that is restored.
        past: that will be restored.

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
        *,
        protocol: str = "",
        keeper: Keeper | None = None,
        handle: str | None = None,
        past: Past | None = None,
    ):
        settings: Settings = hub.settings
        limits = settings.server
        self.protocol = protocol
        self.handle = handle or secrets.token_urlsafe(24)
        self.outbox = Outbox(limits.queue_messages)
        self.wake = asyncio.Event()
        self.hang_up: HangUp | None = None
        self.is_closed = False
        self.gone = asyncio.Event()
        self.is_changed, self.is_saved_whole = True, False
        self.heard_s = time.monotonic()
        self._limits, self._on_closed = limits, on_closed
        self._tasks, self._turn = tasks, asyncio.Lock()
        self._taking, self._is_sealed = 0, False
        watches = WatchLimits(limits.watches, limits.watch_interval_s, limits.text_characters)
        self.watchman = Watchman(watches)
        self.session = hub.open(
            self._heard,
            self._closed,
            options=None if past is None else past.options,
            session_id=None if past is None else past.session_id,
            at_end=self._at_end,
        )
        self.adapter = make_adapter(self.session, self.watchman, self.handle)
        self._frames = FrameIntake(self.session, decoder, sees=hub.maker.sees, say=self._say_all)
        self._kept: Kept | None = None
        if keeper is not None and isinstance(self.adapter, DurableAdapter):
            self._kept = Kept(self.session, self.watchman, self.adapter, self.outbox, protocol, self.handle)
        self._keeper = keeper
        self._connection: Connection | None = None
        self._away_since_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._past = past
        if past is None:
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
        if self.adapter.may_return(lost=lost) and self.hang_up is None:
            self._away_since_s = time.monotonic()
        if self._away_since_s is not None and self._limits.grace_s > 0:
            self._check_life()
            self._changed()
        else:
            self.stop(NORMAL, "the client has left")

    def resume(self, seen: int | None) -> list[str]:
        """A client is back that has seen message number `seen`; None: all that was sent.

        Returns what it is told first, before what it missed.

        Raises:
            SessionError: what it missed is not held any more.
        """
        seen = self.outbox.last_sent if seen is None else seen
        self.outbox.rewind(seen)
        return [self._coded(reply, seen) for reply in self.adapter.resumed() if isinstance(reply, dict)]

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
        self._taking += 1
        task = asyncio.create_task(self._take_in(data))
        self._tasks.add(task)
        task.add_done_callback(self._taken_in)
        await asyncio.shield(task)

    async def _take_in(self, data: str | bytes) -> None:
        async with self._turn:
            if self._is_sealed:
                return
            for reply in self.adapter.received(data):
                if isinstance(reply, TakeFrames):
                    await self._frames.take(reply, self.adapter)
                else:
                    self._say_all([reply])

    def _taken_in(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._taking -= 1
        self._changed()
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
        if not isinstance(event, SessionClosed):
            self._changed()

    def _ask_watches(self, at_ns: int) -> None:
        for watch in self.watchman.due(at_ns):
            question = self.session.new_question(
                watch.question, max_tokens=watch.max_tokens, aside=True, expect=watch.expect
            )
            self.watchman.asked(watch, question.id, at_ns)
            self.session.ask(question, in_order=False, patient=True)

    # ---- kept on disk ------------------------------------------------------------------------------

    @property
    def is_kept(self) -> bool:
        """Whether it can outlive the server."""
        return self._kept is not None

    @property
    def may_come_back(self) -> bool:
        """Whether its client can, and did not want the end: it neither took its leave nor was silent for too long."""
        unwanted = self.hang_up is None or self.hang_up.code != NORMAL or self._away_since_s is not None
        return unwanted and self.adapter.may_return(lost=True)

    @property
    def is_sound(self) -> bool:
        """Whether what it would keep at its end can be gone on with."""
        in_order = self.hang_up is not None and self.hang_up.code in (NORMAL, GOING_AWAY)
        return in_order and self.session.was_ended and self.session.failure is None

    def kept(self, engine: State) -> State:
        """All that is to be kept at this moment, beside the engine's state at this moment."""
        assert self._kept is not None, "others are not kept"
        state = self._kept.state(engine, all_sent=self.is_connected)
        is_quiet = not self.is_connected and not self._taking and self.session.is_idle
        self.is_changed, self.is_saved_whole = False, is_quiet or self._is_sealed
        return state

    async def last_kept(self) -> State:
        """The same at the end of the session; what comes from the client after this is not heard any more."""
        async with self._turn:
            self._is_sealed = True
            return self.kept(self.session.last_state())

    async def restore(self) -> None:
        """Go on where the channel of the past was.

        Raises:
            InfStreamError: it does not fit this server; the channel is of no use then.
        """
        past = self._past
        assert past is not None, "made with a past"
        assert self._kept is not None, "others were not kept"
        await self._kept.restore(past)
        if not past.is_whole:
            self._make_up(past)
        self._past = None
        self.is_saved_whole = past.is_whole
        self._check_life()

    def _make_up(self, past: Past) -> None:
        """Nobody knows what came after it was saved: leave no number used twice, and nothing open for ever."""
        self.outbox.leap(time.time_ns() // _NS_PER_US)
        self.session.give_up_waiting()
        for question_id in past.questions:
            question = Question(question_id, "", self.session.now_ns())
            lost = f"answer to question '{question_id}' is lost: the server was started again; ask again"
            self._heard(Warned(lost, question.at_ns))
            self._heard(unanswered(question, FinishReason.FAILED))

    def _changed(self) -> None:
        self.is_changed = True
        if self.is_kept and self._keeper is not None and not self.is_connected and self.session.is_idle:
            self._keeper.hurry(self)

    async def _at_end(self) -> None:
        if self.is_kept and self._keeper is not None and self._past is None:
            await self._keeper.ended(self)

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
        self.gone.set()
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
        """Tell a silent client in time that its session will end; returns when to look again."""
        early_s = left_s - min(_NOTICE_S, self._limits.idle_timeout_s / 2)
        if early_s > 0:
            return early_s
        self._say_all(self.adapter.ending(left_s))
        return left_s
