import asyncio
import os
import signal
import threading

import pytest
from support.session_engine import ListEngine, ask, frames

from inf_stream.base.events import InputEvent, OutputEvent, SessionClosed
from inf_stream.session.interrupt import run_interruptible
from inf_stream.session.limits import SessionLimits
from inf_stream.session.loop import run_session

SCRIPT: list[InputEvent] = [*frames(3), ask("q", in_order=True), *frames(3, first=3)]


class InterruptedEngine(ListEngine):
    """Sends its own process signals while it works on call number `at_call`."""

    at_call = 0
    signals: tuple[signal.Signals, ...] = ()

    def _called(self, name: str) -> None:
        if len(self.calls) == self.at_call:
            for number in self.signals:
                os.kill(os.getpid(), number)
        super()._called(name)


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT,) * 3])
@pytest.mark.parametrize("call", range(7))
def test_ctrl_c_ends_a_session_cleanly_at_any_call(call: int, signals: tuple[signal.Signals, ...]) -> None:
    threads = set(threading.enumerate())
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    engine = InterruptedEngine()
    engine.at_call, engine.signals = call, signals
    events: list[OutputEvent] = []

    async def main() -> None:
        await run_session(engine, SCRIPT * 1, limits=SessionLimits(queue_frames=2), emit=events.append)

    with pytest.raises(KeyboardInterrupt):
        run_interruptible(main)
    assert engine.said is None
    assert isinstance(events[-1], SessionClosed)
    assert set(threading.enumerate()) <= threads
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_without_a_signal_the_result_is_returned() -> None:
    async def main() -> int:
        return 7

    assert run_interruptible(main) == 7


def test_a_cancellation_that_no_signal_caused_stays_one() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_interruptible(main)


def test_errors_pass_through() -> None:
    async def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_interruptible(main)
