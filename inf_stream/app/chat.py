"""`inf-stream chat`: a conversation without end, beside a video or about a text that is piped in."""

import asyncio
import dataclasses
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inf_stream.app.ask import open_video
from inf_stream.app.conversation import HELP, Conversation
from inf_stream.app.guard import FirstFrameGuard, StreamRefused
from inf_stream.app.interrupts import on_interrupt
from inf_stream.app.loading import check_settings, load_engine, require_questions_fit, require_sight, with_model
from inf_stream.app.paced import PacedSource
from inf_stream.app.progress import StreamProgress
from inf_stream.app.questions import PlannedQuestion, parse_duration, plan_questions
from inf_stream.app.recordings import recorded
from inf_stream.app.reports import Report, Screen
from inf_stream.app.running import Output, draw_map, run_stream
from inf_stream.app.saving import Keeping, begin, kept
from inf_stream.app.schedule import ScheduledStream
from inf_stream.app.terminal import Lines
from inf_stream.base.config import Settings
from inf_stream.base.errors import ConfigError, SourceError
from inf_stream.engine.engine import Engine
from inf_stream.engine.protocol import SteppedEngine
from inf_stream.session.interrupt import run_interruptible
from inf_stream.session.limits import SessionLimits
from inf_stream.session.loop import Observer, SessionLoop, engine_worker
from inf_stream.sources import NoSource, Source, open_text


@dataclass(frozen=True)
class ChatRequest:
    """What the command line asks for.

    Attributes:
        video: address of a video that runs beside the conversation, or None.
        then: questions for the end of the text that is piped in.
        settings: of the run.
        output: what to show and leave behind.
        duration: how much of the video to take in, as written.
        loop: play the video again and again.
        record: folder for a recording.
        keeping: what the session is saved to, and resumed from.
    """

    video: str | None
    then: Sequence[str]
    settings: Settings
    output: Output
    duration: str | None = None
    loop: bool = False
    record: Path | None = None
    keeping: Keeping = field(default_factory=Keeping)


def chat(request: ChatRequest) -> int:
    """Run the command; returns the exit status.

    Raises:
        InfStreamError: something is refused.
        KeyboardInterrupt: after Ctrl-C, with everything in order.
    """
    screen = Screen.standard()
    sees = request.video is not None
    request = dataclasses.replace(request, settings=with_model(request.settings, sees=sees))
    _check(request)
    planned = [q for text in request.then for q in plan_questions(text, (), None)]
    request.output.check()
    request.keeping.check(request.record)
    check_settings(request.settings)
    if planned:
        return _read_text(request, planned, screen)
    return _converse(request, screen)


def _check(request: ChatRequest) -> None:
    if request.then and request.video is not None:
        raise ConfigError(
            "--then asks after a text that is piped in; to ask about a video from a script use: inf-stream ask VIDEO"
        )
    if request.then and sys.stdin.isatty():
        raise ConfigError("--then asks after a text that is piped in, e.g. cat book.txt | inf-stream chat --then ...")
    if request.video is None and (request.loop or request.duration is not None):
        raise ConfigError(f"--{'loop' if request.loop else 'duration'} needs --video ADDRESS")


# ---- a text that is piped in -----------------------------------------------------------------------


def _read_text(request: ChatRequest, planned: Sequence[PlannedQuestion], screen: Screen) -> int:
    progress = StreamProgress(screen.errors, "reading", None)
    report = request.output.report(screen, progress, questions=len(planned) > 1)
    with recorded(request.record, request.settings, report.note) as observer:
        engine = load_engine(request.settings, screen, sees=False)
        begun = begin(engine, request.keeping, NoSource(), None, loop=False, note=report.note)
        require_questions_fit(engine, planned)
        source = open_text(sys.stdin.buffer, engine.characters_per_step, now_ns=lambda: begun.begin_ns)
        stream = ScheduledStream(source, planned, in_order=True, begin_ns=begun.begin_ns)
        try:
            with kept(engine, request.keeping, begun.past, request.settings, None, screen.note) as running:
                run_stream(running, stream, report, request.settings.source, live=False, observer=observer)
        finally:
            draw_map(engine, request.output.memory_map, report)
        if not report.throughput.characters:
            report.note("nothing was piped in: the questions were asked about an empty text")
    return 0


# ---- a conversation --------------------------------------------------------------------------------


def _converse(request: ChatRequest, screen: Screen) -> int:
    until_ns = parse_duration(request.duration)
    source = None
    if request.video is not None:
        require_sight(request.settings.model.name)
        source = open_video(request.video, request.settings, loop=request.loop, until_ns=until_ns)
    report = request.output.report(screen, times=source is not None)
    try:
        with recorded(request.record, request.settings, report.note) as observer:
            engine = load_engine(request.settings, screen, sees=source is not None)
            begun = begin(
                engine, request.keeping, source or NoSource(), request.video, loop=request.loop, note=report.note
            )
            if source is not None:
                source = begun.source if begun.source.live else PacedSource(begun.source)
            until_ns = None if until_ns is None else until_ns + begun.begin_ns
            try:
                with kept(engine, request.keeping, begun.past, request.settings, request.video, screen.note) as running:
                    _hold(request, screen, report, engine, running, source, until_ns, observer)
            finally:
                draw_map(engine, request.output.memory_map, report)
    finally:
        if source is not None:
            source.close()
    return 0


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

            with on_interrupt(lambda: conversation.interrupt(loop.stop)):
                await loop.run(feed)
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
