"""Running a program's main coroutine so that Ctrl-C at any moment ends it by cancellation."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_interruptible(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """`asyncio.run(main())`, where each SIGINT or SIGTERM cancels `main`, whose clean-up is waited for.

    The signals arrive between two callbacks of the loop, never inside one, on every Python version.

    Raises:
        KeyboardInterrupt: `main` was cancelled by a signal.
    """
    received: list[int] = []

    async def supervised() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(main())

        def interrupt(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows: asyncio's own handler remains
                loop.add_signal_handler(number, interrupt, number)  # until the loop is closed
        return await task

    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        if received:
            raise KeyboardInterrupt from None
        raise
