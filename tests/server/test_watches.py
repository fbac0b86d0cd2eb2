"""Standing questions: when they are asked, and what of it is reported."""

import asyncio
import json
from typing import Any

import pytest
from support.realtime_clients import connected, image_item, serving, until
from support.serving import ListMaker, run_clean
from support.session_engine import ListEngine

from inf_stream.base.errors import StateError
from inf_stream.base.events import AnswerFinished, FinishReason, Question
from inf_stream.base.state import State
from inf_stream.engine.protocol import AnswerStep
from inf_stream.server.protocols.messages import MessageError
from inf_stream.server.protocols.watches import Alert, Watch, WatchLimits, Watchman, parse_watch

S = 1_000_000_000
LIMITS = WatchLimits(most=2, least_every_s=1.0, text_characters=20)
DOG = Watch("dog", "a dog?", every_s=2.0, cooldown_s=10.0)


class Watching:
    """A watchman whose questions are answered at once."""

    def __init__(self, *watches: Watch):
        self.watchman = Watchman(LIMITS)
        self.watchman.set_all(watches)
        self.asked = 0

    def sees(self, at_s: float, text: str, reason: FinishReason = FinishReason.STOP) -> list[Alert]:
        """A frame comes; every watch that is due is answered with `text`."""
        return [alert for alert in (self.answer(*one, text, reason) for one in self.ask(at_s)) if alert is not None]

    def ask(self, at_s: float) -> list[tuple[str, int]]:
        ids = []
        at_ns = round(at_s * S)
        for watch in self.watchman.due(at_ns):
            self.asked += 1
            self.watchman.asked(watch, f"w{self.asked}", at_ns)
            ids.append((f"w{self.asked}", at_ns))
        return ids

    def answer(self, question_id: str, at_ns: int, text: str, reason: FinishReason = FinishReason.STOP) -> Alert | None:
        assert self.watchman.knows(question_id)
        finished = AnswerFinished(Question(question_id, "?", at_ns), text, reason, 1, None)
        alert = self.watchman.answered(finished)
        assert not self.watchman.knows(question_id)
        return alert


def test_a_watch_is_asked_at_its_pace_and_one_question_at_a_time() -> None:
    watching = Watching(DOG)
    (one,) = watching.ask(0.0)
    assert watching.ask(5.0) == [], "still asking"
    watching.answer(*one, "no")
    assert watching.ask(1.9) == []
    assert len(watching.ask(2.0)) == 1


def test_it_speaks_once_of_what_it_sees_and_again_when_that_comes_back() -> None:
    watching = Watching(DOG)
    assert watching.sees(0, "No.") == []
    (alert,) = watching.sees(2, " yes, a dog")
    assert (alert.text, alert.at_ns, alert.metadata()) == (
        "yes, a dog",
        2 * S,
        {"trigger": "dog", "stream_time_s": "2.000"},
    )
    assert watching.sees(20, "Yes") == [], "nothing new"
    assert watching.sees(22, "No") == []
    assert len(watching.sees(24, "YES!")) == 1


def test_a_cool_down_keeps_it_from_chattering_but_loses_nothing() -> None:
    watching = Watching(DOG)
    assert len(watching.sees(0, "yes")) == 1
    watching.sees(2, "no")
    assert watching.sees(4, "yes") == [], "too soon"
    assert len(watching.sees(10, "yes")) == 1, "still there when the cool-down is over"


def test_answers_that_were_not_given_say_nothing() -> None:
    watching = Watching(DOG)
    assert watching.sees(0, "yes", FinishReason.CANCELLED) == []
    assert watching.sees(2, "yes", FinishReason.FAILED) == []
    assert watching.sees(4, "") == []
    assert len(watching.sees(6, "yes", FinishReason.LENGTH)) == 1


def test_a_watch_that_expects_nothing_reports_everything_at_its_pace() -> None:
    watching = Watching(Watch("news", "what is new?", expect="", every_s=1.0, cooldown_s=3.0))
    assert [len(watching.sees(at, f"at {at}")) for at in range(7)] == [1, 0, 0, 1, 0, 0, 1]


def test_watches_are_replaced_and_taken_away_even_while_they_are_asked() -> None:
    watching = Watching(DOG)
    (one,) = watching.ask(0)
    watching.watchman.set_all([DOG, Watch("cat", "a cat?")])
    assert watching.answer(*one, "yes") is not None, "the same watch goes on"
    (cat,) = watching.ask(0)
    watching.watchman.unset("cat")
    assert watching.answer(*cat, "yes") is None
    watching.watchman.set(Watch("dog", "another question?"))
    assert len(watching.sees(0, "yes")) == 1, "a new question is asked at once"
    with pytest.raises(MessageError, match="no watch 'cat'"):
        watching.watchman.unset("cat")
    watching.watchman.set(Watch("cat", "a cat?"))
    with pytest.raises(MessageError, match="at most 2"):
        watching.watchman.set(Watch("cow", "a cow?"))
    with pytest.raises(MessageError, match="at most 2"):
        watching.watchman.set_all([DOG, Watch("a", "?"), Watch("b", "?")])


def test_a_watch_is_read_back_as_it_is_written() -> None:
    watch = parse_watch({"id": "a", "question": "?", "cooldown_s": 5, "max_output_tokens": 3}, "watch", LIMITS)
    assert watch == Watch("a", "?", "yes", 2.0, 5.0, 3)
    assert parse_watch(watch.as_object(), "watch", LIMITS) == watch
    for bad in ({"question": "?" * 21}, {"expect": "x" * 65}, {"cooldown_s": -1}, {"max_output_tokens": 33}):
        with pytest.raises(MessageError):
            parse_watch({"id": "a", "question": "?"} | bad, "watch", LIMITS)


def test_restored_watches_stand_as_they_stood() -> None:
    watching = Watching(DOG, Watch("cat", "a cat?", every_s=2.0, cooldown_s=0.0))
    assert len(watching.sees(1, "yes")) == 2
    (dog, cat) = watching.ask(3)
    assert watching.answer(*cat, "no") is None
    again = Watching()
    again.watchman.restore(State(facts=json.loads(json.dumps(watching.watchman.state().facts))))
    assert again.watchman.watches == watching.watchman.watches
    assert not again.watchman.knows(dog[0]), "nobody answers that any more"
    assert again.ask(4) == [], "both were asked at 3"
    alerts = again.sees(5, "yes")
    assert [alert.watch.id for alert in alerts] == ["cat"], "the dog was reported, and has not ceased"
    assert again.sees(7, "no") == []
    assert again.sees(9, "yes") != [], "the cat again"
    assert [alert.watch.id for alert in again.sees(11, "yes")] == ["dog"], "after its cool-down"


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ({"watch": {"id": "a"}}, MessageError),
        ({"watch": None}, StateError),
        ({"armed": None}, StateError),
        ({"asked_ns": -1}, StateError),
        ({"alerted_ns": "1"}, StateError),
    ],
)
def test_watches_that_never_stood_so_are_refused(broken: dict[str, Any], error: type[Exception]) -> None:
    (standing,) = Watching(DOG).watchman.state().facts["standing"]
    with pytest.raises(error):
        Watchman(LIMITS).restore(State(facts={"standing": [standing | broken]}))
    with pytest.raises(MessageError, match="3 watches; at most 2"):
        Watchman(LIMITS).restore(State(facts={"standing": [standing] * 3}))


class SaysYesFrom(ListEngine):
    """Answers No until it has seen so many frames."""

    def __init__(self, frames: int):
        super().__init__(frames_per_step=1)
        self.frames = frames
        self.asked: list[Question] = []

    def begin_answer(self, question: Question) -> str | None:
        self.asked.append(question)
        return super().begin_answer(question)

    def step_answer(self) -> AnswerStep:
        assert self.said is not None
        self._called("step")
        seen = sum(m.startswith("frames") for m in self.memory)
        self.said.append("word")
        return AnswerStep("Yes" if seen >= self.frames else "No", FinishReason.STOP)


def test_a_client_is_told_unasked_and_in_the_words_of_its_protocol() -> None:
    engine = SaysYesFrom(3)

    class Maker(ListMaker):
        def make(self, options: Any) -> Any:
            return engine

    async def main() -> None:
        async with serving(Maker(), watch_interval_s=0.1) as server, connected(server) as connection:
            watches = [{"id": "dog", "question": "Is there a dog?", "every_s": 1, "cooldown_s": 1}]
            extras: Any = {"type": "realtime", "inf_stream": {"watches": watches}}
            await connection.session.update(session=extras)
            await until(connection, "session.updated")
            events: list[Any] = []
            (session,) = server.hub.sessions
            for second in range(5):
                await connection.conversation.item.create(item=image_item(timestamp_ms=1000 * second))
                events += await until(connection, "conversation.item.done")
                while session.stats()["frames"]["accepted"] <= second or not session.is_idle:
                    await asyncio.sleep(0.001)
            await connection.response.create(response={"metadata": {"mine": "yes"}})
            while not any(e.type == "response.done" and "mine" in e.response.metadata for e in events):
                events += await until(connection, "response.done")
        alerts = [e.response for e in events if e.type == "response.done" and "trigger" in e.response.metadata]
        assert [(a.metadata["trigger"], a.metadata["stream_time_s"]) for a in alerts] == [("dog", "2.000")]
        assert alerts[0].output[0].content[0].text == "Yes"

    run_clean(main())
    watched = [question for question in engine.asked if question.aside]
    assert watched
    assert {question.expect for question in watched} == {"yes"}, "the engine is told what names a moment"
    assert [question.expect for question in engine.asked if not question.aside] == [None]
