"""`inf-stream demo`: a minute of video watched through a small cache, with questions about now and before.

A model that reads text only is given fourteen chapters of a book instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from inf_stream.app.checking import check_settings
from inf_stream.app.loading import load_engine
from inf_stream.app.model_names import VISION_MODEL, with_model
from inf_stream.app.progress import StreamProgress
from inf_stream.app.questions import PlannedQuestion
from inf_stream.app.reports import Report, Screen
from inf_stream.app.running import Stream, draw_map, run_stream
from inf_stream.app.schedule import ScheduledStream
from inf_stream.app.text_report import TextReport
from inf_stream.app.videos import open_video
from inf_stream.base.clock import NS_PER_S, seconds
from inf_stream.base.config import Settings
from inf_stream.base.events import Question, QuestionAsked, TextArrived
from inf_stream.engine.engine import Engine
from inf_stream.models.weights.builtin import BUILTIN, SEES
from inf_stream.session.queue import cut_text

CLIP = "places.mp4"
CLIP_QUESTIONS = tuple(
    PlannedQuestion(text, at_s * NS_PER_S, aside=True)
    for at_s, text in (
        (8, "What do you see?"),
        (8, "Is there a woman?"),
        (28, "What do you see?"),
        (33, "Is there a woman now?"),
        (33, "Did a woman appear?"),
        (50, "What do you see?"),
        (50, "Is there grass now?"),
        (50, "When did grass appear?"),
        (59, "When did a car appear?"),
        (59, "What was shown at 00:30?"),
        (59, "What was shown at 00:05?"),
    )
)
"""Questions that a model of this size can be asked in fairness; asides, so that no answer leans on another."""

MODEST = "A very small model: it knows people, animals and places outdoors, and is often wrong about the rest."

_PIECE_CHARACTERS = 1024


@dataclass(frozen=True)
class Stop:
    """A place in the book where a question is asked: behind the first `after` beyond the stop before."""

    after: str
    question: str


STOPS = (
    Stop("pistol and ball.", "What is the narrator's name?"),
    Stop("I knew no one in the place.", "In which town did the narrator arrive?"),
    Stop("Poor Lazarus there", "What is the name of the inn?"),
    Stop("swallow up Jonah.", "Which man in the Bible is the sermon about?"),
    Stop("And thus have these naked Nantucketers", "What is the name of the island?"),
)


def demo(settings: Settings, memory_map: Path) -> int:
    """Run the demo; returns the exit status.

    Raises:
        InfStreamError: the model cannot be fetched, or the picture cannot be written.
        KeyboardInterrupt: after Ctrl-C.
    """
    screen = Screen.standard()
    settings = with_model(settings, sees=True)
    check_settings(settings)
    engine = load_engine(settings, screen, sees=False)
    play = _play_book if engine.model.vision is None else _play_clip
    play(engine, screen, settings, memory_map)
    seen, kept = engine.cache.seen_tokens, engine.cache.used_tokens
    screen.write(
        f"\n{seen:,} tokens went by; {kept:,} of them ({kept / seen:.1%}) are still in the cache, whose "
        f"{engine.cache.bytes() / 2**20:.1f} MiB never grew.\n"
        f"Which ones: {memory_map}. {_rest(engine)}\n"
    )
    if settings.model.name in BUILTIN:
        screen.write(
            "Real work takes a larger model, and one flag:\n"
            f'  inf-stream ask VIDEO "What is happening?" --model {VISION_MODEL}\n'
        )
    return 0


def _rest(engine: Engine) -> str:
    """What has become of the tokens that left the cache."""
    archive = engine.cache.archive
    if archive is None or not archive.blocks:
        return "The rest is forgotten: asked about it now, the model would guess."
    size_mib = archive.bytes() / 2**20
    return f"The rest is in an archive of {size_mib:.1f} MiB, from which a question calls back what it needs."


# ---- a clip, for models that see -------------------------------------------------------------------


def _play_clip(engine: Engine, screen: Screen, settings: Settings, memory_map: Path) -> None:
    assert engine.model.vision is not None, "chosen by it"
    with (
        as_file(files("inf_stream.app") / "data" / CLIP) as path,
        open_video(str(path), settings, loop=False, until_ns=None) as source,
    ):
        length_s = seconds(source.duration_ns or 0)
        modest = f"{MODEST}\n" if settings.model.name == SEES else ""
        screen.write(
            f"{length_s:.0f} seconds of video, {settings.source.fps:g} frame a second, through a cache of "
            f"{settings.cache.budget_tokens} tokens, by {settings.model.name}.\n"
            f"What it keeps is drawn into {memory_map} at the end.\n{modest}\n"
        )
        source.frame_size = engine.model.vision.frame_size
        report = TextReport(screen, StreamProgress(screen.errors, "watching", length_s), questions=True)
        stream = ScheduledStream(source, CLIP_QUESTIONS, in_order=True)
        _play(engine, stream, report, settings, memory_map)
        faster = report.throughput.frames_per_s / settings.source.fps
        screen.write(f"\nIt watched {faster:.0f} times faster than real time.")


def _play(engine: Engine, stream: Stream, report: Report, settings: Settings, memory_map: Path) -> None:
    try:
        run_stream(engine, stream, report, settings.source, live=False, endless=False)
    finally:
        draw_map(engine, memory_map, report)


# ---- a book, for models that read ------------------------------------------------------------------


class BookStream:
    """The book in pieces, with the questions in between."""

    def __init__(self, text: str, stops: Sequence[Stop]):
        self._events = self._make_events(text, stops)

    def __iter__(self) -> Iterator[TextArrived | QuestionAsked]:
        return self._events

    def close(self) -> None:
        """There is nothing to let go of."""

    def _make_events(self, text: str, stops: Sequence[Stop]) -> Iterator[TextArrived | QuestionAsked]:
        start = 0
        for number, stop in enumerate(stops, 1):
            end = text.index(stop.after, start) + len(stop.after)
            yield from _pieces(text[start:end])
            yield QuestionAsked(Question(f"q{number}", stop.question, 0), in_order=True)
            start = end
        yield from _pieces(text[start:])


def book() -> str:
    """The text that is shipped, one line a paragraph."""
    raw = (files("inf_stream.app") / "data" / "moby_dick.txt").read_text(encoding="utf-8")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in raw.split("\n\n"))


def _play_book(engine: Engine, screen: Screen, settings: Settings, memory_map: Path) -> None:
    text = book()
    screen.write(
        f"Moby-Dick, chapters 1 to 14 ({len(text):,} characters), read through a cache of "
        f"{settings.cache.budget_tokens} tokens by {settings.model.name}, which reads text only.\n"
        f"Each question is about the page just read; what is kept is drawn into {memory_map} at the end.\n\n"
    )
    report = TextReport(screen, StreamProgress(screen.errors, "reading", len(text)), stats=True, questions=True)
    _play(engine, BookStream(text, STOPS), report, settings, memory_map)


def _pieces(text: str) -> Iterator[TextArrived]:
    for piece in cut_text(text, _PIECE_CHARACTERS):
        yield TextArrived(piece, 0)
