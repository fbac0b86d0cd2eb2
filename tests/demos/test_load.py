"""The load run: its arithmetic, what its clients count as a fault, and a small one against a real server."""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import load
import numpy as np
import pytest
from load_client import Heard, LoadClient, Plan
from load_figures import figures, has_doubled, judge_memory, percentiles
from support.command_line import save_tiny
from support.servers import free_port
from support.threaded import SayingMaker, threaded_server

from inf_stream.base.errors import BudgetError

# ---- arithmetic ------------------------------------------------------------------------------------


def test_percentiles_are_measured_values_and_never_too_good() -> None:
    times = [n / 100 for n in range(1, 101)]
    np.random.default_rng(0).shuffle(times)
    assert percentiles(times) == {"ttft_p50_s": 0.51, "ttft_p95_s": 0.96, "ttft_p99_s": 1.0}
    assert percentiles([0.3]) == {"ttft_p50_s": 0.3, "ttft_p95_s": 0.3, "ttft_p99_s": 0.3}
    assert percentiles([]) == {"ttft_p50_s": None, "ttft_p95_s": None, "ttft_p99_s": None}


def course(*mib: float) -> list[tuple[float, float]]:
    """One value for each tenth of a run of 100 s."""
    return [(10.0 * n, value) for n, value in enumerate(mib)]


@pytest.mark.parametrize(
    ("memory", "after", "flat"),
    [
        (course(100, 900, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1019), 101.0, True),
        (course(100, 900, 1000, 1000, 1000, 1000, 1000, 1000, 1021, 1000), 101.0, False),
        (course(100, 900, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000), 103.0, False),
        (course(5000, 900, 1000, 1000, 1000, 1000, 1500, 1500, 1000, 1000), 90.0, True),
        (course(100, 100), 100.0, False),
    ],
)
def test_memory_is_judged_late_against_early_and_after_against_before(
    memory: list[tuple[float, float]], after: float, flat: bool
) -> None:
    assert judge_memory(100.0, memory, after, 100.0)["flat"] is flat


def test_the_course_of_memory_is_thinned_to_its_bound() -> None:
    judged = judge_memory(100.0, [(float(n), 100.0) for n in range(601)], 100.0, 600.0)
    assert 100 <= len(judged["course"]) <= 120
    assert judged["change"] == 0.0


def test_doubling() -> None:
    def result(p95: float | None) -> dict[str, Any]:
        return {"ttft_p95_s": p95}

    assert not has_doubled([result(0.2)])
    assert not has_doubled([result(0.2), result(0.39)])
    assert has_doubled([result(0.2), result(0.4)])
    assert has_doubled([result(0.2), result(None)])


def test_what_clients_heard_is_added_up() -> None:
    one, other = Heard([0.1], 1, 10, 9), Heard([0.2, 0.3], 2, 10, 10)
    one.dropped["rate"], other.errors["unanswered"], other.lag_s = 1, 1, 0.5
    result = figures(2, Heard.of_all([one, other]), None, None)
    assert (result["questions"], result["answers_timed"], result["frames"], result["accepted"]) == (3, 3, 20, 19)
    assert (result["dropped"], result["errors"], result["lag_s"]) == ({"rate": 1}, {"unanswered": 1}, 0.5)


# ---- a client --------------------------------------------------------------------------------------


def client(plan: Plan | None = None) -> LoadClient:
    return LoadClient(load.load_images()[:2], plan or Plan(0.6, 0.2, 10.0, patience_s=20.0), np.random.default_rng(0))


def event(number: int, **fields: Any) -> bytes:
    return json.dumps({"event_id": f"event_{number}", **fields}).encode()


DELTA = {"type": "response.output_text.delta", "response_id": "r", "item_id": "i", "output_index": 0}


def test_events_that_are_not_as_the_protocol_has_them_are_counted() -> None:
    one = client()
    good = DELTA | {"content_index": 0, "delta": "x"}
    one.take_in(event(1, **good), 0.0)
    assert one.heard.protocol_errors == 0
    one.take_in(event(2, **DELTA), 0.0)
    one.take_in(b"{", 0.0)
    one.take_in(event(3, type="no.such.event"), 0.0)
    assert one.heard.protocol_errors == 3
    one = client()
    one.take_in(event(1, **good), 0.0)
    one.take_in(event(3, **good), 0.0)
    assert one.heard.examples == ["event_3 follows event_1"]


def run(url: str, plan: Plan | None = None, key: str = "x") -> Heard:
    return asyncio.run(client(plan).run(url, key))


def test_a_client_counts_what_it_did() -> None:
    maker = SayingMaker()
    with threaded_server(maker) as server:
        heard = run(server.address)
    assert heard.frames == heard.accepted == maker.engines[0].frames > 3
    assert heard.questions == len(heard.ttft_s) == len(maker.asked) >= 2
    assert all(question.aside for question in maker.asked)
    assert (heard.errors, heard.dropped, heard.protocol_errors) == ({}, {}, 0)
    assert heard.events > heard.frames


def test_a_client_counts_drops_by_reason_and_answers_that_failed() -> None:
    def fail(_engine: Any, _question: str) -> str:
        raise BudgetError("no")

    with threaded_server(SayingMaker(say=fail), frames_per_second=0.01) as server:
        heard = run(server.address)
    assert heard.accepted == 1
    assert heard.dropped == {"rate": heard.frames - 1}
    assert heard.errors == {"answer failed": heard.questions}


def test_a_client_counts_that_there_is_no_server_and_that_it_is_lost() -> None:
    assert run(f"http://127.0.0.1:{free_port()}").errors == {"ConnectionRefusedError": 1}
    with threaded_server(SayingMaker(), keys=("a-key-of-many-characters",)) as server:
        assert run(server.address).errors == {"InvalidStatus": 1}

    def leave(_engine: Any, _question: str) -> str:
        server.break_connections()
        return "?"

    with threaded_server(SayingMaker(say=leave)) as server:
        errors = run(server.address, Plan(20.0, 0.2, 10.0)).errors
    assert errors["closed 1006"] == 1


# ---- the run ---------------------------------------------------------------------------------------


def test_a_small_run_against_a_server_of_its_own_and_its_results_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", str(save_tiny(tmp_path / "tiny", "smolvlm")), "--budget", "128", "--seconds", "4"]
    words += ["--warm-up", "1", "--every", "1", "--answer-tokens", "4", "--set", "cache.chunk_tokens=64"]
    words += ["--out", str(tmp_path / "load.jsonl"), "--plot", str(tmp_path / "load.png"), "--clients", "2"]
    load.main(words)
    (line,) = (tmp_path / "load.jsonl").read_text().splitlines()
    result = json.loads(line)
    assert (result["bench"], result["clients"], result["setup"]["seconds"]) == ("load", 2, 4.0)
    assert result["frames"] == result["accepted"] == 8
    assert result["answers_timed"] == result["questions"] >= 4
    assert result["protocol_errors"] == result["server_log_errors"] == 0
    assert result["errors"] == result["dropped"] == {}
    assert all(result["memory"][name] > 100 for name in ("idle_mib", "settled_mib", "late_mib", "after_mib"))
    assert result["ttft_p50_s"] <= result["ttft_p95_s"] <= result["ttft_p99_s"]
    assert (tmp_path / "load.png").stat().st_size > 1000
    assert "| 2       |" in capsys.readouterr().out

    async def again(_self: Any, _clients: int) -> dict[str, Any]:
        raise AssertionError("this was measured")

    monkeypatch.setattr(load.Load, "measure", again)
    load.main(words)
    with pytest.raises(AssertionError, match="this was measured"):
        load.main([*words, "--seed", "1"])


def test_a_run_against_a_server_that_runs_already_goes_on_until_it_is_slow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "has_doubled", lambda results: len(results) == 2)
    with threaded_server(SayingMaker()) as server:
        load.main(["--url", server.address, "--seconds", "0.5", "--warm-up", "0.2", "--every", "0.2", "--fps", "5"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [json.loads(line)["clients"] for line in lines] == [1, 2]
    assert all(json.loads(line)["memory"] is None for line in lines)


def test_a_server_that_does_not_start_is_said_with_its_words() -> None:
    args = argparse.Namespace(
        url=None, model="demo", budget=128, threads=1, set=["server.nonsense=1"], seconds=1.0, warm_up=1.0, every=1.0,
        fps=1.0, answer_tokens=4, seed=0, key="x",
    )  # fmt: skip
    with pytest.raises(load.ServerError, match=r"did not start: .*unknown key 'nonsense' in server"):
        asyncio.run(load.Load(args, []).measure(1))
