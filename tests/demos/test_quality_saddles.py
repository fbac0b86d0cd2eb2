"""Maps of attention over text and video, and what is counted in them."""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import attention_maps
import numpy as np
import pytest
import saddles
import torch
from attention_maps import QUESTION, VIDEO_KINDS, AttentionMaps, kind_of, kinds_of_frame, text_maps, video_maps
from support.lived_engine import CHAT, picture
from support.media import numbered_clip
from support.tiny_models import tiny_tokenizer, tiny_weights

from inf_stream.base.tokens import TokenTags
from inf_stream.models.stream_model import StreamModel
from inf_stream.models.weights.loaded import LoadedWeights

QUESTIONS = ["What is it?", "And before?"]


def tiny(name: str, context: int = 2048) -> LoadedWeights:
    weights = tiny_weights(name, max_position_embeddings=context)
    return replace(weights, tokenizer=tiny_tokenizer(CHAT))


@pytest.fixture(scope="module")
def model() -> StreamModel:
    return StreamModel(tiny("llava-lite"))


def by_hand() -> AttentionMaps:
    """Five first tokens and a frame of two, then one of one, then one of three tokens; one layer and head."""
    received = np.zeros((3, 1, 1, 11), dtype=np.float32)
    received[0, 0, 0, :7] = [0.5, 0, 0, 0, 0.1, 0.3, 0.1]
    received[1, 0, 0, :8] = [0.4, 0, 0, 0, 0.0, 0.2, 0.1, 0.3]
    received[2, 0, 0, :] = [0.2, 0, 0, 0, 0.0, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1]
    came = np.array([0] * 7 + [1] + [2] * 3)
    kinds = ["first"] * 5 + ["time text", "other visual", "first visual", "time text", "first visual", "other visual"]
    return AttentionMaps(received, np.arange(3), came, np.array(kinds))


def test_shares_of_unequal_rounds_are_by_the_round_in_which_a_token_came() -> None:
    shares = saddles.shares_by_kind(by_hand(), VIDEO_KINDS)
    # Recent: 0.3 + 0.1, then 0.2 + 0.1 + 0.3, then 0.1 of the frame before and 0.3; the first frame is old by then.
    expected = {"first": 1.2, "recent": 1.4, "time text": 0.3, "first visual": 0, "other visual": 0.1, "text after": 0}
    assert shares == pytest.approx({name: part / 3 for name, part in expected.items()})
    assert saddles.shares_by_age(by_hand()) == pytest.approx({"0": 1.0 / 1.8, "1": 0.4 / 1.8, "2": 0.4 / 1.8})


def test_a_questions_own_text_is_a_kind_and_has_no_age() -> None:
    received = np.array([0.4, 0.1, 0.2, 0.3]).reshape(1, 1, 1, 4)
    maps = AttentionMaps(received, np.array([5]), np.array([0, 2, 5, 6]), np.array(["first", "time text"] * 2))
    maps.kinds[3] = QUESTION
    maps.kinds[2] = "other visual"
    found = saddles.shares_by_kind(maps, (*VIDEO_KINDS, QUESTION))
    assert {k: v for k, v in found.items() if v} == pytest.approx(
        {"first": 0.4, "recent": 0.2, "time text": 0.1, QUESTION: 0.3}
    )
    assert saddles.shares_by_age(maps) == pytest.approx({"0": 2 / 3, "1": 0, "2": 1 / 3, "4": 0})


def test_ages_go_as_far_back_as_the_stream() -> None:
    """With 70 rounds of one token each, of which only the oldest is looked at."""
    received = np.zeros((70, 1, 1, 70))
    received[:, :, :, 0] = 1
    maps = AttentionMaps(received, np.arange(70), np.arange(70), np.array(["other"] * 70))
    shares = saddles.shares_by_age(maps)
    assert shares["64"] == pytest.approx(6 / 70)
    assert sum(shares.values()) == pytest.approx(1)


def test_saddles_of_unequal_rounds_get_more_than_their_share_of_what_was_seen() -> None:
    # Equal shares are 1/8 and 1/11 in the last two rounds, where the first frame's time text gets 0.2 and 0.3.
    found = saddles.saddles_of(by_hand(), 2.0, "frames")
    assert found["saddles"] == 1
    assert found["longest_life_frames"] == 1
    assert saddles.saddles_of(by_hand(), 1.5, "frames")["longest_life_frames"] == 2
    assert saddles.saddles_of(by_hand(), 1.5, "tokens", 64)["longest_life_tokens"] == 128


def test_lives_of_saddles_are_counted_from_the_round_after() -> None:
    saddle = np.zeros((6, 4), dtype=bool)
    saddle[:, 0] = True
    saddle[2:4, 1] = True
    saddle[5, 1] = True
    saddle[0, 2] = True
    saddle[1, 3] = True
    # Tokens 0 and 1 come in round 0, 2 and 3 in round 1, when they count as recent.
    assert saddles.lives(saddle, np.array([0, 0, 1, 1])) == [5, 2, 1]
    assert saddles.lives(saddle, np.array([0, 2, 2, 2])) == [5, 1, 1]


def test_in_equal_rounds_the_place_of_a_token_says_when_it_came() -> None:
    """What is counted in a text, spelt out token by token."""
    rounds, chunk = 20, 8
    received = np.random.default_rng(0).dirichlet(np.full(rounds * chunk, 0.05), (rounds, 2, 3))
    for number in range(rounds):
        received[number, ..., (number + 1) * chunk :] = 0
    kinds = np.array(["first"] * 4 + ["other"] * (rounds * chunk - 4))
    maps = AttentionMaps(received, np.arange(rounds), np.arange(rounds * chunk) // chunk, kinds)
    mean = received.mean((1, 2))
    recent = sum(mean[n, max(4, (n - 1) * chunk) :].sum() for n in range(rounds))
    assert saddles.shares_by_kind(maps, ("first", "recent", "other")) == pytest.approx(
        {"first": mean[:, :4].sum() / mean.sum(), "recent": recent / mean.sum(),
         "other": (mean[:, 4:].sum() - recent) / mean.sum()}
    )  # fmt: skip
    old = sum(mean[n, t] for n in range(rounds) for t in range(4, rounds * chunk) if 4 <= n - t // chunk < 8)
    assert saddles.shares_by_age(maps)["4"] == pytest.approx(old / mean[:, 4:].sum())
    runs = []
    for layer, token in itertools.product(range(2), range(4, rounds * chunk)):
        later = range(token // chunk + 1, rounds)
        is_one = [received[n, layer, :, token].mean() > 8 / ((n + 1) * chunk) for n in later]
        runs += [len(list(run)) for one, run in itertools.groupby(is_one) if one]
    found = saddles.saddles_of(maps, 8.0, "tokens", chunk)
    assert (found["saddles"], found["longest_life_tokens"]) == (len(runs), max(runs) * chunk)
    assert found["mean_life_tokens"] == pytest.approx(np.mean(runs) * chunk)
    assert found["one_round_only"] == pytest.approx(runs.count(1) / len(runs))


def test_maps_of_a_text_add_up_to_all_attention() -> None:
    reader = StreamModel(tiny("llama"))
    maps = text_maps(reader, reader.ids("On this day the sea was calm. " * 20)[:300], 64)
    assert np.allclose(maps.received.sum(-1), 1, atol=1e-4)
    assert maps.received.shape[-1] == len(maps.kinds) == len(maps.came) == 256
    assert not maps.received[0, :, :, 64:].any()
    assert [*maps.kinds[:5]] == ["first"] * 4 + ["other"]


def test_maps_of_a_video_add_up_and_a_question_leaves_no_trace(model: StreamModel) -> None:
    frames = [picture(n) for n in range(7)]
    alone, nothing = video_maps(model, frames, [], 3)
    maps, asked = video_maps(model, frames, QUESTIONS, 3)
    assert nothing == {}
    assert np.array_equal(alone.received, maps.received)
    assert np.allclose(maps.received.sum(-1), 1, atol=1e-4)
    assert len(maps.at) == 7
    for number, received in enumerate(maps.received):
        assert received[..., maps.came == number].any()
        assert not received[..., maps.came > number].any()
    assert list(asked) == QUESTIONS
    for one in asked.values():
        assert [*one.at] == [2, 5]
        assert np.allclose(one.received.sum(-1), 1, atol=1e-4)
        own = one.kinds == QUESTION
        assert one.received[:, :, :, own].all(0).any()
        assert not one.received[0][..., ~own & (one.came > 2)].any()
        assert one.received[1][..., one.came == 5].any()


def test_a_frame_read_in_parts_gives_the_same_maps(model: StreamModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, asked = video_maps(model, [picture(n) for n in range(4)], QUESTIONS, 2)
    monkeypatch.setattr(attention_maps, "VIDEO_CHUNK", 3)
    parts, asked_in_parts = video_maps(model, [picture(n) for n in range(4)], QUESTIONS, 2)
    assert np.allclose(parts.received, whole.received, atol=1e-4)
    assert [*parts.kinds] == [*whole.kinds]
    for text, one in asked.items():
        assert np.allclose(asked_in_parts[text].received, one.received, atol=1e-4)


def test_a_video_ends_with_the_trained_context() -> None:
    reader = StreamModel(tiny("llava-lite", 320))
    maps, _ = video_maps(reader, [picture(n) for n in range(20)], [], 1)
    assert 0 < len(maps.at) < 20
    with pytest.raises(attention_maps.BudgetError, match="trained context of 200 tokens has no room"):
        video_maps(StreamModel(tiny("llava-lite", 200)), [picture(0)], [], 1)


def test_kinds_of_a_frames_tokens_come_from_its_tags() -> None:
    frame, visual = torch.tensor([-1, -1, 0, 0, 0, 0, 0, 0]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 0])
    tags = TokenTags(frame, frame, torch.arange(8), torch.zeros(3, 8, dtype=torch.int64), visual)
    middle = ["time text", "time text", "first visual", "other visual", "other visual", "text after"]
    assert kinds_of_frame(tags) == ["first", "first", *middle]


@pytest.mark.parametrize(
    ("token", "kind"),
    [("\n", "line break"), (" ,", "punctuation"), (" 7", "digit"), (" Sea", "capital"), ("sea", "other")],
)
def test_kinds_of_words(token: str, kind: str) -> None:
    assert kind_of(token) == kind


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["saddles.py", *map(str, words)])
    saddles.main()


def test_a_clip_is_measured_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(saddles, "load_weights", lambda settings: tiny("llava-lite"))
    clip, out, plot = numbered_clip(tmp_path / "clip.mp4", 40), tmp_path / "out.jsonl", tmp_path / "maps.png"
    words = ["--video", clip, "--frames", 6, "--fps", 2, "--ask-every", 2, "--times", 1.2, "--questions", *QUESTIONS]
    run(monkeypatch, *words, "--layers", 0, 2, 99, "--out", out, "--plot", plot)
    (found,) = map(json.loads, out.read_text().splitlines())
    assert (found["bench"], found["stream"], found["model"]) == ("saddles", "video", "demo")
    assert (found["video"], found["frames"]) == ("clip.mp4", 6)
    assert found["saddles"] > 0
    assert 1 <= found["median_life_frames"] <= found["longest_life_frames"] <= 5
    assert list(found["questions"]) == QUESTIONS
    for one in (found, *found["questions"].values()):
        assert sum(one["by_kind"].values()) == pytest.approx(1)
        assert sum(one["by_age"].values()) == pytest.approx(1)
        assert sum(one["tokens_by_kind"].values()) == pytest.approx(1)
    assert list(found["by_age"]) == ["0", "1", "2", "4"]
    assert plot.stat().st_size > 1000


def test_a_clip_that_is_not_there_and_a_model_that_cannot_see_end_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saddles, "load_weights", lambda settings: tiny("llama"))
    with pytest.raises(SystemExit, match=r"none\.mp4' cannot be opened"):
        run(monkeypatch, "--video", tmp_path / "none.mp4")
    with pytest.raises(SystemExit, match="is a text model and cannot see frames"):
        run(monkeypatch, "--video", numbered_clip(tmp_path / "clip.mp4", 4))


def test_numbers_below_one_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--video", "clip.mp4", "--frames", 0)
    assert "--frames 0 and --ask-every 10 must be at least 1" in capsys.readouterr().err
