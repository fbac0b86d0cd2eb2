import threading
from collections.abc import Iterable

import numpy as np
import pytest

from inf_stream.app.paced import PacedSource
from inf_stream.app.questions import PlannedQuestion
from inf_stream.app.schedule import ScheduledStream, event_time_ns
from inf_stream.base.clock import NS_PER_S
from inf_stream.base.events import Frame, FrameArrived, InputEvent, QuestionAsked, SourceNotice, TextArrived
from inf_stream.sources import Source, SourceEvent


def frame(second: float, number: int = 0) -> FrameArrived:
    return FrameArrived(Frame(np.zeros((2, 2, 3), np.uint8), round(second * NS_PER_S), number))


class ListSource(Source):
    """Events of a list; counts how often it was closed."""

    def __init__(self, events: Iterable[SourceEvent], duration_s: float | None = None, live: bool = False):
        self._events = iter(list(events))
        self._duration_s = duration_s
        self.live = live
        self.closed = 0
        self.read = 0

    @property
    def duration_ns(self) -> int | None:
        return None if self._duration_s is None else round(self._duration_s * NS_PER_S)

    def describe(self) -> str:
        return "a list"

    def __next__(self) -> SourceEvent:
        if self.closed:
            raise StopIteration
        self.read += 1
        return next(self._events)

    def close(self) -> None:
        self.closed += 1


def story(events: Iterable[InputEvent]) -> list[str]:
    """`f1` a frame at second 1, `q@1.5` a question asked at second 1.5, `!` a notice, `t` text."""
    told = []
    for event in events:
        match event:
            case FrameArrived(f):
                told.append(f"f{f.at_ns / NS_PER_S:g}")
            case QuestionAsked(question):
                told.append(f"{question.text}@{question.at_ns / NS_PER_S:g}")
            case SourceNotice():
                told.append("!")
            case TextArrived(text):
                told.append(text)
    return told


def at(second: float | None, text: str = "q") -> PlannedQuestion:
    return PlannedQuestion(text, None if second is None else round(second * NS_PER_S))


def told(source: Source, *planned: PlannedQuestion, until_s: float | None = None, in_order: bool = True) -> list[str]:
    until_ns = None if until_s is None else round(until_s * NS_PER_S)
    return story(ScheduledStream(source, planned, in_order=in_order, until_ns=until_ns))


def test_a_question_comes_after_all_up_to_its_time_and_before_all_later() -> None:
    source = ListSource([frame(0), frame(1), frame(2), frame(3)])
    assert told(source, at(1), at(2.5)) == ["f0", "f1", "q@1", "f2", "q@2.5"]


def test_questions_at_the_same_time_keep_their_order() -> None:
    source = ListSource([frame(0), frame(1)])
    assert told(source, at(0, "a"), at(0, "b")) == ["f0", "a@0", "b@0"]


def test_with_the_last_question_the_stream_ends_unless_told_how_long_it_is() -> None:
    source = ListSource([frame(s) for s in range(10)])
    assert told(source, at(1)) == ["f0", "f1", "q@1"]
    assert source.closed
    assert source.read == 3
    assert told(ListSource([frame(s) for s in range(4)]), at(1), until_s=9) == ["f0", "f1", "q@1", "f2", "f3"]
    assert told(ListSource([frame(s) for s in range(3)])) == ["f0", "f1", "f2"]


def test_without_a_time_it_is_asked_at_the_time_of_the_last_event() -> None:
    source = ListSource([frame(0), frame(1)], duration_s=1.9)
    assert told(source, at(None, "z"), at(0, "a")) == ["f0", "a@0", "f1", "z@1"]
    assert source.closed


def test_a_question_between_the_last_frame_and_the_end_is_in_time() -> None:
    assert told(ListSource([frame(0), frame(1)], duration_s=2), at(1.8)) == ["f0", "f1", "q@1.8"]


def test_a_question_beyond_the_end_is_asked_there_with_a_notice() -> None:
    source = ListSource([frame(0), frame(1)], duration_s=2)
    events = list(ScheduledStream(source, [at(99)], in_order=True))
    assert story(events) == ["f0", "f1", "!", "q@1"]
    assert isinstance(events[2], SourceNotice)
    assert events[2].message == "the stream ends at 00:01, before 01:39: asked at its end instead"


def test_a_stream_that_breaks_off_does_not_reach_its_stated_end() -> None:
    assert told(ListSource([frame(0), frame(1)], duration_s=60), at(50)) == ["f0", "f1", "!", "q@1"]


def test_sparse_sampling_still_reaches_the_stated_end() -> None:
    assert told(ListSource([frame(0), frame(30)], duration_s=60), at(50)) == ["f0", "f30", "q@50"]


def test_a_duration_ends_the_stream_early() -> None:
    source = ListSource([frame(s) for s in range(10)], duration_s=10)
    assert told(source, at(1), at(2), at(5), at(None, "z"), until_s=2) == ["f0", "f1", "q@1", "q@2", "!", "q@1", "z@1"]
    assert source.closed
    assert source.read == 3


def test_a_duration_longer_than_the_stream_changes_nothing() -> None:
    assert told(ListSource([frame(0), frame(1)]), at(1), until_s=99) == ["f0", "f1", "q@1"]


def test_every_question_has_its_own_id_and_keeps_its_limit() -> None:
    planned = [PlannedQuestion("a", 0, 5), PlannedQuestion("b", None)]
    asked = [e for e in ScheduledStream(ListSource([frame(0)]), planned, in_order=True) if isinstance(e, QuestionAsked)]
    assert [(e.question.id, e.question.max_tokens, e.in_order) for e in asked] == [("q1", 5, True), ("q2", None, True)]


def test_questions_about_live_streams_go_first() -> None:
    events = list(ScheduledStream(ListSource([frame(0)], live=True), [at(None)], in_order=False))
    assert [e.in_order for e in events if isinstance(e, QuestionAsked)] == [False]


def test_closing_ends_the_source_and_still_asks_for_the_end() -> None:
    source = ListSource([frame(0), frame(1)])
    stream = ScheduledStream(source, [at(None)], in_order=True)
    first = next(stream)
    stream.close()
    assert story([first, *stream]) == ["f0", "q@0"]


def test_an_empty_stream_still_answers() -> None:
    assert told(ListSource([]), at(None)) == ["q@0"]


def test_text_and_notices_have_times_too() -> None:
    assert event_time_ns(TextArrived("a", 3)) == 3
    assert event_time_ns(SourceNotice("a", 4)) == 4


# ---- paced -----------------------------------------------------------------------------------------


class Clock:
    """A clock that moves only when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def wait(self, timeout_s: float) -> bool:
        self.waits.append(round(timeout_s, 6))
        self.now_s += timeout_s
        return False


def paced(source: Source, monkeypatch: pytest.MonkeyPatch) -> tuple[PacedSource, Clock]:
    clock = Clock()
    made = PacedSource(source, clock)
    monkeypatch.setattr(made._closed, "wait", clock.wait)
    return made, clock


def test_a_paced_source_keeps_the_time_between_events(monkeypatch: pytest.MonkeyPatch) -> None:
    made, clock = paced(ListSource([frame(5), frame(6), frame(8.5)], duration_s=9), monkeypatch)
    assert story(made) == ["f5", "f6", "f8.5"]
    assert clock.waits == [0, 1, 2.5]
    assert (made.duration_ns, made.describe(), made.live) == (9 * NS_PER_S, "a list", False)


def test_a_late_paced_source_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    made, clock = paced(ListSource([frame(0), frame(1), frame(2)]), monkeypatch)
    next(made)
    clock.now_s += 1.5
    next(made)
    next(made)
    assert clock.waits == [0, 0, 0.5]


def test_closing_a_paced_source_ends_its_wait() -> None:
    source = ListSource([frame(0), frame(1000)])
    made = PacedSource(source)
    next(made)
    reading = threading.Thread(target=lambda: list(made))
    reading.start()
    made.close()
    reading.join(10)
    assert not reading.is_alive()
    assert source.closed


def test_a_paced_source_hands_the_frame_size_on() -> None:
    source = ListSource([])
    made = PacedSource(source)
    made.frame_size = lambda width, height: (width, height)
    assert source.frame_size is made.frame_size is not None
