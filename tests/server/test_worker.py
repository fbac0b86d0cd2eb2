"""One thread for all lanes."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from inf_stream.server.sessions import worker as worker_module
from inf_stream.server.sessions.worker import EngineWorker, Lane


def test_jobs_run_on_one_thread_in_fair_turns_and_errors_come_back() -> None:
    worker = EngineWorker(patience=2, hold_s=0.0)
    gate, order = threading.Event(), list[str]()
    a, b, q = worker.lane(), worker.lane(), worker.lane()
    first: Future[bool] = a.submit(gate.wait, 20)
    futures = [lane.submit(order.append, name) for lane, name in ((a, "a1"), (a, "a2"), (b, "b1"), (q, "q1"))]
    q.urgent = True
    futures.append(q.submit(order.append, "q2"))
    broken = q.submit(lambda: 1 // 0)
    assert worker.waiting >= 5
    gate.set()
    for future in futures:
        future.result(20)
    assert first.result() is True
    with pytest.raises(ZeroDivisionError):
        broken.result(20)
    assert [order[0], order[1]] == ["q1", "q2"]
    assert sorted(order) == ["a1", "a2", "b1", "q1", "q2"]
    threads = {lane.submit(threading.get_ident).result(20) for lane in (a, b, q)}
    assert len(threads) == 1
    worker.close()


def test_frames_of_others_do_not_slip_in_between_two_tokens() -> None:
    """The session of an answer comes back with its next step a moment after the last one is done."""
    worker = EngineWorker(patience=100, hold_s=20.0)
    order: list[str] = []
    asked, other = worker.lane(), worker.lane()
    gate = threading.Event()
    asked.urgent = True
    blocker = asked.submit(gate.wait, 20)
    late = other.submit(order.append, "frame")
    gate.set()
    blocker.result(20)
    for number in range(5):
        asked.submit(order.append, f"token {number}").result(20)
    asked.urgent = False
    late.result(20)
    assert order == [*(f"token {number}" for number in range(5)), "frame"]
    worker.close()


def test_a_session_that_does_not_come_back_holds_nobody_up_for_long() -> None:
    worker = EngineWorker(hold_s=0.01)
    asked, other = worker.lane(), worker.lane()
    asked.urgent = True
    asked.submit(int).result(20)
    assert other.submit(lambda: "frame").result(20) == "frame"
    worker.close()


def test_closing_cancels_what_waits_and_refuses_what_comes() -> None:
    worker = EngineWorker()
    gate, started = threading.Event(), threading.Event()
    lane = worker.lane()

    def first() -> str:
        started.set()
        gate.wait(20)
        return "done"

    running, waiting = lane.submit(first), lane.submit(lambda: "never")
    assert started.wait(20)
    closing = threading.Thread(target=worker.close)
    closing.start()
    gate.set()
    closing.join(20)
    assert running.result(20) == "done"
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        lane.submit(int)
    worker.close()


@dataclass
class Answering:
    """As much of a `LazyEngine` as the worker looks at: `unread` says when its next step needs a token read."""

    name: str
    unread: bool = True

    @property
    def has_unread(self) -> bool:
        return self.unread


def answering(worker: EngineWorker, name: str, *, urgent: bool = True) -> tuple[Lane, Answering]:
    lane, engine = worker.lane(), Answering(name)
    lane.engine = engine  # type: ignore[assignment]
    lane.urgent = urgent
    return lane, engine


def block(worker: EngineWorker) -> "tuple[threading.Event, Future[bool]]":
    """Keep the thread busy until the event is set."""
    started, gate = threading.Event(), threading.Event()

    def wait() -> bool:
        started.set()
        return gate.wait(20)

    blocker = worker.lane().submit(wait)
    assert started.wait(20)
    return gate, blocker


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was read together."""
    passes: list[list[str]] = []
    monkeypatch.setattr(worker_module, "read_together", lambda engines: passes.append([e.name for e in engines]))
    return passes


def test_answers_are_read_together_and_then_each_makes_its_step(passes: list[list[str]]) -> None:
    worker = EngineWorker(most_together=3)
    order: list[str] = []
    gate, blocker = block(worker)
    lanes = {name: answering(worker, name, urgent=name != "watch") for name in ("a", "b", "watch", "late")}
    lanes["frames"] = worker.lane(), Answering("frames")
    futures = [lane.submit(order.append, name) for name, (lane, _) in lanes.items()]
    gate.set()
    blocker.result(20)
    for future in futures:
        future.result(20)
    assert passes == [["a", "b", "late"]], "three at most, those that somebody waits for first"
    assert order == ["a", "b", "late", "watch", "frames"] or order == ["a", "b", "late", "frames", "watch"]
    worker.close()


def test_an_answer_waits_a_moment_for_those_it_was_read_with(passes: list[list[str]]) -> None:
    """After a common pass the sessions come back one by one, each as soon as its event loop gets to it."""
    worker = EngineWorker(hold_s=20.0, most_together=8)
    gate, blocker = block(worker)
    (a, _), (b, b_engine) = answering(worker, "a"), answering(worker, "b")
    waiting = [lane.submit(int) for lane in (a, b)]
    gate.set()
    blocker.result(20)
    for _ in range(3):
        for future in waiting:
            future.result(20)
        first = a.submit(int)
        assert not first.done()
        waiting = [first, b.submit(int)]
    for future in waiting:
        future.result(20)
    assert passes == [["a", "b"]] * 4
    b_engine.unread = False
    a.submit(int).result(20)
    b.urgent = False
    a.submit(int).result(20)
    assert passes == [["a", "b"]] * 4, "nobody waits for an answer that has ended"
    worker.close()


def test_a_question_does_not_wait_for_answers_to_come_back(passes: list[list[str]]) -> None:
    worker = EngineWorker(hold_s=20.0, most_together=8)
    (a, _), (question, engine) = answering(worker, "a"), answering(worker, "question")
    engine.unread = False
    a.submit(int).result(20)
    question.submit(int).result(20)
    assert passes == []
    worker.close()


def test_a_pass_that_fails_leaves_each_step_to_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_engines: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(worker_module, "read_together", fail)
    worker = EngineWorker(most_together=8)
    gate, blocker = block(worker)
    steps = [answering(worker, name)[0].submit(lambda name=name: name) for name in "ab"]
    gate.set()
    blocker.result(20)
    assert [step.result(20) for step in steps] == ["a", "b"]
    assert "answers not read together" in caplog.text
    worker.close()
