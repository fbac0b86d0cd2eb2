"""One conversation at a terminal: lines in, questions and orders out, Ctrl-C for whoever is talking."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

from inf_stream.app.memory_map import kept_in
from inf_stream.app.memory_picture import draw_memory_map
from inf_stream.app.outputs import require_memory_map
from inf_stream.app.questions import MOST_CHARACTERS
from inf_stream.app.reports import Report
from inf_stream.app.terminal import Lines
from inf_stream.app.text_report import stats_line
from inf_stream.base.clock import nanoseconds, seconds
from inf_stream.base.errors import InfStreamError
from inf_stream.base.events import (
    AnswerCancelled,
    AnswerFinished,
    AnswerStarted,
    FinishReason,
    FramesIngested,
    OutputEvent,
    Question,
    QuestionAsked,
)
from inf_stream.engine.engine import Engine
from inf_stream.session.loop import SessionLoop

HELP = (
    "/stats shows numbers, /map FILE.png draws the memory, /aside QUESTION leaves no trace in it, "
    "/cancel stops the answer, /quit leaves"
)


class Conversation:
    """Questions and orders of one user, while a session runs.

    Args:
        engine: for `/stats` and `/map`, asked on its own thread.
        worker: the engine's thread.
        report: where events are shown.
        prompt: called when it is the user's turn to type.
        one_by_one: ask the next question only after the last is answered (input that is piped in).
        clock: gives seconds; stream time of a conversation without a video.
    """

    def __init__(
        self,
        engine: Engine,
        worker: Executor,
        report: Report,
        *,
        prompt: Callable[[], None],
        one_by_one: bool,
        clock: Callable[[], float] = monotonic,
    ):
        self._engine, self._worker, self._report = engine, worker, report
        self._prompt, self._one_by_one, self._clock = prompt, one_by_one, clock
        self._began_s = clock() - seconds(engine.now_ns)
        self._video_ns: int | None = None
        self._numbers = count(1)
        self._open: list[str] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._cancelled = self._leaving = False
        self._begun: str | None = None
        self.left_by_interrupt = self.left_by_order = False

    def show(self, event: OutputEvent) -> None:
        """Follow the session, and show what it says."""
        self._report.show(event)
        match event:
            case FramesIngested(at_ns=at_ns):
                self._video_ns = at_ns
            case AnswerStarted(question):
                self._begun = question.id
            case AnswerFinished(question, reason=reason):
                self._open.remove(question.id)
                if reason is FinishReason.CANCELLED and self._begun != question.id and not self._leaving:
                    self._report.note("[cancelled]")
                if not self._open:
                    self._idle.set()
                    if not self._leaving:
                        self._prompt()

    def note(self, message: str) -> None:
        """Tell the user something."""
        self._report.note(message)

    def interrupt(self, leave: Callable[[], None]) -> None:
        """Ctrl-C: cancel what is being answered; with nothing to cancel, or a second time, `leave`."""
        if self._open and not self._cancelled:
            self._cancelled = True
            self._cancel_open()
            return
        self.left_by_interrupt = self._leaving = True
        leave()

    async def hold(self, session: SessionLoop, lines: Lines) -> None:
        """Take lines until `/quit` or the end of the input; the last questions are still answered."""
        self._session = session
        self._prompt()
        while (line := await lines.next()) is not None:
            line = line.strip()
            if line in ("/quit", "/exit"):
                self._leaving = self.left_by_order = True
                session.stop()
                return
            if line.startswith("/"):
                await self._obey(line)
            elif line:
                await self._ask(line)
            if not self._open:
                self._prompt()
        await self._idle.wait()

    async def _ask_aside(self, text: str) -> None:
        if not text:
            self._report.note("/aside needs a QUESTION behind it")
            return
        await self._ask(text, aside=True)

    async def _ask(self, text: str, *, aside: bool = False) -> None:
        if len(text) > MOST_CHARACTERS:
            self._report.note(f"this question has more than {MOST_CHARACTERS} characters; shorten it")
            return
        question = Question(f"q{next(self._numbers)}", text, self._now_ns(), aside=aside)
        self._cancelled = False
        self._open.append(question.id)
        self._idle.clear()
        self._session.post(QuestionAsked(question))
        if self._one_by_one:
            await self._idle.wait()

    async def _obey(self, line: str) -> None:
        order, _, argument = line.partition(" ")
        orders: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
            "/stats": self._show_stats,
            "/map": self._draw_map,
            "/cancel": self._cancel,
            "/aside": self._ask_aside,
        }
        if order not in orders:
            self._report.note(HELP if order == "/help" else f"'{order}' is not an order; {HELP}")
            return
        await orders[order](argument.strip())

    async def _show_stats(self, _argument: str) -> None:
        stats = await self._on_engine_thread(self._engine.stats)
        self._report.note(stats_line(stats), **stats)

    async def _draw_map(self, argument: str) -> None:
        path = Path(argument or "memory-map.png")
        try:
            require_memory_map(path)
            kept = await self._on_engine_thread(lambda: kept_in(self._engine.cache))
            await asyncio.get_running_loop().run_in_executor(None, draw_memory_map, kept, path)
        except InfStreamError as error:
            self._report.note(str(error))
            return
        self._report.note(f"memory map: {path}")

    async def _cancel(self, _argument: str) -> None:
        if not self._open:
            self._report.note("nothing is being answered")
        self._cancel_open()

    def _cancel_open(self) -> None:
        for question_id in list(self._open):
            self._session.post(AnswerCancelled(question_id))

    async def _on_engine_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    def _now_ns(self) -> int:
        return nanoseconds(self._clock() - self._began_s) if self._video_ns is None else self._video_ns
