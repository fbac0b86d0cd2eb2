"""The quality bench goes on where it stopped, counts rightly, and runs from end to end on a tiny model."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import ablations
import choice
import common
import lines
import needles
import perplexity
import pytest
import retrieval
import saddles
import texts
import torch
import turns
from support.lived_engine import CHAT
from support.tiny_models import tiny_tokenizer, tiny_weights

from inf_stream.cache.policies import POLICIES, make_policy
from inf_stream.cache.policies.base import Evidence
from inf_stream.models.weights.loaded import LoadedWeights

STORY = "".join(f"On day {n} the sea was {'calm' if n % 3 else 'rough'}, and nobody came. " for n in range(900))


@pytest.fixture(autouse=True)
def summed_for_this_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variant without normalisation is no policy of the product."""
    monkeypatch.setitem(POLICIES, ablations.Summed.name, ablations.Summed)


def tiny(_: object) -> LoadedWeights:
    weights = tiny_weights("llama", max_position_embeddings=2048)
    return replace(weights, tokenizer=tiny_tokenizer(CHAT))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "story.txt").write_text("Title page. " * 200 + STORY)
    record = "".join(f"line big-dog{n}: REGISTER_CONTENT is <{n * 37}>\n" for n in range(80))
    (folder / "200_lines.jsonl").write_text(json.dumps({"prompt": record}) + "\n")
    return folder


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: object) -> dict[str, Any]:
    """The script's last line."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
    module.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


RETRIEVAL = ["--model", "tiny", "--columns", "full", "inf-mllm", "inf-mllm+attended", "--budget", 256, "--recall", 64,
             "--archive", 8]  # fmt: skip
SCRIPTS: dict[str, tuple[ModuleType, list[object]]] = {
    "perplexity": (perplexity, ["--data", "DATA", "--texts", "story", "--tokens", 2500, "--budgets", 64, "--chunks",
                                64, "--policies", "inf-mllm", "h2o", "full"]),
    "lines": (lines, ["--data", "DATA", *RETRIEVAL, "--rounds", 3, "--lines", 8, "--distances", 0, 8]),
    "turns": (turns, ["--data", "DATA", *RETRIEVAL, "--text", "story", "--episodes", 2, "--facts", 4, "--turns", 2,
                      "--piece", 100]),
    "needles": (needles, ["--data", "DATA", *RETRIEVAL, "--text", "story", "--tokens", 300, "--every", 50, "--ages",
                          0, 100]),
    "ablations": (ablations, ["--texts", "DATA", "--text", "story", "--tokens", 1000, "--lines", "DATA", "--rounds", 2,
                              "--groups", "slope", "normalisation", "--budget", 192, "--model", "tiny"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs_from_end_to_end_and_a_rerun_measures_nothing(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, words = SCRIPTS[name]
    for loads in (perplexity, retrieval, ablations):
        monkeypatch.setattr(loads, "load_weights", tiny)
    out, plot = tmp_path / "out.jsonl", tmp_path / "plot.svg"
    words = [data if word == "DATA" else word for word in words] + ["--out", out, "--plot", plot]
    first = run(module, monkeypatch, capsys, *words)
    assert {"bench", "device", "commit", "command"} <= first.keys()
    assert list(tmp_path.glob("plot*.svg"))
    parts = [entry["part"] for entry in map(json.loads, out.read_text().splitlines()) if "part" in entry]
    assert len(parts) == len({json.dumps(part) for part in parts}) > 1

    def again(*_: object) -> None:
        raise AssertionError("measured again")

    for module_, measure in ((perplexity, "measure"), (retrieval, "play"), (ablations, "lines_of"),
                             (ablations, "perplexity_of")):  # fmt: skip
        monkeypatch.setattr(module_, measure, again)
    second = run(module, monkeypatch, capsys, *words)
    assert {k: v for k, v in first.items() if k != "threads"} == {k: v for k, v in second.items() if k != "threads"}


def test_what_is_skipped_is_left_out_and_the_part_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(perplexity, "load_weights", tiny)
    read: dict[int, torch.Tensor] = {}

    def measure(model: object, ids: torch.Tensor, part: dict[str, Any], minutes: float | None) -> dict[str, Any]:
        read[part.get("skip", 0)] = ids
        return {"tokens": 1, "loss": 0.0, "loss_trained": 0.0, "pieces": [0.0], "older_than_2_budgets": 0.0}

    monkeypatch.setattr(perplexity, "measure", measure)
    words = ["--data", data, "--texts", "story", "--budgets", 64, "--policies", "inf-mllm"]
    run(perplexity, monkeypatch, capsys, *words, "--tokens", 300)
    run(perplexity, monkeypatch, capsys, *words, "--tokens", 100, "--skip", 120)
    assert torch.equal(read[120], read[0][120:221])


def test_saddles_run_from_end_to_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(saddles, "load_weights", tiny)
    words = ["--data", data, "--text", "story", "--tokens", 512, "--layers", 0, 2, 99, "--plot", tmp_path / "maps.png"]
    found = run(saddles, monkeypatch, capsys, *words)
    assert (found["stream"], found["model"]) == ("text", "smollm2-135m")
    assert sum(found["by_kind"].values()) == pytest.approx(1)
    assert sum(found["by_age"].values()) == pytest.approx(1)
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_parts_go_on_behind_a_line_that_a_kill_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.jsonl"
    assert common.Parts("b", path).result({"n": 1}, lambda: {"x": 1}) == {"x": 1}
    with path.open("a") as file:
        file.write('{"bench": "b", "part": {"n": 2}, "resu')
    parts = common.Parts("b", path)
    assert parts.result({"n": 1}, dict) == {"x": 1}
    assert parts.result({"n": 2}, lambda: {"x": 2}) == {"x": 2}
    again = common.Parts("b", path)
    assert again.result({"n": 2}, dict) == {"x": 2}
    assert common.Parts("other", path).result({"n": 2}, lambda: {"x": 3}) == {"x": 3}


def test_losses_of_a_reading_are_those_of_the_stock_model() -> None:
    weights = tiny(None)
    ids = perplexity.StreamModel(weights).ids(STORY)[:301]
    stock = tiny(None).model
    with torch.inference_mode():
        expected = torch.nn.functional.cross_entropy(stock(ids[None]).logits[0, :-1].float(), ids[1:])
    reader = perplexity.Reader(perplexity.StreamModel(weights), "full", 64, 64, 64, 300)
    while reader.measured < 300:
        reader.read(ids)
    assert reader.result(2048)["loss"] == pytest.approx(float(expected), abs=1e-4)
    assert reader.result(100)["loss_trained"] == pytest.approx(float(reader.losses[:100].mean()), abs=1e-4)


def test_a_difference_is_that_of_the_same_pieces() -> None:
    gap, error = perplexity.difference([2.0, 3.0, 4.0], [1.9, 2.9, 3.9, 9.0])
    assert gap == pytest.approx(100 * math.expm1(0.1))
    assert error == pytest.approx(0, abs=1e-9)
    assert perplexity.binned({"pieces": [0.0, math.log(4), 1.0]}, 2000) == [pytest.approx(2.0)]


def test_shared_counts_row_by_row() -> None:
    before = torch.tensor([[[1, 2, 3, 4]], [[5, 6, 7, 8]]])
    now = torch.tensor([[[3, 4, 9, 10]], [[1, 2, 3, 4]]])
    assert ablations.shared(before, now) == pytest.approx(0.25)


def test_summed_scores_forget_how_many_could_see() -> None:
    received, visible = torch.tensor([[[4.0, 4.0, 1.0]]]), torch.tensor([4, 2, 1])
    options = {"window": 4, "bias_slope": 0.0}
    normalised = make_policy("inf-mllm", options).scores(Evidence(received, visible))  # type: ignore[attr-defined]
    summed = make_policy("inf-mllm-summed", options).scores(Evidence(received, visible))  # type: ignore[attr-defined]
    assert normalised.flatten().tolist() == [1.0, 2.0, 1.0]
    assert summed.flatten().tolist() == [1.0, 1.0, 0.25]


def test_texts_begin_where_the_seed_says_and_missing_ones_are_named(data: Path) -> None:
    (data / "days.txt").write_text("Title page. " * 200 + STORY.replace(". ", ".\n"))
    assert texts.read_text(data, "days", 100, 0) != texts.read_text(data, "days", 100, 1)
    assert texts.read_text(data, "days", 100, 1).startswith("On day")
    assert texts.read_text(data, "story", 100, 1) == texts.read_text(data, "story", 100, 1)
    with pytest.raises(SystemExit, match=r"no text 'tale' in .*; there are: 200_lines, days, story"):
        texts.read_text(data, "tale", 100, 0)
    (data / "short.txt").write_text("little")
    with pytest.raises(SystemExit, match="no more than 2000 characters"):
        texts.read_text(data, "short", 100, 0)


def test_choices_are_scored_as_written_out() -> None:
    generator = torch.Generator().manual_seed(4)
    keys = torch.randn(2, 5, 4, 8, generator=generator)
    queries, usual = torch.randn(4, 3, 8, generator=generator), torch.randn(4, 8, generator=generator)
    share = torch.stack([(keys[h // 2].flatten(0, 1) @ q).softmax(0) for h in range(4) for q in queries[h]])
    for block in range(5):
        own = max(float(row[4 * block : 4 * block + 4].sum()) for row in share)
        around = [max(float(row[a:b].sum()) for row in share) for a, b in
                  ((4 * block - 2, 4 * block), (4 * block + 4, 4 * block + 6)) if 0 <= a < 20]  # fmt: skip
        mean = sum(queries[h].mean(0) @ keys[h // 2, block].mean(0) / 2 for h in range(4))
        less = sum((queries[h].mean(0) - usual[h]) @ keys[h // 2, block].mean(0) / 2 for h in range(4))
        expected = {"attention": own, "surroundings": max(own, *around), "mean": mean, "particular": less}
        for way in choice.WAYS:
            scored = float(choice.scores(way, keys, queries, usual)[block])
            assert scored == pytest.approx(float(expected[way]), abs=1e-5), way


def test_choice_runs_from_end_to_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "load_weights", tiny)
    words = ["--data", data, "--model", "tiny", "--lines", 24, "--questions", 3, "--blocks", 4]
    found = run(choice, monkeypatch, capsys, *words, "--out", tmp_path / "out.jsonl")
    assert [row[0] for row in found["rows"]] == ["0", "1", "2", "vote"]
    assert all(
        int(whole) <= int(some) for row in found["rows"] for some, whole in zip(row[1::2], row[2::2], strict=True)
    )


def test_a_line_across_a_cut_needs_both_blocks() -> None:
    asked = choice.Asked(torch.empty(0), 3, 4)
    assert choice.found(torch.tensor([4, 9]), asked) == (True, False)
    assert choice.found(torch.tensor([4, 3]), asked) == (True, True)
    assert choice.found(torch.tensor([5, 9]), asked) == (False, False)
