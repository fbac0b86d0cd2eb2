"""One thread for all lanes."""

import threading
from concurrent.futures import Future

import pytest

from inf_stream.server.sessions.worker import EngineWorker


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
