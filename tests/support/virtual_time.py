"""An event loop whose clock jumps to the next timer, and a worker that takes that clock's time for its steps."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for something that will never come"
            self.now_s += max(timeout, 0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing on it may wait for a real thread."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self.turns = 0
        self.at_turn: dict[int, Callable[[], object]] = {}

    def time(self) -> float:
        return self._jumping.now_s

    def time_ns(self) -> int:
        return round(self._jumping.now_s * 1_000_000_000)

    def _run_once(self) -> None:
        self.at_turn.pop(self.turns, lambda: None)()
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


class VirtualWorker(Executor):
    """Runs `execute(engine, step)` after as much virtual time as `cost_s(step)` says."""

    def __init__(self, loop: VirtualLoop, cost_s: Callable[[Any], float]):
        self._loop = loop
        self._cost_s = cost_s
        self._busy = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        assert not self._busy, "one step in flight"
        self._busy = True
        future: Future[T] = Future()
        self._loop.call_later(self._cost_s(args[1]), self._run, future, fn, args)
        return future

    def _run(self, future: "Future[Any]", fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._busy = False
        try:
            future.set_result(fn(*args))
        except BaseException as error:  # noqa: BLE001 handed to whoever waits
            future.set_exception(error)


def run_virtual(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run to the end; a task left over fails."""
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
        assert not asyncio.all_tasks(loop), "no task is left over"
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()
