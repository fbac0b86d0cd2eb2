"""Hours of video, what is asked of them, and what becomes of the answers."""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
import pytest
import video
from captions import CONCEPTS, Picture, load_pictures
from columns import Sizes
from hours import KEYS, NEVER, Hour, dense_hour, quiet_hour
from support.lived_engine import CHAT
from support.tiny_models import tiny_tokenizer, tiny_weights
from watching import Asked, Watcher, make_questions

from inf_stream.models.weights.loaded import LoadedWeights

SIZES = Sizes(budget=256, recall=64, chunk=256, evict_every=64, archive_mib=8)
AGES = [10, 60]
SECONDS, EVENTS = 600, 34


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of each thing, of one colour each."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "flickr8k" / "dev").mkdir(parents=True)
    rows, rng = [], np.random.default_rng(0)
    for number, words in enumerate([*CONCEPTS.values()] * 4):
        name = f"{number}.png"
        cv2.imwrite(str(folder / "flickr8k" / "dev" / name), np.full((8, 8, 3), rng.integers(256, size=3), np.uint8))
        rows.append({"image": name, "captions": [f"Number {number} and one {words.split()[0]}"] * 5})
    (folder / "flickr8k" / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def pictures(data: Path) -> list[Picture]:
    return load_pictures(data / "flickr8k", "dev")


@pytest.fixture
def quiet(pictures: list[Picture]) -> Hour:
    return quiet_hour(pictures, SECONDS, EVENTS, np.random.default_rng(0))


@pytest.fixture(scope="module")
def weights() -> LoadedWeights:
    return replace(tiny_weights("llava-lite"), tokenizer=tiny_tokenizer(CHAT))


def questions(hour: Hour, each: int = 5) -> list[Asked]:
    return make_questions(hour, AGES, each, np.random.default_rng(1))


def test_a_thing_of_its_own_is_in_no_other_event_of_a_quiet_hour(quiet: Hour, pictures: list[Picture]) -> None:
    shown = [pictures[e.picture] for e in quiet.events if e.picture >= 0]
    keyed = [e for e in quiet.events if e.key]
    assert 10 <= len(keyed) <= KEYS
    for event in keyed:
        assert [p.index for p in shown if event.key in p.mentions_any] == [event.picture]
    assert len(quiet.never) == NEVER
    assert not any(p.mentions_any & {*quiet.never} for p in shown)
    assert len({e.caption for e in quiet.events}) == len(quiet.events) == EVENTS


def test_events_follow_one_another_and_are_what_is_seen_then(quiet: Hour, pictures: list[Picture]) -> None:
    busy = [s for e in quiet.events for s in range(e.start_s, e.start_s + e.held_s)]
    assert busy == sorted(set(busy))
    assert busy[-1] < SECONDS
    for event in quiet.events:
        for since_s in range(event.held_s):
            assert (quiet.pixels(event.start_s + since_s) == event.pixels()).all()
    still = [quiet.pixels(s).astype(int) for s in range(0, 40) if s not in busy]
    assert all(0 < np.abs(a - b).mean() < 12 for a, b in itertools.pairwise(still)), "it changes slowly"


def test_no_two_frames_of_a_dense_hour_are_alike(pictures: list[Picture]) -> None:
    hour = dense_hour(pictures, len(pictures) * 20, 10, np.random.default_rng(0))
    assert len(hour.events) == 2 * len(pictures)
    views = {(e.picture, n // len(pictures)) for n, e in enumerate(hour.events)}
    assert len(views) == len(hour.events)
    first, mirrored = (
        hour.events[0],
        next(e for e in hour.events[len(pictures) :] if e.picture == hour.events[0].picture),
    )
    assert (first.pixels()[:, ::-1] == mirrored.pixels()).all()


def test_questions_are_asked_at_their_age_and_the_first_option_is_right(quiet: Hour) -> None:
    asked = questions(quiet)
    assert [a.at_s for a in asked] == sorted(a.at_s for a in asked)
    for kind in ("at", "appear", "when", "first"):
        for age_s in AGES:
            assert sum((a.kind, a.age_s) == (kind, age_s) for a in asked) == 5, (kind, age_s)
    starts = {e.key: e.start_s for e in quiet.events if e.key}
    for a in asked:
        assert len(set(a.options)) == len(a.options)
        if a.kind == "now":
            assert a.event.start_s <= a.at_s < a.event.start_s + a.event.held_s
            assert a.options[0] == a.event.caption
            continue
        assert a.at_s == a.event.start_s + a.age_s
        clock = f"{a.event.start_s // 60:02d}:{a.event.start_s % 60:02d}"
        if a.kind == "at":
            assert (a.text, a.options[0]) == (f"What was shown at {clock}?", f"{clock} {a.event.caption}")
        elif a.kind == "when":
            assert (a.text, a.options[0]) == (f"When did {a.event.key} appear?", f"{clock}.")
        elif a.kind == "appear":
            thing = a.text.removeprefix("Did ").removesuffix(" appear?")
            assert a.options == (("No.", "Yes.") if thing in quiet.never else ("Yes.", "No."))
            assert thing in quiet.never or thing == a.event.key
        else:
            said = [o[:1].lower() + o[1:-1] for o in a.options]
            assert starts[said[0]] < starts[said[1]] < a.at_s
    answers = [a.options[0] for a in asked if a.kind == "appear"]
    assert {"Yes.", "No."} == set(answers)


def test_of_a_dense_hour_only_moments_are_asked_for(pictures: list[Picture]) -> None:
    hour = dense_hour(pictures, 1000, 10, np.random.default_rng(0))
    assert {a.kind for a in questions(hour)} == {"at", "now"}


@pytest.mark.parametrize("column", ["inf-mllm", "inf-mllm+recall", "streaming-llm+rekv"])
def test_what_is_asked_leaves_no_trace(column: str, quiet: Hour, weights: LoadedWeights) -> None:
    asking, silent = Watcher(weights, column, SIZES), Watcher(weights, column, SIZES)
    asked = questions(quiet)
    for at_s in range(60):
        asking.watch(quiet, at_s)
        silent.watch(quiet, at_s)
        for one in asked:
            if one.at_s == at_s:
                asking.judge(one, timed=True)
    one, other = asking.engine.cache.state(), silent.engine.cache.state()
    for name, tensor in other.tensors.items():
        assert (one.tensors[name] == tensor).all(), name


def test_the_likeliest_option_is_found_and_whereabouts_are_told(quiet: Hour, weights: LoadedWeights) -> None:
    full, window = (Watcher(weights, c, SIZES) for c in ("full", "sliding-window"))
    asked = next(a for a in questions(quiet) if a.kind == "at" and a.age_s == 60)
    for at_s in range(asked.at_s + 1):
        full.watch(quiet, at_s)
        window.watch(quiet, at_s)
    likely = full._likelihoods(asked, with_recall=True)[0]
    best = int(np.argmax(likely))
    for number, option in enumerate(asked.options):
        others = [o for o in asked.options if o != option]
        found = full.judge(replace(asked, options=(option, *others)), timed=False)
        assert found["right"] is (number == best)
        assert (found["kept"], found["recalled"], found["chance"]) == (1.0, None, 0.25)
    assert window.judge(asked, timed=False)["kept"] == 0.0


def test_a_question_that_stays_is_a_turn_with_its_right_answer(quiet: Hour, weights: LoadedWeights) -> None:
    watcher = Watcher(weights, "full", SIZES)
    asked = next(a for a in questions(quiet) if a.kind == "at")
    ids: list[int] = []
    embed = watcher.engine.model.embed
    watcher.engine.model.embed = lambda new: ids.extend(new.tolist()) or embed(new)  # type: ignore[method-assign]
    for at_s in range(asked.at_s + 1):
        watcher.watch(quiet, at_s)
    watcher.keep(asked)
    watcher.watch(quiet, asked.at_s + 1)
    said = watcher.engine.model.tokenizer.decode(ids)
    assert asked.text in said
    assert said.index(asked.text) < said.index(asked.options[0])


def test_above_chance_is_what_is_right_beyond_guessing() -> None:
    replies = [
        {"kind": k, "age": 10, "right": r, "chance": c, "kept": 0.5, "recalled": None}
        for k, r, c in (("at", True, 0.25), ("at", False, 0.25), ("first", True, 0.5), ("now", False, 0.25))
    ]
    found = video.summary(replies)
    assert found["above_chance"] == pytest.approx(100 * (0.75 - 0.25 + 0.5) / 3, abs=0.1)
    assert found["by_kind"] == {"at": 50.0, "first": 100.0, "now": 0.0}
    assert found["kept_by_age"] == {"10": 0.5}


@pytest.mark.parametrize("stream", ["quiet", "dense"])
def test_it_runs_from_end_to_end_and_a_rerun_measures_nothing(
    stream: str, data: Path, weights: LoadedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(video, "load_weights", lambda _settings: weights)
    out, plot = tmp_path / "found.jsonl", tmp_path / "found.svg"
    words = [stream, "--data", data, "--seconds", 240, "--events", 34, "--ages", 10, "--each", 2, "--budget", 256,
             "--recall", 64, "--archive", 8, "--columns", "last-frames", "inf-mllm+recall", "--stay", "--cost",
             "--out", out, "--plot", plot]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["video.py", *map(str, words)])

    def run() -> dict[str, Any]:
        video.main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    first = run()
    assert set(first["summary"]) == {"last-frames", "inf-mllm+recall"}
    assert first["summary"]["inf-mllm+recall"]["first_token_ratio"] > 0
    assert plot.stat().st_size > 1000
    monkeypatch.setattr(common, "append", lambda *_: None)
    monkeypatch.setattr(video, "watch_hour", lambda *_: pytest.fail("measured again"))
    assert run()["summary"] == first["summary"]


@pytest.mark.parametrize(("seconds", "events", "what"), [(120, 34, "seconds for 34 events"), (3600, 10, "at least 33")])
def test_an_hour_that_cannot_be_is_refused(pictures: list[Picture], seconds: int, events: int, what: str) -> None:
    with pytest.raises(SystemExit, match=what):
        quiet_hour(pictures, seconds, events, np.random.default_rng(0))
