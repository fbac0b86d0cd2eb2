"""Memory that libraries below Python keep for themselves, told to stay small."""

import ctypes
import os
import sys
from collections.abc import Callable

_M_ARENA_MAX = -8
"""glibc's number for the most arenas (`mallopt(3)`)."""
_KERNELS_VARIABLE, _KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"


def keep_one_arena() -> bool:
    """Have all threads allocate from one arena; returns whether the C library took the order.

    glibc gives threads arenas of their own, and one that fills up late in a stream looks like a leak: an hour of video
    once stood at 900 MiB for half an hour, then at 970. Call it before any thread starts. Only glibc knows it.
    """
    mallopt = _glibc("mallopt")
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1


def keep_few_kernels() -> None:
    """Have oneDNN, which multiplies torch's matrices on a CPU, keep the code it makes for the latest 128 shapes only.

    An answer's steps differ in shape by a token each, and of the 1024 that it keeps by default most never come again:
    tens of MiB that fill up over the first quarter of an hour of a stream. Steps take no longer even with 64. Call it
    before torch is loaded. Whoever sets the variable decides.
    """
    os.environ.setdefault(_KERNELS_VARIABLE, _KERNELS)


def return_free_memory() -> bool:
    """Hand the operating system what is free (`malloc_trim(3)`); returns whether the C library had any to hand over.

    glibc keeps what was freed in the middle of its heap, so that a server whose clients have left looks as if some were
    still there. Takes up to a tenth of a second, in which other threads may wait for memory. Only glibc knows it.
    """
    malloc_trim = _glibc("malloc_trim")
    return malloc_trim is not None and malloc_trim(0) == 1


def _glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
