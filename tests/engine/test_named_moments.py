"""Questions to an engine that name a moment, told by text, by answers and by standing questions."""

from pathlib import Path

import pytest
import torch
from support.lived_engine import S, hear, live, make_engine, picture

from inf_stream.base.errors import StateError
from inf_stream.base.events import AnswerFinished, Question
from inf_stream.base.state import State, read_state, write_state
from inf_stream.engine.engine import Engine
from inf_stream.engine.sampling import Sampler
from inf_stream.session.replay import ExecutedStep, GiveAnswer, replay
from inf_stream.session.steps import IngestText
from inf_stream.sources.recorder import Recorder
from inf_stream.sources.recording import Recording

ARCHIVE = {"host_mib": 8, "recall_tokens": 64, "merge_above": 2.0}
BEFORE, AFTER, WHEN = (f"What was there {side} the dog came?" for side in ("before", "after", "when"))


class Says:
    """Lets an engine answer what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._patch = monkeypatch

    def __call__(self, engine: Engine, question: Question, answer: str) -> None:
        ids = [*engine.model.ids(answer).tolist(), next(iter(engine.model.stop_ids))]
        with self._patch.context() as patch:
            drawn = iter(ids)
            patch.setattr(Sampler, "draw", lambda _sampler, _logits: next(drawn))
            engine.begin_answer(question)
            said = "".join(engine.step_answer().text for _ in ids)
            engine.end_answer()
        assert said == answer


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Says:
    return Says(monkeypatch)


def see(engine: Engine, *numbers: int) -> None:
    for number in numbers:
        engine.ingest_frames([picture(number)])


def seeing(name: str = "smolvlm") -> Engine:
    return make_engine(name, archive=ARCHIVE, cache={"budget_tokens": 128})


def recalled(engine: Engine, text: str, at_s: int) -> set[tuple[int, int]]:
    """From which second to which the blocks are that the question may call back."""
    engine.begin_answer(Question("ask", text, at_s * S, aside=True))
    recall = engine.cache.recall
    assert recall is not None
    facts, allowed = recall.archive._facts, torch.cat([ballot.places for ballot in recall.ballots])
    assert torch.isin(recall.chosen(0), allowed).all()
    times = zip(facts.from_ns[allowed].tolist(), facts.to_ns[allowed].tolist(), strict=True)
    engine.end_answer()
    return {(from_ns // S, to_ns // S) for from_ns, to_ns in times}


def assert_narrowed(engine: Engine, from_s: int, to_s: int, at_s: int = 60) -> None:
    """To the reach around a dog that was there from and to these seconds."""
    everything = recalled(engine, "What was there?", at_s)
    before = {block for block in everything if block[0] <= to_s + 5}
    after = {block for block in everything if block[1] >= from_s - 5}
    assert before < everything > after
    assert recalled(engine, BEFORE, at_s) == before
    assert recalled(engine, AFTER, at_s) == after
    assert recalled(engine, WHEN, at_s) == before & after
    assert before & after
    assert recalled(engine, "What was there before the dragon?", at_s) == everything


@pytest.mark.parametrize("name", ["llama", "smolvlm", "qwen2.5-vl"])
def test_streamed_text_names_its_moment(name: str) -> None:
    engine = make_engine(name, archive=ARCHIVE)
    for number in range(60):
        if engine.model.vision is None:
            engine.ingest_text(f"line {number} says nothing much. ", number * S)
        else:
            see(engine, number)
        if number == 20:
            engine.ingest_text("A dog barks.", 20 * S)
    assert_narrowed(engine, 20, 20)


def test_an_answer_names_its_moment(says: Says) -> None:
    engine = seeing()
    see(engine, *range(21))
    says(engine, Question("q", "What do you see?", 20 * S), "A dog.")
    see(engine, *range(21, 60))
    assert_narrowed(engine, 20, 20)


def test_an_answer_that_tells_a_time_names_that(says: Says) -> None:
    engine = seeing()
    see(engine, *range(60))
    says(engine, Question("q", "When did a dog appear?", 59 * S), "00:18.")
    assert_narrowed(engine, 18, 18)


@pytest.mark.parametrize(("question", "answer"), [("Did a dog appear?", "Yes."), ("Is there a dog?", "No.")])
def test_what_tells_no_moment_narrows_nothing(says: Says, question: str, answer: str) -> None:
    engine = seeing()
    see(engine, *range(21))
    says(engine, Question("q", question, 20 * S), answer)
    see(engine, *range(21, 60))
    everything = recalled(engine, "What was there?", 60)
    assert all(recalled(engine, asked, 60) == everything for asked in (BEFORE, AFTER, WHEN))


def test_a_standing_question_names_the_moments_when_it_was_answered_as_expected(says: Says) -> None:
    engine = seeing()
    for number in range(60):
        see(engine, number)
        if number % 2 == 0:
            watch = Question(f"w{number}", "Is there a dog?", number * S, aside=True, expect="yes")
            says(engine, watch, "Yes" if 20 <= number <= 24 else "No")
    assert_narrowed(engine, 20, 24)


def test_other_asides_name_nothing(says: Says) -> None:
    engine = seeing()
    see(engine, *range(21))
    before = engine.state().facts["named"]
    says(engine, Question("q", "What do you see?", 20 * S, aside=True), "A dog.")
    assert engine.state().facts["named"] == before == {"known": []}


def test_without_an_archive_nothing_is_known() -> None:
    engine = make_engine("llama")
    engine.ingest_text("A dog barks.", 0)
    assert engine.state().facts["named"] == {"known": []}


def test_text_that_was_refused_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = seeing("llama")
    engine.ingest_text("A cat purrs.", 0)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(engine.model, "forward", fail)
    with pytest.raises(MemoryError):
        engine.ingest_text("A dog barks.", 0)
    assert engine.state().facts["named"] == {"known": [["cat purr", 0, 0]]}


def test_a_restored_engine_knows_the_same_moments_and_answers_the_same(tmp_path: Path) -> None:
    one, again = seeing(), seeing()
    see(one, *range(20))
    one.ingest_text("A dog barks.", 20 * S)
    said = live(one, 21, 40)
    write_state(one.state().on_cpu(), tmp_path / "s.ifs")
    again.restore(read_state(tmp_path / "s.ifs"))
    assert_narrowed(again, 20, 20, 70)
    for number, text in enumerate((BEFORE, AFTER, WHEN)):
        asked = Question("q", text, (70 + number) * S)
        assert hear(one, asked) == hear(again, Question("q", text, (70 + number) * S))
    assert said
    assert one.state().facts["named"] == again.state().facts["named"]


def test_files_of_before_have_no_named_moments_and_others_are_checked() -> None:
    one = seeing("llama")
    live(one, 0, 20)
    saved = one.state().on_cpu()
    facts = {name: fact for name, fact in saved.facts.items() if name != "named"}
    again = seeing("llama")
    again.restore(State(saved.tensors, facts))
    assert again.state().facts["named"] == {"known": []}
    with pytest.raises(StateError, match="something else than words and two times"):
        seeing("llama").restore(State(saved.tensors, facts | {"named": {"known": ["dog"]}}))
    with pytest.raises(StateError, match="no list called 'known'"):
        seeing("llama").restore(State(saved.tensors, facts | {"named": {}}))


def test_a_recorded_session_knows_and_answers_the_same_again(tmp_path: Path) -> None:
    steps: list[ExecutedStep] = [IngestText(f"line {number} says nothing much. ", number * S) for number in range(30)]
    steps[10:10] = [
        IngestText("A dog barks.", 10 * S),
        GiveAnswer(Question("w", "Is there a dog?", 10 * S, 8, aside=True, expect=""), 8),
    ]
    steps += [GiveAnswer(Question(f"q{n}", text, 30 * S, 8), 8) for n, text in enumerate((BEFORE, AFTER, WHEN))]
    with Recorder(tmp_path / "r", 1 << 20, print) as recorder:
        for step in steps:
            recorder.record(step)
    one, again = seeing("llama"), seeing("llama")
    answers = [
        [event.text for event in replay(engine, given) if isinstance(event, AnswerFinished)]
        for engine, given in ((one, steps), (again, Recording(tmp_path / "r")))
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) == 4
    known = one.state().facts["named"]["known"]
    assert known == again.state().facts["named"]["known"]
    assert ["bark dog", 10 * S, 10 * S] in known
    assert len(known) > 31, "what the standing question was told, too"
