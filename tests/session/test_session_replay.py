from collections.abc import Sequence
from dataclasses import replace

import pytest
from support.session_engine import ListEngine, ask, frame, frames

from inf_stream.base.errors import BudgetError
from inf_stream.base.events import (
    AnswerCancelled,
    AnswerFinished,
    AnswerStarted,
    FinishReason,
    InputEvent,
    OutputEvent,
    SessionClosed,
    StreamEnded,
    TextArrived,
    Warned,
)
from inf_stream.session.limits import SessionLimits
from inf_stream.session.machine import SessionMachine
from inf_stream.session.replay import ExecutedStep, GiveAnswer, StepRecorder, replay
from inf_stream.session.steps import Emit, IngestFrames, IngestText, RunStep, execute

SCRIPT: list[tuple[int, InputEvent]] = [
    *[(0, event) for event in frames(3)],
    (0, ask("first")),
    (1, TextArrived("it was the best of times", 3)),
    (9, ask("second")),
    (11, ask("third")),
    (12, AnswerCancelled("second")),
    *[(14, event) for event in frames(2, first=3)],
    (15, ask("fourth", in_order=True)),
    (15, StreamEnded()),
]


def live(engine: ListEngine, script: Sequence[tuple[int, InputEvent]]) -> tuple[list[OutputEvent], list[ExecutedStep]]:
    """Play a script of (steps done before, event) and record it."""
    machine = SessionMachine(engine, SessionLimits())
    recorded: list[ExecutedStep] = []
    recorder = StepRecorder(recorded.append)
    events: list[OutputEvent] = []
    waiting, actions, flying, done = list(script), [], None, 0
    while waiting or flying is not None:
        if waiting and (waiting[0][0] <= done or flying is None):
            actions = machine.receive(waiting.pop(0)[1], 0)
        else:
            assert flying is not None
            result = execute(engine, flying)
            recorder(flying, result)
            flying, done = None, done + 1
            actions = machine.step_done(result, 0)
        events += [a.event for a in actions if isinstance(a, Emit)]
        flying = next((a.step for a in actions if isinstance(a, RunStep)), flying)
    return events, recorded


def told(events: Sequence[OutputEvent], recorded: Sequence[ExecutedStep]) -> list[OutputEvent]:
    """What executed steps say, without times that depend on when other events came."""
    begun = {step.question.id for step in recorded if isinstance(step, GiveAnswer)}
    kept: list[OutputEvent] = []
    for event in events:
        if isinstance(event, AnswerFinished):
            kept += [replace(event, ttft_s=None, tokens_per_s=None)] if event.question.id in begun else []
        elif isinstance(event, Warned):
            kept += [] if "no answer to cancel" in event.message else [replace(event, at_ns=0)]
        else:
            kept.append(event)
    return kept


def test_a_recording_is_steps_with_whole_answers() -> None:
    _, recorded = live(ListEngine(), SCRIPT)
    assert [type(s).__name__ for s in recorded].count("GiveAnswer") == 4
    assert next(s.decoding_steps for s in recorded if isinstance(s, GiveAnswer)) == 3
    assert any(isinstance(s, GiveAnswer) and s.decoding_steps < 3 for s in recorded), "one was cut short"
    assert [len(s.frames) for s in recorded if isinstance(s, IngestFrames)] == [1, 2, 2]


def test_a_replay_says_and_remembers_the_same() -> None:
    first, second = ListEngine(), ListEngine()
    events, recorded = live(first, SCRIPT)
    assert told(list(replay(second, recorded)), recorded) == told(events, recorded)
    assert (second.memory, second.calls) == (first.memory, first.calls)
    assert isinstance(events[-1], SessionClosed)


@pytest.mark.parametrize("call", range(22))
def test_a_replay_repeats_what_failed(call: int) -> None:
    first = ListEngine(failures={call: BudgetError("no room")})
    second = ListEngine(failures={call: BudgetError("no room")})
    events, recorded = live(first, SCRIPT)
    assert told(list(replay(second, recorded)), recorded) == told(events, recorded)
    assert (second.memory, second.calls) == (first.memory, first.calls)


def test_a_replay_cuts_an_answer_where_it_was_cut() -> None:
    engine = ListEngine()
    steps = [GiveAnswer(ask("a").question, 0), GiveAnswer(ask("b").question, 2), GiveAnswer(ask("c").question, 3)]
    events = list(replay(engine, steps, clock_ns=lambda: 0))
    answers = [e for e in events if isinstance(e, AnswerFinished)]
    assert [(a.tokens, a.reason) for a in answers] == [
        (0, FinishReason.CANCELLED),
        (2, FinishReason.CANCELLED),
        (3, FinishReason.STOP),
    ]
    assert [e.question.id for e in events if isinstance(e, AnswerStarted)] == ["b", "c"]


def test_an_empty_recording_is_a_closed_session() -> None:
    assert list(replay(ListEngine(), [])) == [SessionClosed(0)]


def test_recorded_portions_stay_whole() -> None:
    engine = ListEngine(frames_per_step=9, characters_per_step=99)
    steps: list[ExecutedStep] = [
        IngestFrames((frame(0), frame(1), frame(2))),
        IngestFrames((frame(3),)),
        IngestText("a long piece of text that is one step", 4),
    ]
    list(replay(engine, steps))
    assert engine.calls == ["frames", "frames", "text"]
