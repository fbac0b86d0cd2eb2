"""Many sessions on one model: one engine thread for all, admission by number and memory, one way to end them."""

import asyncio
import itertools
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from inf_stream.base.allocator import return_free_memory
from inf_stream.base.config import Settings
from inf_stream.base.events import AnswerFinished
from inf_stream.engine.stopwatch import Timer
from inf_stream.server.log import fields
from inf_stream.server.sessions.admission import REFUSALS, Admission, AdmissionError
from inf_stream.server.sessions.engines import EngineMaker, SessionOptions
from inf_stream.server.sessions.lazy_engine import LazyEngine
from inf_stream.server.sessions.live_session import Listener, LiveSession, SessionEvent
from inf_stream.server.sessions.worker import EngineWorker
from inf_stream.session.limits import SessionLimits
from inf_stream.session.queue import QueueRule

_LOG = logging.getLogger(__name__)
RETRY_S = 10.0
"""When it is worth asking again where nobody knows better."""


async def _nothing() -> None:
    """What is left to do at the end of most sessions."""


class Hub:
    """Opens sessions on the running event loop, and closes them.

    Args:
        maker: of engines.
        settings: of the server; `[source]` gives the queues of each session.
        timer: told how long each step of an engine took.
        observer: told everything that comes out of any session.
        retry_after_s: when a refused session is worth another try.
        clock_ns: handed on to sessions.

    Attributes:
        opened: sessions so far.
        refused: how many were not, by `AdmissionError.reason`.
    """

    def __init__(
        self,
        maker: EngineMaker,
        settings: Settings,
        *,
        timer: Timer = lambda _name, _s: None,
        observer: Listener = lambda _event: None,
        retry_after_s: Callable[[], float] = lambda: RETRY_S,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ):
        self.maker, self.settings = maker, settings
        self.admission = Admission(settings.server.sessions, maker.session_bytes, maker.free_bytes())
        self.worker = EngineWorker(most_together=settings.server.together)
        self.is_draining = False
        self.opened, self.refused = 0, Counter(dict.fromkeys(REFUSALS, 0))
        self.retry_after_s = retry_after_s
        self._timer, self._observer, self._clock_ns = timer, observer, clock_ns
        self._numbers = itertools.count(1)
        self._sessions: dict[str, LiveSession] = {}
        self._watchers: set[asyncio.Task[None]] = set()

    @property
    def sessions(self) -> list[LiveSession]:
        """Those that are open, oldest first."""
        return list(self._sessions.values())

    def open(
        self,
        listener: Listener,
        on_closed: Callable[[], None] = lambda: None,
        *,
        waits: bool = False,
        options: SessionOptions | None = None,
        session_id: str | None = None,
        at_end: Callable[[], Awaitable[None]] = _nothing,
    ) -> LiveSession:
        """A new session.

        Args:
            listener: told everything that comes out of it.
            on_closed: called once the session has ended and its place is free, whatever ended it.
            waits: frames wait for room, rather than being dropped by the rule for live sources, and are read in whole
                steps, so that the same frames give the same answers each time.
            options: can be changed until the stream begins.
            session_id: of one that is gone on with.
            at_end: awaited when the session has ended, before its engine is let go and its place is free.

        Raises:
            AdmissionError: there are too many, the memory does not suffice, or the server is about to stop.
            InfStreamError: the options are refused.
        """
        options = options or SessionOptions()
        self.maker.check(options)
        self._admit()
        source = self.settings.source
        limits = SessionLimits.from_settings(source, live=True)
        if waits:
            limits = SessionLimits(source.queue_frames, QueueRule.WAIT, source.queue_questions, full_steps=True)
        engine = LazyEngine(self.maker, options, self._timer)
        session_id = session_id or f"sess_{next(self._numbers)}{secrets.token_hex(6)}"
        assert session_id not in self._sessions, "an id is of one session"

        def listen(event: SessionEvent) -> None:
            self._observer(event)
            if isinstance(event, AnswerFinished):
                _log_answer(session_id, event)
            listener(event)

        session = LiveSession(
            session_id, engine, self.worker.lane(), limits, self.settings, listen, clock_ns=self._clock_ns
        )
        self._sessions[session_id] = session
        self.opened += 1
        watcher = asyncio.create_task(self._forget_when_closed(session, at_end, on_closed))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return session

    def require_going_on(self) -> None:
        """Refuse whoever comes to a server that is about to stop.

        Raises:
            AdmissionError: it is.
        """
        if self.is_draining:
            raise AdmissionError("the server is about to stop", "stopping", self.settings.server.drain_s)

    def _admit(self) -> None:
        try:
            self.require_going_on()
            self.admission.enter(self.maker.free_bytes(), self.retry_after_s())
        except AdmissionError as error:
            self.refused[error.reason] += 1
            facts = fields(reason=error.reason, sessions=self.admission.sessions, retry_after_s=error.retry_after_s)
            _LOG.info("session refused", extra=facts)
            raise

    async def close(self, patience_s: float = 0.0) -> None:
        """Take no session any more, let answers end for at most `patience_s`, then stop all, and the thread.

        May be called more than once.
        """
        self.is_draining = True
        for session in self.sessions:
            session.end()
        if self._watchers and patience_s > 0:
            await asyncio.wait(self._watchers, timeout=patience_s)
        for session in self.sessions:
            session.stop()
        if self._watchers:
            await asyncio.wait(self._watchers)
        await asyncio.get_running_loop().run_in_executor(None, self.worker.close)

    async def _forget_when_closed(
        self, session: LiveSession, at_end: Callable[[], Awaitable[None]], on_closed: Callable[[], None]
    ) -> None:
        await session.closed()
        if session.failure is not None:
            _LOG.error("session broken", extra=fields(session=session.id), exc_info=session.failure)
        try:
            await at_end()
        finally:
            session.let_go()
            self._sessions.pop(session.id, None)
            self.admission.leave()
            on_closed()
        if not self._sessions:  # so that no other session waits meanwhile
            await asyncio.get_running_loop().run_in_executor(None, return_free_memory)


def _log_answer(session_id: str, answer: AnswerFinished) -> None:
    speed = None if answer.tokens_per_s is None else round(answer.tokens_per_s, 1)
    ttft_s = None if answer.ttft_s is None else round(answer.ttft_s, 3)
    facts = {"reason": answer.reason.value, "tokens": answer.tokens, "ttft_s": ttft_s, "tokens_per_s": speed}
    question = {"question_id": answer.question.id, "aside": answer.question.aside}
    _LOG.info("answer finished", extra=fields(session=session_id, **question, **facts))
