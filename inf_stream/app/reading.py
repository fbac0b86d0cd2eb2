"""A text that is piped in, and questions at its end, with the model it takes."""

import sys
from collections.abc import Sequence

from inf_stream.app.chat import ChatRequest
from inf_stream.app.loading import load_engine, require_questions_fit
from inf_stream.app.progress import StreamProgress
from inf_stream.app.questions import PlannedQuestion
from inf_stream.app.recordings import recorded
from inf_stream.app.reports import Screen
from inf_stream.app.running import draw_map, run_stream
from inf_stream.app.saving import begin, kept
from inf_stream.app.schedule import ScheduledStream
from inf_stream.sources import NoSource, open_text


def read_text(request: ChatRequest, planned: Sequence[PlannedQuestion]) -> None:
    """Read standard input to its end, and ask what was planned.

    Raises:
        InfStreamError: the model or the text is refused, or the picture cannot be drawn.
        KeyboardInterrupt: after Ctrl-C.
    """
    screen = Screen.standard()
    progress = StreamProgress(screen.errors, "reading", None)
    report = request.output.report(screen, progress, questions=len(planned) > 1)
    engine = load_engine(request.settings, screen, sees=False)
    with recorded(request.record, request.settings, report.note) as observer:
        begun = begin(engine, request.keeping, NoSource(), None, loop=False, note=report.note)
        require_questions_fit(engine, planned)
        source = open_text(sys.stdin.buffer, engine.characters_per_step, now_ns=lambda: begun.begin_ns)
        stream = ScheduledStream(source, planned, in_order=True, begin_ns=begun.begin_ns)
        asked = "the questions are" if len(planned) > 1 else "the question is"
        report.note(f"reading standard input; {asked} asked at its end, or when you press Ctrl-C")
        try:
            with kept(engine, request.keeping, begun.past, request.settings, None, screen.note) as running:
                run_stream(
                    running, stream, report, request.settings.source, live=False, endless=True, observer=observer
                )
        finally:
            draw_map(engine, request.output.memory_map, report)
        if not report.throughput.characters:
            report.note("nothing was piped in: the questions were asked about an empty text")
