import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.command_line import save_tiny

from inf_stream.app.conversation import Conversation
from inf_stream.app.reports import Report, Screen
from inf_stream.base.config import settings_from_mapping
from inf_stream.base.events import (
    AnswerCancelled,
    AnswerFinished,
    AnswerStarted,
    FinishReason,
    FramesIngested,
    InputEvent,
    OutputEvent,
    Question,
    QuestionAsked,
)
from inf_stream.engine.build import build_engine, load_weights
from inf_stream.engine.engine import Engine


class Session:
    """Notes what is posted; `stop` ends nothing."""

    def __init__(self) -> None:
        self.posted: list[InputEvent] = []
        self.stopped = 0

    def post(self, event: InputEvent) -> None:
        self.posted.append(event)

    def stop(self) -> None:
        self.stopped += 1


class Silent(Report):
    """Keeps notes and events."""

    def __init__(self) -> None:
        super().__init__(Screen.standard())
        self.events: list[OutputEvent] = []
        self.notes: list[str] = []

    def _show(self, event: OutputEvent) -> None:
        self.events.append(event)

    def note(self, message: str, **facts: Any) -> None:
        self.notes.append(message)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = save_tiny(tmp_path_factory.mktemp("m"), "llama")
    model = {"name": str(folder), "device": "cpu", "dtype": "float32"}
    settings = settings_from_mapping({"model": model, "cache": {"budget_tokens": 64}})
    return build_engine(settings, load_weights(settings))


def test_the_first_interrupt_cancels_and_the_second_leaves(engine: Engine) -> None:
    async def main() -> None:
        left: list[int] = []
        session, report = Session(), Silent()
        with ThreadPoolExecutor(1) as worker:
            talk = conversation(engine, worker, report, session)
            await talk._ask("Who?")
            await talk._ask("Where?")
            talk.interrupt(lambda: left.append(1))
            assert [e.question_id for e in session.posted if isinstance(e, AnswerCancelled)] == ["q1", "q2"]
            assert (left, talk.left_by_interrupt) == ([], False)
            talk.interrupt(lambda: left.append(1))
            assert (left, talk.left_by_interrupt) == ([1], True)

    asyncio.run(main())


def test_a_new_question_may_be_cancelled_anew(engine: Engine) -> None:
    async def main() -> None:
        left: list[int] = []
        session, report = Session(), Silent()
        with ThreadPoolExecutor(1) as worker:
            talk = conversation(engine, worker, report, session)
            for name in ("q1", "q2"):
                await talk._ask("Who?")
                talk.interrupt(lambda: left.append(1))
                talk.show(AnswerFinished(Question(name, "Who?", 0), "", FinishReason.CANCELLED, 0, None))
            assert left == []
            talk.interrupt(lambda: left.append(1))
            assert left == [1]

    asyncio.run(main())


def test_who_cancels_what_waits_is_told_and_asked_anew(engine: Engine) -> None:
    async def main() -> None:
        prompts: list[int] = []
        report, answer = Silent(), Question("q1", "Who?", 0)
        with ThreadPoolExecutor(1) as worker:
            talk = conversation(engine, worker, report, Session())
            talk._prompt = lambda: prompts.append(1)
            await talk._ask("Who?")
            await talk._ask("Where?")
            talk.show(AnswerStarted(answer))
            talk.show(AnswerFinished(Question("q2", "Where?", 0), "", FinishReason.CANCELLED, 0, None))
            assert (report.notes, prompts) == (["[cancelled]"], [])
            talk.show(AnswerFinished(answer, "He", FinishReason.CANCELLED, 1, 0.1))
            assert (report.notes, prompts) == (["[cancelled]"], [1])

    asyncio.run(main())


def test_who_leaves_is_not_asked_anew(engine: Engine) -> None:
    async def main() -> None:
        prompts: list[int] = []
        report = Silent()
        with ThreadPoolExecutor(1) as worker:
            talk = conversation(engine, worker, report, Session())
            talk._prompt = lambda: prompts.append(1)
            await talk._ask("Who?")
            for _ in range(2):
                talk.interrupt(lambda: None)
            talk.show(AnswerFinished(Question("q1", "Who?", 0), "", FinishReason.CANCELLED, 0, None))
        assert (report.notes, prompts) == ([], [])

    asyncio.run(main())


def test_questions_have_the_time_of_the_video_or_of_the_clock(engine: Engine) -> None:
    async def main() -> None:
        session, report = Session(), Silent()
        with ThreadPoolExecutor(1) as worker:
            talk = conversation(engine, worker, report, session)
            await talk._ask("Who?")
            talk.show(FramesIngested(3, 7_000_000_000))
            await talk._ask("Where?")
        asked = [e.question for e in session.posted if isinstance(e, QuestionAsked)]
        assert [(q.id, q.at_ns) for q in asked] == [("q1", 2_500_000_000), ("q2", 7_000_000_000)]

    asyncio.run(main())


def test_a_map_in_a_bad_place_is_only_a_note(engine: Engine, tmp_path: Path) -> None:
    async def main() -> None:
        session, report = Session(), Silent()
        with ThreadPoolExecutor(1) as worker:
            talk = conversation(engine, worker, report, session)
            await talk._draw_map(str(tmp_path / "m.jpg"))
        assert "ends in .png" in report.notes[0]

    asyncio.run(main())


def conversation(engine: Engine, worker: Executor, report: Report, session: Session) -> Conversation:
    times = iter((0.0, 2.5, 99.0, 99.0))
    made = Conversation(engine, worker, report, prompt=lambda: None, one_by_one=False, clock=lambda: next(times))
    made._session = session  # type: ignore[assignment]
    return made
