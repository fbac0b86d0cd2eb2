"""Which frames of a stream are looked at: the first one at or after each point of a regular grid."""

from fractions import Fraction

from inf_stream.base.clock import NS_PER_S


def frame_rate(fps: float) -> Fraction:
    """A rate as an exact ratio, so that grid points do not wander over days of stream."""
    return Fraction(fps).limit_denominator(1_000_000)


def grid_ns(index: int, rate: Fraction) -> int:
    """Stream time of grid point `index` in nanoseconds, rounded up."""
    return -(-index * NS_PER_S * rate.denominator // rate.numerator)


class GridSampler:
    """Takes the first frame at or after each grid point ``index / fps``, and each frame at most once.

        grid      |         |         |         |
        frames  x   x x x     x         .         x x
        taken   -   x         x                   x          (a point without a frame of its own is skipped)

    `slack_ns` lets a frame count as on a point it misses by so little: half a tick of the stream's time base,
    since rounded timestamps would otherwise lose frames when the stream's own rate is asked for.
    """

    def __init__(self, fps: float, slack_ns: int = 0):
        self._rate, self._slack_ns = frame_rate(fps), slack_ns
        self._next_index = 0

    def takes(self, at_ns: int) -> bool:
        """Whether to look at the frame at this stream time; times must not fall from call to call."""
        index = (at_ns + self._slack_ns) * self._rate.numerator // (NS_PER_S * self._rate.denominator)
        if index < self._next_index:
            return False
        self._next_index = index + 1
        return True
