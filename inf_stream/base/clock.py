"""Stream time: integer nanoseconds since the stream began, and how people write it."""

import re

from inf_stream.base.errors import ConfigError

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

_CLOCK = re.compile(r"(?:(?P<h>\d{1,9}):)?(?P<m>\d{1,9}):(?P<s>\d{1,2}(?:\.\d+)?)")
_PLAIN = re.compile(r"\d{1,12}(?:\.\d+)?")


def seconds(ns: int) -> float:
    """Nanoseconds as seconds."""
    return ns / NS_PER_S


def nanoseconds(s: float) -> int:
    """Seconds as whole nanoseconds."""
    return round(s * NS_PER_S)


def format_clock(ns: int) -> str:
    """``mm:ss``, or ``h:mm:ss`` from one hour on; fractions of a second are cut off.

    >>> format_clock(750 * NS_PER_S)
    '12:30'
    """
    whole = max(ns, 0) // NS_PER_S
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes:02d}:{secs:02d}"


def parse_clock(text: str) -> int:
    """Read ``12:30``, ``1:02:03``, ``90`` or ``90.5`` (seconds) as nanoseconds.

    Raises:
        ConfigError: the text is none of these, or its minutes or seconds exceed 59.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return nanoseconds(float(text))
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ConfigError(f"time '{text}' is not understood; write it as mm:ss, h:mm:ss or seconds, e.g. 12:30")
    hours, minutes, secs = int(found["h"] or 0), int(found["m"]), float(found["s"])
    if secs >= 60 or (found["h"] is not None and minutes >= 60):
        raise ConfigError(f"time '{text}' has minutes or seconds above 59; write it as mm:ss or h:mm:ss")
    return nanoseconds(hours * 3600 + minutes * 60 + secs)
