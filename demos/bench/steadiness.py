"""Is the end of a stream like its beginning? Memory and time to first token of the questions asked along the way."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

MEMORY_LIMIT = 0.02
TTFT_LIMIT = 0.10


@dataclass(frozen=True)
class Sample:
    """One question: how far the stream had come (0 to 1), and what was measured."""

    progress: float
    ttft_s: float
    process_bytes: int
    cache_bytes: int
    tokens_seen: int
    tokens_kept: int


def judge(samples: list[Sample]) -> dict[str, Any]:
    """Compare the last sixth of the stream with the first.

    Memory: the largest of the last sixth against that of the second twelfth (after the first five minutes of an
    hour). Time to first token: medians of the last and the first sixth, questions before the cache was full left out.
    """
    settled = [s.process_bytes for s in samples if 1 / 12 <= s.progress <= 1 / 6]
    late = [s.process_bytes for s in samples if s.progress >= 5 / 6]
    full = max(s.tokens_kept for s in samples) * 0.9
    first = [s.ttft_s for s in samples if s.progress <= 1 / 6 and s.tokens_kept >= full]
    last = [s.ttft_s for s in samples if s.progress >= 5 / 6]
    memory, ttft = max(late) / max(settled) - 1, median(last) / median(first) - 1
    return {
        "questions": len(samples),
        "tokens_seen": samples[-1].tokens_seen,
        "most_tokens_kept": max(s.tokens_kept for s in samples),
        "cache_mib": samples[-1].cache_bytes / 2**20,
        "memory_after_a_twelfth_mib": max(settled) / 2**20,
        "memory_at_the_end_mib": max(late) / 2**20,
        "memory_change": memory,
        "ttft_start_s": median(first),
        "ttft_end_s": median(last),
        "ttft_change": ttft,
        "memory_flat": memory <= MEMORY_LIMIT,
        "ttft_flat": ttft <= TTFT_LIMIT,
        "cache_bytes_constant": len({s.cache_bytes for s in samples}) == 1,
    }


def draw(samples: list[Sample], title: str, path: Path) -> None:
    """Memory, tokens kept and time to first token over the stream, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (top, middle, bottom) = pyplot.subplots(3, 1, sharex=True, figsize=(9, 6), layout="constrained")
    seen = [s.tokens_seen for s in samples]
    top.plot(seen, [s.process_bytes / 2**20 for s in samples], label="process")
    top.plot(seen, [s.cache_bytes / 2**20 for s in samples], label="cache")
    top.set(ylabel="memory, MiB", ylim=(0, None), title=title)
    top.legend()
    middle.plot(seen, [s.tokens_kept for s in samples], color="tab:green")
    middle.set(ylabel="tokens kept", ylim=(0, None))
    bottom.plot(seen, [s.ttft_s for s in samples], ".", markersize=3, color="tab:red")
    bottom.set(ylabel="time to first token, s", ylim=(0, None), xlabel="tokens of the stream")
    figure.savefig(path, dpi=110)
