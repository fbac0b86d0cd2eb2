"""What the quality bench says and asks: repeatable, answerable, and asked at the age it claims."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import facts
import line_stream
import lines
import needles
import numpy as np
import pytest
import torch
import turns
from columns import Conversation, Reply, Sizes
from retrieval import Ask, Say, Script, play
from support.lived_engine import CHAT
from support.tiny_models import tiny_tokenizer, tiny_weights

SIZES = Sizes(budget=256, recall=64, chunk=192, evict_every=64, archive_mib=8)
TEXT = "".join(f"Then came day {n} and it was much like the one before. " for n in range(400))


def talk(column: str, sizes: Sizes = SIZES) -> Conversation:
    weights = tiny_weights("llama", max_position_embeddings=4096)
    return Conversation(replace(weights, tokenizer=tiny_tokenizer(CHAT)), column, sizes)


@pytest.fixture
def longeval(tmp_path: Path) -> Path:
    """Two prompts in LongEval's form, that share a line."""
    for name, numbers in (("200_lines", range(60)), ("300_lines", range(59, 120))):
        record = "".join(f"line big-dog{n}: REGISTER_CONTENT is <{n * 37 % 50000}>\n" for n in numbers)
        prompt = (
            f"Now the record start:\n\n{record}\nTell me what is the <REGISTER_CONTENT> in line big-dog{numbers[0]}?"
        )
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": prompt}) + "\n")
    return tmp_path


def line_script(longeval: Path, seed: int = 0) -> Script:
    found = line_stream.read_lines(longeval, 100, seed)
    return lines.make_script(found, 10, [0, 10, 40], np.random.default_rng(seed))


def turn_scripts(seed: int = 0) -> list[Script]:
    return turns.make_scripts(TEXT, 2, 6, 4, 80, seed)


def needle_script() -> Script:
    pieces = list(facts.paragraphs(TEXT, 200))[:12]
    return needles.make_script(pieces, facts.make_facts(12, np.random.default_rng(3)), [0, 2, 8])


def test_lines_are_longevals_own_each_index_once(longeval: Path) -> None:
    found = line_stream.read_lines(longeval, 120, 0)
    assert {line.index for line in found} == {f"big-dog{n}" for n in range(120)}
    assert all(line.digits == str(int(line.index[7:]) * 37 % 50000) for line in found)
    with pytest.raises(SystemExit, match="120 lines of different indices; 121 are needed"):
        line_stream.read_lines(longeval, 121, 0)


def test_the_same_seed_gives_the_same_script_and_another_does_not(longeval: Path) -> None:
    for make in (lambda seed: line_script(longeval, seed), turn_scripts):
        assert make(1) == make(1)
        assert make(1) != make(2)


@pytest.mark.parametrize("name", ["lines", "turns", "needles"])
def test_what_is_asked_was_said_before_once_and_its_answer_with_it(name: str, longeval: Path) -> None:
    scripts: dict[str, Callable[[], list[Script]]] = {
        "lines": lambda: [line_script(longeval)], "turns": turn_scripts, "needles": lambda: [needle_script()]
    }  # fmt: skip
    for script in scripts[name]():
        said = ""
        for event in script:
            if isinstance(event, Say):
                said += event.text
                assert all(event.text.count(item.text) == 1 for item in event.items)
            else:
                assert said.count(event.item.text) == 1
                assert event.item.lead + event.item.digits in said
                assert event.item.digits not in event.item.question + event.item.lead
        assert any(isinstance(event, Ask) for event in script)


def test_lines_are_asked_for_at_their_distance(longeval: Path) -> None:
    said: list[line_stream.Line] = []
    asked = 0
    for event in line_script(longeval):
        if isinstance(event, Say):
            said += event.items
        else:
            between = len(said) - 1 - said.index(event.item)
            assert event.age <= between < event.age + 5
            assert event.turn == len(said) // 10 - 1
            asked += 1
    # The first round of a distance is asked only if the line, up to four further back, is there.
    assert 9 + 8 + 5 <= asked <= 10 + 9 + 6


def test_turns_ask_each_fact_once_at_its_age_and_questions_stay() -> None:
    for script in turn_scripts():
        pieces = [event for event in script if isinstance(event, Say)]
        questions = [event for event in script if isinstance(event, Ask)]
        assert [q.turn for q in questions] == [1, 2, 3, 4]
        assert len({q.item for q in questions}) == 4
        assert not any(q.aside for q in questions)
        for q in questions:
            at = next(n for n, piece in enumerate(pieces) if q.item in piece.items)
            before = sum(isinstance(event, Say) for event in script[: script.index(q)])
            assert q.age == before - at


def test_episodes_share_no_text_and_a_short_one_is_refused() -> None:
    one, other = ({event.text for event in script if isinstance(event, Say)} for script in turn_scripts())
    assert not one & other
    with pytest.raises(SystemExit, match="pieces; 18000 are needed"):
        turns.make_scripts(TEXT, 2000, 6, 4, 80, 0)
    with pytest.raises(SystemExit, match="lower --turns or raise --facts"):
        turns.make_scripts(TEXT, 1, 3, 4, 80, 0)


def test_needles_are_asked_for_at_their_age() -> None:
    count = 0
    for event in needle_script():
        if isinstance(event, Say):
            count += 1
            newest = event.items[0]
        elif event.age == 0:
            assert event.item == newest
    assert count == 12


def test_facts_are_of_different_things_with_different_codes() -> None:
    made = facts.make_facts(416, np.random.default_rng(0))
    assert len({(f.owner, f.thing) for f in made}) == len({f.digits for f in made}) == 416
    assert all(len(f.digits) == 5 for f in made)
    with pytest.raises(ValueError, match="416 different ones"):
        facts.make_facts(417, np.random.default_rng(0))


@pytest.mark.parametrize("column", ["full", "inf-mllm+attended"])
def test_spans_are_where_the_items_stand(column: str, longeval: Path) -> None:
    conversation = talk(column)
    model, ids = conversation.engine.model, list[int]()
    embed = model.embed
    model.embed = lambda new: ids.extend(new.tolist()) or embed(new)  # type: ignore[method-assign]
    events = [event for event in line_script(longeval)[:3] if isinstance(event, Say)]
    for event in events:
        conversation.read(event.text, event.items, 0)
    assert conversation._spans
    # The usual questions, which an archive hears first, left no tokens.
    stream = ids[len(ids) - conversation.engine.cache.seen_tokens :]
    for item, (first, end) in conversation._spans.items():
        assert model.tokenizer.decode(stream[first:end]) == item.text


@pytest.mark.parametrize(
    ("said", "right"), [("48213.", True), ("482133", False), ("48214.", False), ("58213.", False), ("4821.3", False)]
)
def test_an_answer_is_right_digit_by_digit_and_ends_there(said: str, right: bool) -> None:
    conversation = talk("full")
    fact = facts.Fact("Adam", "safe", "48213")
    conversation.read(fact.text, (fact,), 0)
    model = conversation.engine.model
    likeliest = model.ids(said)

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(len(hidden), len(model.tokenizer))
        found[torch.arange(-6, 0), likeliest] = 9.0
        return found

    model.logits = logits  # type: ignore[method-assign]
    reply = conversation.ask(fact, 1, aside=True)
    assert reply.right is right
    assert (reply.loss < 0.2) is (said[:5] == "48213")


def test_the_loss_of_one_pass_is_that_of_one_token_after_the_other() -> None:
    fact = facts.Fact("Adam", "safe", "48213")
    conversation, slow = talk("full"), talk("full").engine
    conversation.read(TEXT[:100] + fact.text, (fact,), 0)
    slow.ingest_text(TEXT[:100] + fact.text, 0)
    chunk = slow._assembler.question(fact.question, 0)
    slow._reader.read(chunk)
    losses, hidden = [], torch.empty(0)
    for number, token in enumerate(slow.model.ids(fact.lead + fact.digits).tolist()):
        if number >= len(fact.lead):
            losses.append(-slow.model.logits(hidden)[0].log_softmax(-1)[token])
        hidden = slow._reader.read(slow._assembler.answer_token(token))
    assert conversation.ask(fact, 0, aside=True).loss == pytest.approx(float(torch.stack(losses).mean()), abs=1e-3)


@pytest.mark.parametrize("column", ["inf-mllm", "inf-mllm+recall", "inf-mllm+attended", "streaming-llm+rekv", "h2o"])
def test_asides_leave_no_trace_in_the_cache(column: str) -> None:
    asked, silent = talk(column), talk(column)
    script = needle_script()
    play(asked, script, "asked")
    play(silent, [event for event in script if isinstance(event, Say)], "silent")
    one, other = asked.engine.cache.state(), silent.engine.cache.state()
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in other.tensors.items():
        assert torch.equal(one.tensors[name], tensor), name


def test_whereabouts_say_what_is_live_and_what_was_recalled() -> None:
    script = needle_script()
    sizes = replace(SIZES, budget=1024, recall=1024)
    columns = ("full", "sliding-window", "sliding-window+attended")
    full, window, recalled = (play(talk(column, sizes), script, column) for column in columns)
    assert all(r["kept"] == 1.0 and r["recalled"] is None for r in full)
    assert all(r["kept"] == 0.0 for r in window if r["age"] == 8)
    assert any(r["recalled"] for r in recalled if r["age"] == 8)


def test_a_policy_that_keeps_everything_ends_at_the_trained_context() -> None:
    script = needle_script()
    short = talk("full")
    short.engine.model.weights.config.max_position_embeddings = 1024
    assert 0 < len(play(short, script, "short")) < len(play(talk("full"), script, "long"))
    assert short.engine.cache.seen_tokens <= 1024


def test_an_aside_without_room_is_refused() -> None:
    conversation = talk("inf-mllm", replace(SIZES, chunk=64))
    with pytest.raises(SystemExit, match="tokens of room: raise --chunk above that"):
        play(conversation, needle_script(), "narrow")


def test_an_unknown_recall_is_refused() -> None:
    with pytest.raises(SystemExit, match="no recall 'rag'"):
        talk("inf-mllm+rag")


def test_replies_are_what_the_results_hold() -> None:
    assert set(play(talk("full"), needle_script()[:3], "short")[0]) == {"turn", "age", *Reply.__dataclass_fields__}
