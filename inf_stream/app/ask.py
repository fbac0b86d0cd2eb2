"""`inf-stream ask`: questions about a video, a folder of images, a camera, an address or a recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inf_stream.app.loading import check_settings, load_engine, require_questions_fit, require_sight
from inf_stream.app.progress import StreamProgress
from inf_stream.app.questions import plan_questions
from inf_stream.app.reports import Screen
from inf_stream.app.running import Output, draw_map, run_stream
from inf_stream.app.schedule import ScheduledStream
from inf_stream.base.clock import parse_clock, seconds
from inf_stream.base.config import Settings
from inf_stream.base.errors import ConfigError
from inf_stream.sources import LoopedSource, Source, open_source

_ENDLESS_NS = 1 << 62


@dataclass(frozen=True)
class AskRequest:
    """What the command line asks for.

    Attributes:
        video: address of the video, or folder of a recording.
        question: asked at each time in `at`, or at the end.
        at: stream times as written.
        questions: file of more questions.
        settings: of the run.
        output: what to show and leave behind.
        duration: how much of the stream to take in, as written.
        loop: play the video again and again.
        record: folder for a recording.
    """

    video: str
    question: str | None
    at: Sequence[str]
    questions: Path | None
    settings: Settings
    output: Output
    duration: str | None = None
    loop: bool = False
    record: Path | None = None


def ask(request: AskRequest) -> int:
    """Run the command; returns the exit status.

    Raises:
        InfStreamError: something is refused.
        KeyboardInterrupt: after Ctrl-C, with everything in order.
    """
    screen = Screen.standard()
    until_ns = parse_duration(request.duration)
    planned = plan_questions(request.question, request.at, request.questions)
    if not planned:
        raise ConfigError("nothing is asked; add a QUESTION, or --questions FILE with one JSON object a line")
    request.output.check()
    check_settings(request.settings)
    require_sight(request.settings.model.name)
    with open_video(request.video, request.settings, loop=request.loop, until_ns=until_ns) as source:
        engine = load_engine(request.settings, screen, sees=True)
        require_questions_fit(engine, planned)
        assert engine.model.vision is not None, "checked when it was loaded"
        source.frame_size = engine.model.vision.frame_size
        stream = ScheduledStream(source, planned, in_order=not source.live, until_ns=until_ns)
        report = request.output.report(
            screen, progress_of(screen, source, until_ns), questions=len({q.text for q in planned}) > 1
        )
        if source.live and until_ns is None and any(q.at_ns is None for q in planned):
            report.note(f"{source.describe()} is live: press Ctrl-C to end it and have the question answered")
        try:
            run_stream(
                engine,
                stream,
                report,
                request.settings.source,
                live=source.live,
                live_until_ns=until_ns if source.live else None,
            )
        finally:
            draw_map(engine, request.output.memory_map, screen)
    return 0


def open_video(address: str, settings: Settings, *, loop: bool, until_ns: int | None) -> Source:
    """The source an address names, repeated if `loop`.

    Raises:
        SourceError: see `inf_stream.sources.open_source`.
    """
    if not loop:
        return open_source(address, settings.source)
    return LoopedSource(lambda: open_source(address, settings.source), _ENDLESS_NS if until_ns is None else until_ns)


def parse_duration(text: str | None) -> int | None:
    """`--duration` in nanoseconds.

    Raises:
        ConfigError: it is not a time, or zero.
    """
    if text is None:
        return None
    try:
        duration_ns = parse_clock(text)
    except ConfigError as error:
        raise ConfigError(f"--duration: {error}") from error
    if duration_ns == 0:
        raise ConfigError(f"--duration is {text}; give more than 0 seconds")
    return duration_ns


def progress_of(screen: Screen, source: Source, until_ns: int | None) -> StreamProgress:
    """The progress line for a source, with its length where it is known."""
    known = [ns for ns in (source.duration_ns, until_ns) if ns is not None]
    return StreamProgress(screen.errors, source.describe(), seconds(min(known)) if known else None)
