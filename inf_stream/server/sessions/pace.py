"""Time in a session: what second of the stream it is, and whether frames come too fast. Clocks are handed in."""

from inf_stream.base.clock import NS_PER_MS, NS_PER_S
from inf_stream.base.errors import SessionError
from inf_stream.base.state import State

_LONGEST_MS = 10 * 366 * 24 * 3600 * 1000.0
"""Ten years of stream."""


class StreamClock:
    """Stream time of a session: wall time since it began, or what the client says, which then goes on by wall time.

    What is stamped never runs backwards. To look at the clock stamps nothing.
    """

    def __init__(self, now_ns: int):
        self._offset_ns = -now_ns
        self._latest_ns = 0
        self._is_told = False

    def now(self, now_ns: int) -> int:
        """Stream time at a reading of the wall clock."""
        return max(self._latest_ns, now_ns + self._offset_ns)

    def stamp(self, now_ns: int, timestamp_ms: float | None) -> int:
        """Stream time of something that came now and, if it says so, belongs to `timestamp_ms`.

        Raises:
            SessionError: the time lies before the stream's begin or absurdly far behind it.
        """
        if timestamp_ms is None:
            self._latest_ns = self.now(now_ns)
            return self._latest_ns
        if not 0 <= timestamp_ms <= _LONGEST_MS:
            raise SessionError(
                f"timestamp_ms is {timestamp_ms:g}; give milliseconds since the stream began, 0 to {_LONGEST_MS:.0f}"
            )
        self._latest_ns = max(self._latest_ns, round(timestamp_ms * NS_PER_MS))
        self._offset_ns = self._latest_ns - now_ns
        self._is_told = True
        return self._latest_ns

    def state(self, now_ns: int) -> State:
        """What time it is, and whether a client has ever said so."""
        return State(
            facts={"latest_ns": self._latest_ns, "now_ns": self.now(now_ns), "is_told": self._is_told},
        )

    def restore(self, state: State, now_ns: int, later_ns: int) -> None:
        """Go on where another clock was `later_ns` ago by the wall: so much later, or where its client left off.

        Raises:
            StateError: it is not what `state` gives.
        """
        self._is_told = state.fact("is_told", bool)
        self._latest_ns = state.count("latest_ns")
        self._offset_ns = (self._latest_ns if self._is_told else state.count("now_ns") + later_ns) - now_ns


class RateLimit:
    """At most `per_second` things a second, a second's worth (at least one) at once."""

    def __init__(self, per_second: float):
        self._per_ns = per_second / NS_PER_S
        self._most = max(1.0, per_second)
        self._left = self._most
        self._at_ns: int | None = None

    def allows(self, now_ns: int) -> bool:
        """Whether one more may pass now; if so, it counts."""
        since_ns = 0 if self._at_ns is None else max(0, now_ns - self._at_ns)
        self._at_ns = now_ns
        self._left = min(self._most, self._left + since_ns * self._per_ns)
        if self._left < 1:
            return False
        self._left -= 1
        return True
