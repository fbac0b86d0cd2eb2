"""`inf-stream demo`: fourteen chapters of a book read through a cache of a few hundred tokens, with questions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from inf_stream.app.loading import VISION_MODEL, check_settings, load_engine
from inf_stream.app.outputs import require_memory_map
from inf_stream.app.progress import StreamProgress
from inf_stream.app.reports import Screen
from inf_stream.app.running import draw_map, run_stream
from inf_stream.app.text_report import TextReport
from inf_stream.base.config import Settings
from inf_stream.base.events import Question, QuestionAsked, TextArrived
from inf_stream.session.queue import cut_text

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
"""Questions that a model of 135 million weights can be asked in fairness."""


class DemoStream:
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


def _pieces(text: str) -> Iterator[TextArrived]:
    for piece in cut_text(text, _PIECE_CHARACTERS):
        yield TextArrived(piece, 0)


def book() -> str:
    """The text that is shipped, one line a paragraph."""
    raw = (files("inf_stream.app") / "data" / "moby_dick.txt").read_text(encoding="utf-8")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in raw.split("\n\n"))


def demo(settings: Settings, memory_map: Path) -> int:
    """Run the demo; returns the exit status.

    Raises:
        InfStreamError: the model cannot be fetched, or the picture cannot be written.
        KeyboardInterrupt: after Ctrl-C.
    """
    screen = Screen.standard()
    require_memory_map(memory_map)
    check_settings(settings)
    text = book()
    screen.write(
        f"Moby-Dick, chapters 1 to 14 ({len(text):,} characters), read through a cache of "
        f"{settings.cache.budget_tokens} tokens by {settings.model.name}.\n"
        "Each question is about the page just read. This is a small text model: it shows the cache, not wit.\n"
        "Video needs a model that sees:\n"
        f'  inf-stream ask VIDEO "What is happening?" --model {VISION_MODEL}\n\n'
    )
    engine = load_engine(settings, screen, sees=False)
    report = TextReport(screen, StreamProgress(screen.errors, "reading", len(text)), stats=True, questions=True)
    try:
        run_stream(engine, DemoStream(text, STOPS), report, settings.source, live=False)
    finally:
        draw_map(engine, memory_map, report)
    seen, kept = engine.cache.seen_tokens, engine.cache.used_tokens
    screen.write(
        f"\n{seen:,} tokens went by; {kept:,} of them ({kept / seen:.1%}) are still in the cache, whose "
        f"{engine.cache.bytes() / 2**20:.1f} MiB never grew.\n"
        f"Which ones: {memory_map}. The rest is forgotten: asked about the first page now, it would guess.\n"
    )
    return 0
