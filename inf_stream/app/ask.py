"""`inf-stream ask`: questions about a video, a folder of images, a camera, an address or a recording."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from inf_stream.app.loading import check_settings, load_engine, require_questions_fit, require_sight, with_model
from inf_stream.app.progress import StreamProgress
from inf_stream.app.questions import PlannedQuestion, parse_duration
from inf_stream.app.recordings import is_recording, recorded
from inf_stream.app.reports import Screen
from inf_stream.app.running import Output, draw_map, run_stream
from inf_stream.app.saving import Keeping, begin, kept
from inf_stream.app.schedule import ScheduledStream
from inf_stream.base.clock import seconds
from inf_stream.base.config import Settings
from inf_stream.base.errors import ConfigError
from inf_stream.base.events import AnswerStarted, SessionClosed, Warned
from inf_stream.session.replay import replay
from inf_stream.sources import LoopedSource, NoSource, Source, open_source
from inf_stream.sources.recording import Recording

_ENDLESS_NS = 1 << 62


@dataclass(frozen=True)
class AskRequest:
    """What the command line asks for.

    Attributes:
        video: address of the video, or folder of a recording; None asks a resumed session about what it has seen.
        planned: what is asked and when (`plan_questions` of the three below).
        question: asked at each time in `at`, or at the end.
        at: stream times as written.
        questions: file of more questions.
        settings: of the run.
        output: what to show and leave behind.
        duration: how much of the stream to take in, as written.
        loop: play the video again and again.
        record: folder for a recording.
        keeping: what the session is saved to, and resumed from.
    """

    video: str | None
    planned: Sequence[PlannedQuestion]
    question: str | None
    at: Sequence[str]
    questions: Path | None
    settings: Settings
    output: Output
    duration: str | None = None
    loop: bool = False
    record: Path | None = None
    keeping: Keeping = field(default_factory=Keeping)


def ask(request: AskRequest) -> int:
    """Run the command; returns the exit status.

    Raises:
        InfStreamError: something is refused.
        KeyboardInterrupt: after Ctrl-C, with everything in order.
    """
    screen = Screen.standard()
    request = replace(request, settings=with_model(request.settings, sees=True))
    until_ns = parse_duration(request.duration)
    request.output.check()
    request.keeping.check(request.record)
    check_settings(request.settings)
    if request.video is not None and is_recording(request.video):
        _replay(request, request.video, screen)
        return 0
    if not request.planned:
        raise ConfigError("nothing is asked; add a QUESTION, or --questions FILE with one JSON object a line")
    if request.video is None:
        _watch(request, screen, NoSource(), None)
        return 0
    require_sight(request.settings.model.name)
    with open_video(request.video, request.settings, loop=request.loop, until_ns=until_ns) as source:
        _watch(request, screen, source, until_ns)
    return 0


def open_video(address: str, settings: Settings, *, loop: bool, until_ns: int | None) -> Source:
    """The source an address names, repeated if `loop`.

    Raises:
        SourceError: see `inf_stream.sources.open_source`.
    """
    if not loop:
        return open_source(address, settings.source)
    return LoopedSource(lambda: open_source(address, settings.source), _ENDLESS_NS if until_ns is None else until_ns)


def _watch(request: AskRequest, screen: Screen, source: Source, until_ns: int | None) -> None:
    planned, address, keeping = request.planned, request.video or "", request.keeping
    name = source.describe() if "://" in address else Path(address).name
    progress = StreamProgress(screen.errors, name, _length_s(source, until_ns))
    report = request.output.report(screen, progress, questions=len({q.text for q in planned}) > 1)
    with recorded(request.record, request.settings, report.note) as observer:
        engine = load_engine(request.settings, screen, sees=request.video is not None)
        begun = begin(engine, keeping, source, request.video, loop=request.loop, note=report.note)
        source, begin_ns = begun.source, begun.begin_ns
        until_ns = None if until_ns is None else until_ns + begin_ns
        progress.total = _length_s(source, until_ns)
        require_questions_fit(engine, planned)
        if engine.model.vision is not None:
            source.frame_size = engine.model.vision.frame_size
        if source.live and until_ns is None and any(q.at_ns is None for q in planned):
            report.note(f"{source.describe()} is live: press Ctrl-C to end it and have the question answered")
        try:
            with kept(engine, keeping, begun.past, request.settings, request.video, screen.note) as running:
                run_stream(
                    running,
                    ScheduledStream(source, planned, in_order=not source.live, until_ns=until_ns, begin_ns=begin_ns),
                    report,
                    request.settings.source,
                    live=source.live,
                    live_until_ns=until_ns - begin_ns if source.live and until_ns is not None else None,
                    observer=observer,
                )
        finally:
            draw_map(engine, request.output.memory_map, report)


def _length_s(source: Source, until_ns: int | None) -> float | None:
    lengths_ns = [ns for ns in (source.duration_ns, until_ns) if ns is not None and ns < _ENDLESS_NS]
    return seconds(min(lengths_ns)) if lengths_ns else None


def _replay(request: AskRequest, folder: str, screen: Screen) -> None:
    for given, name in (
        (request.question is not None, "QUESTION"),
        (bool(request.at), "--at"),
        (request.questions is not None, "--questions"),
        (request.duration is not None, "--duration"),
        (request.loop, "--loop"),
        (request.record is not None, "--record"),
        (request.keeping.save is not None, "--save"),
        (request.keeping.resume is not None, "--resume"),
    ):
        if given:
            raise ConfigError(
                f"'{folder}' is a recording, which brings its own questions and length along; leave {name} out"
            )
    recording = Recording(Path(folder))
    report = request.output.report(screen, StreamProgress(screen.errors, recording.folder.name, None), questions=True)
    engine = load_engine(request.settings, screen, sees=False)
    try:
        with contextlib.closing(report):
            report.start()
            asked = False
            for event in replay(engine, recording):
                asked = asked or isinstance(event, AnswerStarted)
                if isinstance(event, SessionClosed) and not recording.has_end:
                    report.show(Warned(_cut_off(recording), event.at_ns))
                report.show(event)
            if not asked:
                report.note(f"recording '{recording.folder}' holds no question: nothing was asked before it ended")
    finally:
        draw_map(engine, request.output.memory_map, report)


def _cut_off(recording: Recording) -> str:
    return (
        f"recording '{recording.folder}' ends without its end mark: the program was killed or the disk was full, "
        "and what came after is not in it"
    )
