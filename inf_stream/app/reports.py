"""What a run shows: answers on standard output, everything else on standard error; as text or as JSON lines."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from inf_stream.app.piped_console import PipedConsole
from inf_stream.app.throughput import Throughput
from inf_stream.base.clock import seconds
from inf_stream.base.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    FrameDropped,
    FramesIngested,
    OutputEvent,
    SessionClosed,
    TextIngested,
    Warned,
)

Stats = dict[str, float | int | str]


@runtime_checkable
class TextOut(Protocol):
    """The part of a text file that answers are written to."""

    def write(self, text: str, /) -> int:
        """Add text."""
        ...

    def flush(self) -> None:
        """Hold nothing back."""
        ...


@dataclass(frozen=True)
class Screen:
    """Where a run writes: answers to `out`, the rest to `errors` (and there in colour, on a terminal)."""

    out: TextOut
    errors: Console

    @classmethod
    def standard(cls) -> "Screen":
        """Standard output and standard error as they are now."""
        return cls(sys.stdout, PipedConsole(stderr=True, highlight=False, soft_wrap=True))

    def write(self, text: str) -> None:
        """Text for standard output, at once."""
        self.out.write(text)
        self.out.flush()

    def note(self, message: str, style: str | None = None) -> None:
        """One line on standard error."""
        self.errors.print(message, style=style, markup=False, highlight=False, soft_wrap=True)


class Report(ABC):
    """Shows the events of a session; `show` is called for each, in order."""

    def __init__(self, screen: Screen, clock: Callable[[], float] = monotonic):
        self.screen = screen
        self.throughput = Throughput(clock)

    def start(self) -> None:
        """The stream begins."""
        self.throughput.start()

    def show(self, event: OutputEvent) -> None:
        """Show one event."""
        self.throughput.count(event)
        self._show(event)

    @abstractmethod
    def _show(self, event: OutputEvent) -> None: ...

    @abstractmethod
    def note(self, message: str, **facts: Any) -> None:
        """Tell the user something that is not an event of the session."""

    @abstractmethod
    def close(self) -> None:
        """Leave the terminal in order; nothing is shown afterwards."""

    def stats_of(self, event: AnswerFinished) -> Stats:
        """What is known at the end of an answer: the engine's counts, and how fast things went."""
        stats: Stats = dict(event.stats)
        stats |= {"finished": event.reason.value, "answer_tokens": event.tokens}
        stats |= {
            "frames_per_s": round(self.throughput.frames_per_s, 3),
            "dropped_frames": self.throughput.dropped_frames,
        }
        if self.throughput.characters:
            stats["characters"] = self.throughput.characters
            stats["characters_per_s"] = round(self.throughput.characters_per_s, 1)
        if event.ttft_s is not None:
            stats["ttft_s"] = round(event.ttft_s, 4)
        return stats


class JsonReport(Report):
    """One JSON object a line: answers to standard output, all other events to standard error."""

    def _show(self, event: OutputEvent) -> None:
        match event:
            case AnswerStarted(question):
                self._aside("asked", at_s=_at_s(question.at_ns), question=question.text)
            case AnswerDelta(text=text):
                self._aside("delta", text=text)
            case AnswerFinished(question, text):
                line = {"type": "answer", "at_s": _at_s(question.at_ns), "question": question.text}
                evidence = [{"at_s": _at_s(e.at_ns), "share": round(e.share, 4)} for e in event.evidence]
                line |= {"text": text.strip(), "stats": self.stats_of(event), "evidence": evidence}
                line |= {} if event.warning is None else {"warning": event.warning}
                self.screen.write(_json(line) + "\n")
            case FramesIngested(count, at_ns):
                self._aside("frames", at_s=_at_s(at_ns), count=count)
            case TextIngested(characters, at_ns):
                self._aside("text", at_s=_at_s(at_ns), characters=characters)
            case FrameDropped(number, at_ns, rule, dropped):
                self._aside("dropped", at_s=_at_s(at_ns), number=number, rule=rule, dropped=dropped)
            case Warned(message, at_ns):
                self._aside("warning", at_s=_at_s(at_ns), message=message)
            case SessionClosed(at_ns):
                self._aside("end", at_s=_at_s(at_ns))

    def note(self, message: str, **facts: Any) -> None:
        """One object of type `note`."""
        self._aside("note", message=message, **facts)

    def close(self) -> None:
        """Nothing is held back."""

    def _aside(self, kind: str, **facts: Any) -> None:
        self.screen.note(_json({"type": kind} | facts))


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _at_s(at_ns: int) -> float:
    return round(seconds(at_ns), 3)
