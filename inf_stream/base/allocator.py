"""The C library's memory allocator, told to stay calm."""

import ctypes
import sys

_M_ARENA_MAX = -8
"""glibc's number for the most arenas (`mallopt(3)`)."""


def keep_one_arena() -> bool:
    """Have all threads allocate from one arena; returns whether the C library took the order.

    glibc gives threads arenas of their own, and one that fills up late in a stream looks like a leak: an hour of video
    once stood at 900 MiB for half an hour, then at 970. Call it before any thread starts. Only glibc knows it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1
