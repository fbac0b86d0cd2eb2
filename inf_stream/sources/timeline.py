"""Stream times of decoded frames, from whatever timestamps a file carries."""

from fractions import Fraction

from inf_stream.base.clock import NS_PER_S

_REORDERED_NS = NS_PER_S
_BEYOND_END_NS = 60 * NS_PER_S
_STEADY_FRAMES = 10
_HOLE_INTERVALS = 3


class Timeline:
    """Turns timestamps in ticks into stream times that start at 0 and never fall.

    - Time 0 is the stream's declared start, or the first frame's where that is missing or later.
    - A frame without a timestamp follows the last one at the nominal interval.
    - A step back of up to a second (reordering gone wrong) repeats the last time; a larger one starts a new
      stretch that goes on from the last time. A step past the declared end by a minute is taken for damage.
    """

    def __init__(self, time_base: Fraction, start: int | None, interval_ns: int, duration_ns: int | None = None):
        self._tick_ns = time_base * NS_PER_S
        self._start, self._interval_ns = start, interval_ns
        self._end_ns = duration_ns
        self._base_ns: int | None = None
        self.next_ns = 0
        """Where the next frame is expected."""
        self.last_ns: int | None = None
        """The last frame's time."""

    @property
    def slack_ns(self) -> int:
        """Half a tick: how far rounding may have moved a timestamp."""
        return int(self._tick_ns / 2)

    @property
    def base_ns(self) -> int:
        """What was taken off the timestamps."""
        return self._base_ns or 0

    def stamp(self, pts: int | None) -> int:
        """Stream time of the next frame in nanoseconds.

        Args:
            pts: its timestamp in ticks; None if it has none.
        """
        self.last_ns = self.next_ns if pts is None else self._rebased(pts)
        self.next_ns = self.last_ns + self._interval_ns
        return self.last_ns

    def _rebased(self, pts: int) -> int:
        raw_ns = round(pts * self._tick_ns)
        if self._base_ns is None:
            start = pts if self._start is None else min(self._start, pts)
            self._base_ns = round(start * self._tick_ns) if self.last_ns is None else raw_ns - self.next_ns
        at_ns = raw_ns - self._base_ns
        if self._end_ns is not None and at_ns > max(self._end_ns, self.next_ns) + _BEYOND_END_NS:
            return self.next_ns
        if self.last_ns is None or at_ns >= self.last_ns:
            return at_ns
        if at_ns >= self.last_ns - _REORDERED_NS:
            return self.last_ns
        self._base_ns = raw_ns - self.next_ns
        return self.next_ns


class HoleWatch:
    """Tells a hole in a stream of constant rate, where whole packets were lost without any other sign."""

    def __init__(self) -> None:
        self._interval_ns, self._steady = 0, 0

    def is_hole(self, interval_ns: int) -> bool:
        """Whether this interval between two frames breaks a rate that was constant for `_STEADY_FRAMES`."""
        if self._steady < _STEADY_FRAMES:
            regular = 2 * interval_ns < 3 * self._interval_ns and 2 * self._interval_ns < 3 * interval_ns
            self._steady = self._steady + 1 if regular else 0
            self._interval_ns = interval_ns
            return False
        return interval_ns > _HOLE_INTERVALS * self._interval_ns
