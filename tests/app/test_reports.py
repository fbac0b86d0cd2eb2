import io
import json
from typing import Any

import pytest
from rich.console import Console

from inf_stream.app import progress
from inf_stream.app.progress import StreamProgress, loading, starting
from inf_stream.app.reports import JsonReport, Report, Screen
from inf_stream.app.text_report import TextReport, stats_line
from inf_stream.app.throughput import Throughput
from inf_stream.base.clock import NS_PER_S
from inf_stream.base.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    FinishReason,
    FrameDropped,
    FramesIngested,
    OutputEvent,
    Question,
    SessionClosed,
    TextIngested,
    Warned,
)

QUESTION = Question("q1", "What?", 750 * NS_PER_S)
ENGINE_STATS = {
    "tokens_seen": 61234,
    "tokens_kept": 2048,
    "cache_bytes": 44145050,
    "process_bytes": 512 << 20,
    "policy": "inf-mllm",
}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def screen(*, terminal: bool = False) -> tuple[Screen, io.StringIO, io.StringIO]:
    out, errors = io.StringIO(), io.StringIO()
    console = Console(file=errors, force_terminal=terminal, width=200, color_system=None, legacy_windows=False)
    return Screen(out, console), out, errors


def answer(*pieces: str, reason: FinishReason = FinishReason.STOP, at_s: float = 750) -> list[OutputEvent]:
    question = Question("q1", "What?", round(at_s * NS_PER_S))
    deltas = [AnswerDelta("q1", piece) for piece in pieces]
    end = AnswerFinished(question, "".join(pieces), reason, len(pieces), 0.25, dict(ENGINE_STATS))
    return [AnswerStarted(question), *deltas, end]


def show(report: Report, events: list[OutputEvent]) -> None:
    for event in events:
        report.show(event)
    report.close()


# ---- JSON ------------------------------------------------------------------------------------------


def test_json_answers_go_to_standard_output_and_all_else_to_standard_error() -> None:
    where, out, errors = screen()
    clock = Clock()
    report = JsonReport(where, clock)
    clock.now_s = 2.0
    events: list[OutputEvent] = [
        FramesIngested(8, 7 * NS_PER_S),
        TextIngested(10, 7 * NS_PER_S),
        FrameDropped(9, 8 * NS_PER_S, "drop-oldest", 1),
        Warned("careful [now]", 8 * NS_PER_S),
        *answer(" A ", "cat.\n"),
        SessionClosed(750 * NS_PER_S),
    ]
    show(report, events)
    report.note("hello", path="x")
    (line,) = out.getvalue().splitlines()
    found = json.loads(line)
    assert list(found) == ["type", "at_s", "question", "text", "stats", "evidence"]
    assert (found["type"], found["at_s"], found["question"], found["text"]) == ("answer", 750, "What?", "A cat.")
    expected = ENGINE_STATS | {
        "finished": "stop", "answer_tokens": 2, "ttft_s": 0.25, "frames_per_s": 4.0, "dropped_frames": 1,
        "characters": 10, "characters_per_s": 5.0,
    }  # fmt: skip
    assert found["stats"] == expected
    asides = [json.loads(line) for line in errors.getvalue().splitlines()]
    kinds = ["frames", "text", "dropped", "warning", "asked", "delta", "delta", "end", "note"]
    assert [a["type"] for a in asides] == kinds
    assert asides[3] == {"type": "warning", "at_s": 8, "message": "careful [now]"}
    assert asides[-1] == {"type": "note", "message": "hello", "path": "x"}


def test_json_lines_are_never_broken_by_a_narrow_terminal() -> None:
    out, errors = io.StringIO(), io.StringIO()
    report = JsonReport(Screen(out, Console(file=errors, force_terminal=True, width=20, legacy_windows=False)))
    report.show(Warned("a long message that is wider than the terminal by far", 0))
    assert json.loads(errors.getvalue())["type"] == "warning"


def test_an_answer_that_never_began_has_no_time_to_its_first_token() -> None:
    where, out, _ = screen()
    report = JsonReport(where)
    report.show(AnswerFinished(QUESTION, "", FinishReason.CANCELLED, 0, None, {}))
    stats = json.loads(out.getvalue())["stats"]
    assert "ttft_s" not in stats
    assert stats["finished"] == "cancelled"


def test_a_warning_stands_in_the_answer() -> None:
    where, out, _ = screen()
    report = JsonReport(where)
    report.show(AnswerStarted(QUESTION, "beware"))
    report.show(AnswerFinished(QUESTION, "x", FinishReason.STOP, 1, 0.1, {}, warning="beware"))
    assert json.loads(out.getvalue())["warning"] == "beware"


# ---- text ------------------------------------------------------------------------------------------


def test_answers_stream_after_their_time() -> None:
    where, out, errors = screen()
    report = TextReport(where)
    started, first, second, finished = answer(" A cat", " sits.")
    report.show(started)
    report.show(first)
    assert out.getvalue() == "[12:30] A cat"
    report.show(second)
    report.show(finished)
    assert out.getvalue() == "[12:30] A cat sits.\n"
    assert errors.getvalue() == ""


def test_a_warning_comes_before_the_answer_it_is_about() -> None:
    where, out, errors = screen()
    started, *rest = answer("Yes.")
    assert isinstance(started, AnswerStarted)
    show(TextReport(where, questions=True), [AnswerStarted(started.question, "beware"), *rest])
    assert out.getvalue() == "[12:30] Yes.\n"
    assert errors.getvalue() == "? What?\nwarning: beware\n"


def test_questions_and_stats_go_to_standard_error() -> None:
    where, out, errors = screen()
    show(TextReport(where, stats=True, questions=True), answer("Yes [sic]."))
    assert out.getvalue() == "[12:30] Yes [sic].\n"
    question, stats = errors.getvalue().splitlines()
    assert question == "? What?"
    assert stats == ("61,234 tokens seen · 2,048 kept · cache 42.1 MiB · process 512 MiB · first token after 0.25 s")


def test_without_times_only_the_words_are_shown() -> None:
    where, out, _ = screen()
    show(TextReport(where, times=False), answer("Yes."))
    assert out.getvalue() == "Yes.\n"


def test_streamed_text_has_no_clock_but_characters() -> None:
    where, out, _ = screen()
    show(TextReport(where), [TextIngested(1500, 0), *answer("Ishmael.", at_s=0)])
    assert out.getvalue() == "[1,500 characters] Ishmael.\n"


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (FinishReason.LENGTH, "[12:30] A […]\n"),
        (FinishReason.CANCELLED, "[12:30] A [cancelled]\n"),
        (FinishReason.FAILED, "[12:30] A [failed]\n"),
    ],
)
def test_an_answer_cut_short_says_so(reason: FinishReason, shown: str) -> None:
    where, out, _ = screen()
    show(TextReport(where), answer("A", reason=reason))
    assert out.getvalue() == shown


def test_a_silent_answer_says_so() -> None:
    where, out, _ = screen()
    show(TextReport(where), answer())
    assert out.getvalue() == "[12:30] (no words)\n"


def test_control_characters_of_a_model_do_not_reach_the_terminal() -> None:
    where, out, _ = screen()
    show(TextReport(where), answer("a\x1b[31m\x07b\n\tc\x9b"))
    assert out.getvalue() == "[12:30] a�[31m�b\n\tc�\n"


def test_warnings_and_notes_end_an_open_line() -> None:
    where, out, errors = screen()
    report = TextReport(where)
    report.show(answer("A")[0])
    report.show(AnswerDelta("q1", "A"))
    report.show(Warned("the camera is back", 0))
    assert out.getvalue() == "[12:30] A\n"
    assert errors.getvalue() == "warning: the camera is back\n"
    report.close()
    assert out.getvalue() == "[12:30] A\n"


def test_an_interrupted_answer_leaves_a_whole_line() -> None:
    where, out, _ = screen()
    report = TextReport(where)
    report.show(answer("A")[0])
    report.close()
    assert out.getvalue() == "[12:30] \n"


def test_the_progress_line_steps_aside_for_an_answer() -> None:
    where, out, errors = screen(terminal=True)
    progress = StreamProgress(where.errors, "clip.mp4", 60.0)
    report = TextReport(where, progress)
    report.show(FramesIngested(1, 5 * NS_PER_S))
    report.show(FrameDropped(1, 0, "drop-oldest", 3))
    report.show(FramesIngested(1, 6 * NS_PER_S))
    progress.hide()
    seen = errors.getvalue()
    assert "clip.mp4" in seen
    assert "00:05 of 01:00" in seen
    events = answer("A")
    report.show(events[0])
    before = errors.getvalue()
    report.show(events[1])
    assert errors.getvalue() == before
    report.show(events[2])
    report.close()
    assert "00:06" in errors.getvalue()[len(before) :]
    assert "3 dropped" in errors.getvalue()
    assert out.getvalue() == "[12:30] A\n"


def test_off_a_terminal_there_is_no_progress() -> None:
    where, _, errors = screen()
    report = TextReport(where, StreamProgress(where.errors, "clip.mp4", None))
    show(report, [FramesIngested(1, NS_PER_S), TextIngested(5, 0), *answer("A")])
    with loading(where.errors, "m") as arrived:
        arrived(5, 10)
    assert errors.getvalue() == ""


def test_a_program_that_starts_says_so_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal in (True, False):
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=is_terminal, width=80, color_system=None, legacy_windows=False)
        monkeypatch.setattr(progress, "PipedConsole", lambda shown_on=console, **_: shown_on)
        with starting():
            pass
        assert ("starting" in shown.getvalue()) == is_terminal


def test_a_download_shows_its_bytes() -> None:
    where, _, errors = screen(terminal=True)
    with loading(where.errors, "smollm2-135m") as arrived:
        arrived(0, 92_000_000)
        arrived(46_000_000, 92_000_000)
    shown = errors.getvalue()
    assert "loading smollm2-135m" in shown
    assert "downloading smollm2-135m" in shown
    assert "46.0/92.0 MB" in shown


def test_the_standard_screen_writes_to_the_standard_streams(capsys: pytest.CaptureFixture[str]) -> None:
    where = Screen.standard()
    where.write("a\n")
    where.note("b [c] " + "d" * 300)
    assert capsys.readouterr() == ("a\n", "b [c] " + "d" * 300 + "\n")


# ---- rates -----------------------------------------------------------------------------------------


def test_time_spent_on_answers_does_not_slow_the_stream_down() -> None:
    clock = Clock()
    rates = Throughput(clock)
    clock.now_s = -5.0
    rates.start()
    clock.now_s = 0.0
    rates.start()
    assert (rates.frames_per_s, rates.characters_per_s) == (0.0, 0.0)
    clock.now_s = 1.0
    rates.count(FramesIngested(4, 0))
    clock.now_s = 1.5
    rates.count(AnswerStarted(QUESTION))
    clock.now_s = 100.0
    rates.count(AnswerFinished(QUESTION, "", FinishReason.STOP, 1, 0.1))
    clock.now_s = 101.0
    rates.count(FramesIngested(4, 0))
    assert rates.frames_per_s == 4.0
    rates.count(TextIngested(6, 0))
    assert rates.characters_per_s == 3.0
    rates.count(FrameDropped(0, 0, "x", 7))
    rates.count(SessionClosed(0))
    assert rates.dropped_frames == 7


def test_a_stats_line_leaves_out_what_is_not_known() -> None:
    some: dict[str, Any] = {"tokens_seen": 0, "frames": 0, "frames_per_s": 2.0, "policy": "x", "dropped_frames": 3}
    assert stats_line(some) == "0 tokens seen · 3 dropped · 2.0 frames/s"
    assert stats_line({}) == ""
