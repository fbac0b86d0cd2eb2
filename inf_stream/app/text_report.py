"""A run shown to people: answers as they come, each after its stream time; a progress line meanwhile."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from inf_stream.app.progress import StreamProgress
from inf_stream.app.reports import Report, Screen, Stats
from inf_stream.base.clock import format_clock, nanoseconds, seconds
from inf_stream.base.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    FinishReason,
    FrameDropped,
    FramesIngested,
    OutputEvent,
    SessionClosed,
    TextIngested,
    Warned,
)

_MIB = 1 << 20
_UNPRINTABLE = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "�")
"""Control characters that a model's words must not send to a terminal."""
_SUFFIX = {
    FinishReason.CANCELLED: " [cancelled]",
    FinishReason.FAILED: " [failed]",
    FinishReason.LENGTH: " […]",
    FinishReason.REFUSED: "",
    FinishReason.STOP: "",
}


class TextReport(Report):
    """Answers as text.

    Args:
        screen: where to write.
        progress: the line that shows how far the stream has come; hidden while an answer is printed.
        stats: show numbers after each answer.
        questions: show each question before its answer.
        times: put the stream time before each answer; streamed text has characters instead.
        clock: gives seconds; for rates.
    """

    def __init__(
        self,
        screen: Screen,
        progress: StreamProgress | None = None,
        *,
        stats: bool = False,
        questions: bool = False,
        times: bool = True,
        clock: Callable[[], float] = monotonic,
    ):
        super().__init__(screen, clock)
        self._progress = progress
        self._with_stats, self._with_questions, self._with_times = stats, questions, times
        self._answering = False
        self._written = False

    def note(self, message: str, **facts: Any) -> None:
        """One line on standard error."""
        self._end_line()
        self.screen.note(message, "dim")

    def close(self) -> None:
        """End an unfinished line and take the progress away."""
        self._end_line()
        self._hide_progress()

    def _show(self, event: OutputEvent) -> None:
        match event:
            case AnswerStarted():
                self._start(event)
            case AnswerDelta(text=text):
                self._write(text)
            case AnswerFinished():
                self._finish(event)
            case FramesIngested(at_ns=at_ns):
                rate = f"{self.throughput.frames_per_s:.1f} frames/s"
                dropped = f", {self.throughput.dropped_frames} dropped" if self.throughput.dropped_frames else ""
                self._advance(seconds(at_ns), f"{format_clock(at_ns)}{self._of_total()}  {rate}{dropped}")
            case TextIngested():
                self._advance(self.throughput.characters, f"{self.throughput.characters:,} characters")
            case Warned(message):
                self.note(f"warning: {message}")
            case FrameDropped() | SessionClosed():
                pass

    def _start(self, event: AnswerStarted) -> None:
        self._hide_progress()
        if self._with_questions:
            self.screen.note(f"? {event.question.text}", "bold")
        if event.warning is not None:
            self.note(f"warning: {event.warning}")
        self._answering, self._written = True, False
        if self._with_times:
            self.screen.write(f"[{self._place(event.question.at_ns)}] ")

    def _write(self, text: str) -> None:
        shown = text if self._written else text.lstrip()
        if shown:
            self._written = True
            self.screen.write(shown.translate(_UNPRINTABLE))

    def _finish(self, event: AnswerFinished) -> None:
        if self._answering:
            self.screen.write(_SUFFIX[event.reason] if self._written else "(no words)")
        self._end_line()
        if self._with_stats:
            self.note(stats_line(self.stats_of(event)))
            if event.evidence:
                seen = ", ".join(f"{format_clock(e.at_ns)} ({e.share:.0%})" for e in event.evidence)
                self.note(f"looked most at {seen}")
        if self._progress is not None:
            self._progress.show()

    def _place(self, at_ns: int) -> str:
        """Where the stream is: its time, or for streamed text, which has none, how much was read."""
        only_text = self.throughput.characters and not self.throughput.frames and not at_ns
        return f"{self.throughput.characters:,} characters" if only_text else format_clock(at_ns)

    def _end_line(self) -> None:
        if self._answering:
            self.screen.write("\n")
            self._answering = False

    def _advance(self, completed: float, where: str) -> None:
        if self._progress is not None:
            self._progress.advance(completed, where)

    def _of_total(self) -> str:
        total_s = None if self._progress is None else self._progress.total
        return "" if total_s is None else f" of {format_clock(nanoseconds(total_s))}"

    def _hide_progress(self) -> None:
        if self._progress is not None:
            self._progress.hide()


def stats_line(stats: Stats) -> str:
    """The numbers of a run in one line; what is not known is left out."""
    known = {k: float(v) for k, v in stats.items() if not isinstance(v, str)}
    parts = {
        "tokens_seen": "{:,.0f} tokens seen",
        "tokens_kept": "{:,.0f} kept",
        "cache_mib": "cache {:,.1f} MiB",
        "process_mib": "process {:,.0f} MiB",
        "frames": "{:,.0f} frames",
        "dropped_frames": "{:,.0f} dropped",
        "frames_per_s": "{:,.1f} frames/s",
        "characters_per_s": "{:,.0f} characters/s",
        "ttft_s": "first token after {:.2f} s",
    }
    for name in ("cache", "process"):
        if f"{name}_bytes" in known:
            known[f"{name}_mib"] = known[f"{name}_bytes"] / _MIB
    always = {"tokens_seen", "tokens_kept", "ttft_s"}
    return " · ".join(
        form.format(known[k]) for k, form in parts.items() if known.get(k) or (k in always and k in known)
    )
