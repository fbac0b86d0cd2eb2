"""Waiting that a cancellation does not cut short."""

import asyncio
from typing import Any


async def outlast(future: "asyncio.Future[Any]", timeout_s: float | None = None) -> asyncio.CancelledError | None:
    """Wait until `future` is done, or for `timeout_s`, however often the waiting task is cancelled meanwhile.

    Returns the last such cancellation, for the caller to raise once it has cleaned up. Does not raise what `future`
    raises, and never cancels it.
    """
    loop = asyncio.get_running_loop()
    deadline_s = None if timeout_s is None else loop.time() + timeout_s
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        left_s = None if deadline_s is None else deadline_s - loop.time()
        if left_s is not None and left_s <= 0:
            break
        try:
            await asyncio.wait({future}, timeout=left_s)
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
