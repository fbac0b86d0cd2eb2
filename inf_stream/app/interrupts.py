"""Ctrl-C as an ordinary event of the running event loop."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def on_interrupt(handle: Callable[[], None], *signals: signal.Signals) -> Iterator[None]:
    """Call `handle` on the loop's thread at each of the signals while the block runs, instead of what happened before.

    Where the event loop cannot do this (Windows), Ctrl-C keeps its meaning.
    """
    loop = asyncio.get_running_loop()
    try:
        for one in signals:
            loop.add_signal_handler(one, handle)
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        for one in signals:
            loop.remove_signal_handler(one)
