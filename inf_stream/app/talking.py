"""A conversation without end, beside a video or without one, with the model it takes."""

import asyncio
import dataclasses
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from inf_stream.app.chat import ChatRequest
from inf_stream.app.conversation import HELP, Conversation
from inf_stream.app.guard import FirstFrameGuard, StreamRefused
from inf_stream.app.interrupts import on_interrupt
from inf_stream.app.loading import load_engine
from inf_stream.app.paced import PacedSource
from inf_stream.app.recordings import recorded
from inf_stream.app.reports import Report, Screen
from inf_stream.app.running import draw_map
from inf_stream.app.saving import begin, kept
from inf_stream.app.schedule import ScheduledStream
from inf_stream.app.terminal import Lines
from inf_stream.base.errors import SourceError
from inf_stream.engine.engine import Engine
from inf_stream.engine.protocol import SteppedEngine
from inf_stream.session.interrupt import run_interruptible
from inf_stream.session.limits import SessionLimits
from inf_stream.session.loop import Observer, SessionLoop, engine_worker
from inf_stream.sources import NoSource, Source


def converse(request: ChatRequest, source: Source | None, until_ns: int | None) -> None:
    """Hold the conversation, with `source` running beside it until `until_ns`, if given.

    Raises:
        InfStreamError: the model is refused, or the picture cannot be drawn.
        KeyboardInterrupt: after Ctrl-C.
    """
    screen = Screen.standard()
    report = request.output.report(screen, times=source is not None)
    engine = load_engine(request.settings, screen, sees=source is not None)
    with recorded(request.record, request.settings, report.note) as observer:
        begun = begin(engine, request.keeping, source or NoSource(), request.video, loop=request.loop, note=report.note)
        if source is not None:
            source = begun.source if begun.source.live else PacedSource(begun.source)
        until_ns = None if until_ns is None else until_ns + begun.begin_ns
        try:
            with kept(engine, request.keeping, begun.past, request.settings, request.video, screen.note) as running:
                _hold(request, screen, report, engine, running, source, until_ns, observer)
        finally:
            draw_map(engine, request.output.memory_map, report)


def _hold(
    request: ChatRequest,
    screen: Screen,
    report: Report,
    engine: Engine,
    running: SteppedEngine,
    source: Source | None,
    until_ns: int | None,
    observer: Observer | None,
) -> None:
    typed = sys.stdin.isatty()
    limits = dataclasses.replace(
        SessionLimits.from_settings(request.settings.source, live=source is not None and source.live),
        full_steps=False,
    )
    stream = None
    if source is not None:
        assert engine.model.vision is not None, "checked when it was loaded"
        source.frame_size = engine.model.vision.frame_size
        stream = ScheduledStream(source, (), in_order=False, until_ns=until_ns, begin_ns=engine.now_ns)

    def prompt() -> None:
        if typed and not request.output.json:
            screen.errors.print("> ", end="", style="bold")

    async def session() -> bool:
        report.start()
        with engine_worker() as worker:
            conversation = Conversation(engine, worker, report, prompt=prompt, one_by_one=not typed)
            loop = SessionLoop(
                FirstFrameGuard(running), limits=limits, emit=conversation.show, worker=worker, observer=observer
            )
            lines = Lines(sys.stdin)

            async def feed() -> None:
                talk = conversation.hold(loop, lines)
                await (talk if stream is None else _beside(talk, _watch(loop, stream, conversation)))

            with on_interrupt(lambda: conversation.interrupt(loop.stop), signal.SIGINT):
                await loop.run(feed)
            if typed and not request.output.json and not conversation.left_by_order:
                screen.errors.print()  # behind a prompt that nobody answered
            return conversation.left_by_interrupt

    if typed:
        report.note(f"ask anything; {HELP}")
    else:
        report.note("each line is a question (with --then, what is piped in is read as a text instead)")
    try:
        interrupted = run_interruptible(session)
    except StreamRefused as refused:
        raise refused.reason from refused
    finally:
        report.close()
    if interrupted:
        raise KeyboardInterrupt


async def _beside(talk: Coroutine[Any, Any, None], video: Coroutine[Any, Any, None]) -> None:
    """Run `talk` to its end and `video` for as long; an error of either ends both and is raised."""
    talking, watching = asyncio.create_task(talk), asyncio.create_task(video)
    try:
        await asyncio.wait({talking, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not talking.done():
            watching.result()
        await talking
    finally:
        for task in (talking, watching):
            task.cancel()
        await asyncio.wait({talking, watching})


async def _watch(loop: SessionLoop, stream: ScheduledStream, conversation: Conversation) -> None:
    try:
        await loop.read(stream)
    except SourceError as error:
        conversation.note(f"the video broke off: {error}")
    else:
        conversation.note("the video has ended; the conversation goes on")
