"""Who may open one more session: bounded by number and by memory."""

import math

from inf_stream.base.errors import InfStreamError

_MEMORY_SHARE = 0.9
"""Share of the memory that was free at the start that caches may take; the steps of the model need some, too."""
_MIB = 1 << 20
REFUSALS = ("sessions", "memory", "stopping")
"""Why there is no further session: too many are open, the memory is taken, or the server is about to stop."""


class AdmissionError(InfStreamError):
    """No further session now.

    Attributes:
        reason: one of `REFUSALS`, for programs.
        retry_after_s: when it is worth asking again: whole seconds, at least one.
    """

    def __init__(self, message: str, reason: str, retry_after_s: float):
        self.reason, self.retry_after_s = reason, max(1, math.ceil(retry_after_s))
        super().__init__(f"{message}; try again in {self.retry_after_s} s")


class Admission:
    """Counts sessions, and promises memory to each: what it may take at most, before it has taken any.

    Memory that is promised cannot be promised again, although the operating system still calls it free.
    """

    def __init__(self, most_sessions: int, session_bytes: int, free_bytes: int):
        self._most, self._session_bytes = most_sessions, session_bytes
        self._memory_bytes = int(free_bytes * _MEMORY_SHARE)
        self._sessions = 0

    @property
    def sessions(self) -> int:
        """Sessions that are open."""
        return self._sessions

    @property
    def most_sessions(self) -> int:
        """How many may be open at once, by number and by memory."""
        return min(self._most, self._memory_bytes // max(1, self._session_bytes))

    def enter(self, free_bytes: int, retry_after_s: float) -> None:
        """One more session, which `leave` ends.

        Raises:
            AdmissionError: there are too many, or the memory for one more is promised already or not free.
        """
        if self._sessions >= self._most:
            raise AdmissionError(f"{self._sessions} sessions are open, the most allowed", "sessions", retry_after_s)
        left = min(self._memory_bytes - self._sessions * self._session_bytes, free_bytes)
        if left < self._session_bytes:
            raise AdmissionError(
                f"a session needs {self._session_bytes / _MIB:.1f} MiB for its cache, {max(0, left) / _MIB:.1f} MiB "
                f"are left beside {self._sessions} others",
                "memory",
                retry_after_s,
            )
        self._sessions += 1

    def leave(self) -> None:
        """A session has ended."""
        assert self._sessions > 0, "who leaves has entered"
        self._sessions -= 1
