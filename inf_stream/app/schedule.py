"""Questions put into a stream at their times."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count

from inf_stream.app.questions import PlannedQuestion
from inf_stream.base.clock import NS_PER_S, format_clock
from inf_stream.base.events import FrameArrived, Question, QuestionAsked, SourceNotice, TextArrived
from inf_stream.sources import Source, SourceEvent


class ScheduledStream:
    """A source's events with planned questions in between, until `until_ns` if given, the rest at the end.

    A question for time T comes before the first event later than T. With `in_order` it is asked of exactly the stream
    before it; without (live streams) it goes first. Unless `until_ns` is given, the stream ends when none of its
    questions is left; one without any questions goes on to its end. `begin_ns` is where a resumed stream was left. One
    thread iterates; `close` may be called from any: the source ends, and the questions for the end are still asked.
    """

    def __init__(
        self,
        source: Source,
        planned: Sequence[PlannedQuestion],
        *,
        in_order: bool,
        until_ns: int | None = None,
        begin_ns: int = 0,
    ):
        self._ends_with_last = bool(planned) and until_ns is None
        self._source = source
        self._timed = deque(sorted(((q.at_ns, q) for q in planned if q.at_ns is not None), key=lambda pair: pair[0]))
        self._at_end = [q for q in planned if q.at_ns is None]
        self._in_order, self._until_ns, self._begin_ns = in_order, until_ns, begin_ns
        self._numbers = count(1)
        self._events = self._make_events()

    def __iter__(self) -> Iterator[SourceEvent | QuestionAsked]:
        return self

    def __next__(self) -> SourceEvent | QuestionAsked:
        return next(self._events)

    def close(self) -> None:
        """End the source."""
        self._source.close()

    def _make_events(self) -> Iterator[SourceEvent | QuestionAsked]:
        last_ns, gap_ns = self._begin_ns, 0
        until_ns, end_ns = self._until_ns, None
        for event in self._source:
            at_ns = event_time_ns(event)
            if until_ns is not None and at_ns >= until_ns:
                end_ns = until_ns
                break
            yield from self._due(at_ns)
            if self._ends_with_last and not self._timed and not self._at_end:
                break
            last_ns, gap_ns = max(last_ns, at_ns), max(0, at_ns - last_ns)
            yield event
        self._source.close()
        yield from self._due((self._end_ns(last_ns, gap_ns) if end_ns is None else end_ns) + 1)
        yield from self._late(last_ns)
        for planned in self._at_end:
            yield self._asked(planned, last_ns)

    def _end_ns(self, last_ns: int, gap_ns: int) -> int:
        """The stated end of the stream, if the last event is as near to it as the sampling lets expect."""
        stated_ns = self._source.duration_ns or last_ns
        return stated_ns if stated_ns - last_ns <= max(2 * gap_ns, NS_PER_S) else last_ns

    def _due(self, now_ns: int) -> Iterator[QuestionAsked]:
        while self._timed and self._timed[0][0] < now_ns:
            at_ns, planned = self._timed.popleft()
            yield self._asked(planned, at_ns)

    def _late(self, last_ns: int) -> Iterator[SourceNotice | QuestionAsked]:
        for at_ns, planned in self._timed:
            asked_for, end = format_clock(at_ns), format_clock(last_ns)
            yield SourceNotice(f"the stream ends at {end}, before {asked_for}: asked at its end instead", last_ns)
            yield self._asked(planned, last_ns)
        self._timed.clear()

    def _asked(self, planned: PlannedQuestion, at_ns: int) -> QuestionAsked:
        question = Question(f"q{next(self._numbers)}", planned.text, at_ns, planned.max_tokens, planned.aside)
        return QuestionAsked(question, in_order=self._in_order)


def event_time_ns(event: SourceEvent) -> int:
    """Stream time of an event of a source."""
    match event:
        case FrameArrived(frame):
            return frame.at_ns
        case TextArrived(at_ns=at_ns) | SourceNotice(at_ns=at_ns):
            return at_ns
