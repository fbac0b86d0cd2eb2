"""One session of a server, whatever its protocol: frames and questions in, events out, everything counted."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from inf_stream.base.clock import nanoseconds, seconds
from inf_stream.base.config import Settings
from inf_stream.base.errors import InfStreamError, SessionError
from inf_stream.base.events import (
    AnswerCancelled,
    AnswerFinished,
    FrameArrived,
    FrameDropped,
    FramesIngested,
    OutputEvent,
    Pixels,
    Question,
    QuestionAsked,
    TextArrived,
)
from inf_stream.base.events import Frame as StreamFrame
from inf_stream.base.state import State, StateCopy
from inf_stream.engine.protocol import CopyInParts
from inf_stream.server.sessions.engines import CacheUse, Memory, SessionOptions
from inf_stream.server.sessions.frame_ledger import FrameLedger
from inf_stream.server.sessions.lazy_engine import LazyEngine
from inf_stream.server.sessions.pace import RateLimit, StreamClock
from inf_stream.server.sessions.worker import Lane
from inf_stream.session.limits import SessionLimits
from inf_stream.session.loop import SessionLoop, Taker
from inf_stream.session.machine import FAILED
from inf_stream.session.outlast import outlast
from inf_stream.session.steps import Intake

ACCEPTED, DROPPED, ERROR = "accepted", "dropped", "error"
"""What becomes of a frame."""
TOO_FAST, ENDING, LOST = "rate", "ending", "lost"
"""Why a frame was dropped: it came before its time, or when the session took nothing in any more, or it waited when the
server ended without a word."""


@dataclass(frozen=True, slots=True)
class FrameSettled:
    """The one outcome of a frame: in the memory, dropped, or an error; `reason` says why, if it is not in it."""

    number: int
    at_ns: int
    outcome: str
    reason: str | None = None


SessionEvent: TypeAlias = OutputEvent | FrameSettled
Listener: TypeAlias = Callable[[SessionEvent], None]


class LiveSession:
    """A stream on an engine of its own, on the running event loop, which alone may use it.

    Every frame gets exactly one `FrameSettled`, every question one `AnswerFinished`, and `SessionClosed` comes last.
    While a question waits that is not `patient`, the session's steps go before those of others.

    Args:
        session_id: for logs and clients.
        engine: whose options can be changed until the first frame, text or question.
        lane: of the engine's thread.
        limits: of the queues.
        settings: of the server.
        listener: told everything that comes out, in order; must not block.
        clock_ns: any clock that does not run backwards.
    """

    def __init__(
        self,
        session_id: str,
        engine: LazyEngine,
        lane: Lane,
        limits: SessionLimits,
        settings: Settings,
        listener: Listener,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ):
        self.id = session_id
        self.has_begun = False
        self.failure: BaseException | None = None
        self._engine, self._lane, self._listener, self._clock_ns = engine, lane, listener, clock_ns
        lane.engine = engine
        self._opened_ns = clock_ns()
        self._clock = StreamClock(self._opened_ns)
        self._rate = RateLimit(settings.server.frames_per_second)
        self._loop = SessionLoop(engine, limits=limits, emit=self._heard, worker=lane, clock_ns=clock_ns)
        self._ending = asyncio.Event()
        self._frames = FrameLedger((ACCEPTED, DROPPED, ERROR))
        self._next_question = 0
        self._open_questions: set[str] = set()
        self._impatient: set[str] = set()
        self._engine_stats: Mapping[str, float | int | str] = {}
        self._lost_s = 0.0
        self._taker: Taker | None = None
        self._task = asyncio.create_task(self._run())

    # ---- in ----------------------------------------------------------------------------------------

    @property
    def options(self) -> SessionOptions:
        """What the engine was or will be made with."""
        return self._engine.options

    def configure(self, options: SessionOptions) -> None:
        """Change the options.

        Raises:
            SessionError: the stream has begun.
            InfStreamError: they are refused.
        """
        if self.has_begun:
            raise SessionError("the stream has begun; its memory and its system prompt cannot be changed any more")
        self._engine.configure(options)

    @property
    def takes_frames(self) -> bool:
        """Whether the session still takes something in."""
        return self._loop.machine.intake is Intake.OPEN

    def stamp(self, timestamp_ms: float | None) -> int:
        """Stream time of a frame or question that came now, see `StreamClock.stamp`.

        Raises:
            SessionError: the time is absurd.
        """
        return self._clock.stamp(self._clock_ns(), timestamp_ms)

    def now_ns(self) -> int:
        """Stream time now."""
        return self._clock.now(self._clock_ns())

    def number_frame(self) -> int:
        """The number of a frame that has just come; `frame` or `settle` must follow."""
        return self._frames.number(self.now_ns())

    def comes_too_fast(self) -> bool:
        """Whether the frame rate allows no frame now; a frame that is allowed counts."""
        return not self._rate.allows(self._clock_ns())

    def settle(self, number: int, at_ns: int, outcome: str, reason: str | None = None) -> None:
        """A numbered frame goes no further: say what became of it."""
        self._settled(FrameSettled(number, at_ns, outcome, reason))

    async def frame(self, number: int, pixels: Pixels, at_ns: int) -> None:
        """Queue a numbered frame under the rule of the limits; under WAIT, as soon as there is room."""
        self.has_begun = True
        self._frames.wait(number, at_ns)
        try:
            await self._loop.put(FrameArrived(StreamFrame(pixels, at_ns, number)))
        except SessionError:
            self.settle(number, at_ns, DROPPED, ENDING)

    async def text_in_turn(self, text: str, at_ns: int) -> None:
        """Queue streamed text as soon as there is room.

        Raises:
            SessionError: the session takes none any more.
        """
        self.has_begun = True
        await self._loop.put(TextArrived(text, at_ns))

    def new_question(
        self, text: str, *, max_tokens: int | None = None, aside: bool = False, expect: str | None = None
    ) -> Question:
        """A question for `ask`, with an id of its own."""
        self._next_question += 1
        return Question(f"{self.id}-{self._next_question}", text, self.stamp(None), max_tokens, aside, expect)

    def ask(self, question: Question, *, in_order: bool, patient: bool = False) -> None:
        """Queue a question; if there are too many, its `AnswerFinished` says so.

        Raises:
            SessionError: the session takes none any more.
        """
        self.has_begun = True
        self._open_questions.add(question.id)
        if not patient:
            self._impatient.add(question.id)
            self._lane.urgent = True
        try:
            self._loop.post(QuestionAsked(question, in_order))
        except SessionError:
            self._answered(question.id)
            raise

    def cancel(self, question_id: str) -> None:
        """Want no more of an answer, waiting or running; nothing happens if it has ended."""
        if question_id in self._open_questions:
            self._loop.post(AnswerCancelled(question_id))

    @property
    def was_ended(self) -> bool:
        """Whether somebody asked for the end."""
        return self._ending.is_set()

    def end(self) -> None:
        """Take nothing in any more, work off what waits, close."""
        self._ending.set()
        self._loop.end()

    def stop(self) -> None:
        """Close as soon as the step in flight is done."""
        self._ending.set()
        self._loop.stop()

    async def closed(self) -> None:
        """Wait until the session is closed, however often the waiting task is cancelled meanwhile."""
        cancelled = await outlast(self._task)
        if cancelled is not None:
            raise cancelled

    # ---- asked -------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is being worked on."""
        return not self._open_questions and self._frames.are_settled

    @property
    def frames_waiting(self) -> int:
        """Frames whose outcome is open."""
        return self._frames.waiting

    @property
    def open_questions(self) -> list[str]:
        """Ids of those whose `AnswerFinished` is to come."""
        return sorted(self._open_questions)

    @property
    def frames_received(self) -> int:
        """Frames that were numbered, and so the number of the next one."""
        return self._frames.received

    @property
    def lost_s(self) -> float:
        """Seconds of the stream that are not in the memory although they came: the server ended without a word."""
        return self._lost_s

    @property
    def questions_waiting(self) -> int:
        """Questions that are not answered yet, the one being answered among them."""
        return len(self._open_questions)

    @property
    def memory(self) -> Memory | None:
        """Which seconds of the stream are kept."""
        return self._engine.memory

    @property
    def use(self) -> CacheUse | None:
        """What the session holds; None before anything was taken in."""
        return self._engine.use

    def stats(self) -> dict[str, Any]:
        """Counts of the session and, as of its latest answer, of its engine."""
        return {
            "lost_s": round(self._lost_s, 3),
            "age_s": round(seconds(self._clock_ns() - self._opened_ns), 3),
            "stream_s": round(seconds(self.now_ns()), 3),
            "frames": self._frames.stats(),
            "questions_waiting": self.questions_waiting,
            "engine": dict(self._engine_stats),
        }

    # ---- kept on disk ------------------------------------------------------------------------------

    def copy_engine(self, taker: Taker) -> None:
        """Have the engine's state copied between two of its steps, see `SessionLoop.copy_state`.

        `taker` is told an error if the session has ended, or ends or breaks before that.
        """
        if self._task.done():
            taker(SessionError("the session has ended"))
            return
        self._taker = taker
        self._loop.copy_state(self._hand)

    def last_state(self) -> State:
        """The engine's state at the end, for any thread, until the engine is let go.

        Raises:
            SessionError: the engine broke in an answer.
        """
        assert self._task.done(), "a session that goes on is copied between two steps"
        return self._engine.state()

    def state(self) -> State:
        """What is counted here, and what of it is still open; the engine's state is beside it."""
        now_ns = self._clock_ns()
        return State.of(
            {"clock": self._clock.state(now_ns), "frames": self._frames.state()},
            id=self.id,
            options=dataclasses.asdict(self.options),
            has_begun=self.has_begun,
            age_ns=now_ns - self._opened_ns,
            questions=self._next_question,
            engine_stats=dict(self._engine_stats),
            lost_s=self._lost_s,
        )

    async def restore(self, engine: State, own: State, *, later_s: float, lost_s: float) -> None:
        """Go on where another session was; for one in which nothing has happened yet.

        Args:
            engine: as `copy_engine` or `last_state` gave it.
            own: as `state` gave it then.
            later_s: wall time since.
            lost_s: seconds of the stream since of which nothing is left.

        Raises:
            InfStreamError: it does not fit; nothing may be asked of this session then.
        """
        run = asyncio.get_running_loop().run_in_executor
        await run(self._lane, self._engine.restore, engine)
        now_ns = self._clock_ns()
        self._clock.restore(own.part("clock"), now_ns, nanoseconds(later_s))
        self.has_begun = own.fact("has_begun", bool)
        self._opened_ns = now_ns - own.count("age_ns")
        self._next_question = own.count("questions")
        self._frames.restore(own.part("frames"))
        self._engine_stats = own.fact("engine_stats", dict)
        self._lost_s = own.fact("lost_s", float) + lost_s

    def give_up_waiting(self) -> None:
        """Frames that waited when the session was saved will not come again: say so."""
        while self._frames.waiting:
            number, at_ns = self._frames.oldest()
            self.settle(number, at_ns, DROPPED, LOST)

    def let_go(self) -> None:
        """Free the engine's memory now that the session has ended and nobody wants its state.

        A session and its channel know each other: left to Python, the cache would be freed at some later time.
        """
        self._engine.let_go()

    # ---- inside ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._loop.run(self._wait_for_end)
        except Exception as error:  # noqa: BLE001 whoever listens learns of the end; `failure` says why
            self.failure = error
        finally:
            self._hand(SessionError("the session has ended"))

    def _hand(self, copy: CopyInParts | InfStreamError) -> None:
        taker, self._taker = self._taker, None
        if isinstance(copy, StateCopy):
            self._engine.copied(copy)
        if taker is not None:
            taker(copy)

    async def _wait_for_end(self) -> None:
        await self._ending.wait()

    def _heard(self, event: OutputEvent) -> None:
        match event:
            case FramesIngested(count):
                for _ in range(count):
                    number, at_ns = self._frames.oldest()
                    self._settled(FrameSettled(number, at_ns, ACCEPTED))
            case FrameDropped(number, at_ns, rule):
                self._settled(FrameSettled(number, at_ns, ERROR if rule == FAILED else DROPPED, rule))
            case AnswerFinished(question):
                self._engine_stats = event.stats or self._engine_stats
                self._answered(question.id)
        self._listener(event)

    def _settled(self, settled: FrameSettled) -> None:
        self._frames.settle(settled.number, settled.outcome, settled.reason)
        self._listener(settled)

    def _answered(self, question_id: str) -> None:
        self._open_questions.discard(question_id)
        self._impatient.discard(question_id)
        if not self._impatient:
            self._lane.urgent = False
