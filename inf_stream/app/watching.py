"""Asking about a stream, or about a recording again, with the model it takes."""

import contextlib
from pathlib import Path

from inf_stream.app.ask import AskRequest
from inf_stream.app.loading import load_engine, require_questions_fit
from inf_stream.app.progress import StreamProgress
from inf_stream.app.recordings import recorded
from inf_stream.app.reports import Screen
from inf_stream.app.running import draw_map, run_stream
from inf_stream.app.saving import begin, kept
from inf_stream.app.schedule import ScheduledStream
from inf_stream.app.showing import Output
from inf_stream.base.clock import seconds
from inf_stream.base.config import Settings
from inf_stream.base.events import AnswerStarted, SessionClosed, Warned
from inf_stream.session.replay import replay
from inf_stream.sources import Source
from inf_stream.sources.recording import Recording


def watch(request: AskRequest, source: Source, until_ns: int | None) -> None:
    """Take in the stream, and ask what was planned.

    Raises:
        InfStreamError: the model or the stream is refused, or the picture cannot be drawn.
        KeyboardInterrupt: after Ctrl-C.
    """
    screen, planned, keeping = Screen.standard(), request.planned, request.keeping
    address = request.video or ""
    name = source.describe() if "://" in address else Path(address).name
    length_s = _length_s(source, until_ns)
    endless = source.live or (request.video is not None and length_s is None)
    progress = StreamProgress(screen.errors, name, length_s)
    report = request.output.report(screen, progress, questions=len({q.text for q in planned}) > 1)
    engine = load_engine(request.settings, screen, sees=request.video is not None)
    with recorded(request.record, request.settings, report.note) as observer:
        begun = begin(engine, keeping, source, request.video, loop=request.loop, note=report.note)
        source, begin_ns = begun.source, begun.begin_ns
        until_ns = None if until_ns is None else until_ns + begin_ns
        progress.total = _length_s(source, until_ns)
        require_questions_fit(engine, planned)
        if engine.model.vision is not None:
            source.frame_size = engine.model.vision.frame_size
        if endless and until_ns is None and any(q.at_ns is None for q in planned):
            report.note(
                "the end of this stream is not known: the question is asked when it comes, or when you press Ctrl-C; "
                "--at TIME or --duration TIME asks it earlier"
            )
        try:
            with kept(engine, keeping, begun.past, request.settings, request.video, screen.note) as running:
                run_stream(
                    running,
                    ScheduledStream(source, planned, in_order=not source.live, until_ns=until_ns, begin_ns=begin_ns),
                    report,
                    request.settings.source,
                    live=source.live,
                    endless=endless,
                    live_until_ns=until_ns - begin_ns if source.live and until_ns is not None else None,
                    observer=observer,
                )
        finally:
            draw_map(engine, request.output.memory_map, report)


def replay_recording(folder: str, settings: Settings, output: Output) -> None:
    """Play a recording through an engine again, and show what it answers.

    Raises:
        InfStreamError: it is damaged, or the model cannot be loaded.
    """
    screen, recording = Screen.standard(), Recording(Path(folder))
    report = output.report(screen, StreamProgress(screen.errors, recording.folder.name, None), questions=True)
    engine = load_engine(settings, screen, sees=False)
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
        draw_map(engine, output.memory_map, report)


def _length_s(source: Source, until_ns: int | None) -> float | None:
    lengths_ns = [ns for ns in (source.duration_ns, until_ns) if ns is not None]
    return seconds(min(lengths_ns)) if lengths_ns else None


def _cut_off(recording: Recording) -> str:
    return (
        f"recording '{recording.folder}' ends without its end mark: the program was killed or the disk was full, "
        "and what came after is not in it"
    )
