"""What a load run says: percentiles, whether memory stayed flat, the table and the picture."""

from pathlib import Path
from typing import Any

import numpy as np
from common import print_table
from load_client import Heard

MEMORY_LIMIT = 0.02
PERCENTILES = (50, 95, 99)
SETTLED, LATE = (0.25, 0.5), 0.75
"""Shares of a run: when its caches are full and nothing has had time to leak; and its end."""
MOST_POINTS = 120

Memory = list[tuple[float, float]]
"""(seconds since the clients came, MiB)."""


def percentiles(times_s: list[float]) -> dict[str, float | None]:
    """Of times to the first token; None without any. Between two measured values the larger one counts."""
    if not times_s:
        return dict.fromkeys((f"ttft_p{p}_s" for p in PERCENTILES), None)
    found = np.percentile(times_s, PERCENTILES, method="higher")
    return {f"ttft_p{p}_s": round(float(value), 4) for p, value in zip(PERCENTILES, found, strict=True)}


def judge_memory(idle_mib: float, memory: Memory, after_mib: float, seconds: float) -> dict[str, Any]:
    """Is the server's memory late in a run what it was early, and after its clients what it was before them?

    Args:
        idle_mib: before the clients, after others of their kind have come and gone.
        memory: while they were there.
        after_mib: after they have gone.
        seconds: length of the run.
    """
    settled = [mib for at_s, mib in memory if SETTLED[0] <= at_s / seconds <= SETTLED[1]]
    late = [mib for at_s, mib in memory if at_s / seconds >= LATE]
    change = max(late) / max(settled) - 1 if settled and late else None
    after_change = after_mib / idle_mib - 1
    return {
        "idle_mib": round(idle_mib, 1),
        "settled_mib": round(max(settled), 1) if settled else None,
        "late_mib": round(max(late), 1) if late else None,
        "after_mib": round(after_mib, 1),
        "change": None if change is None else round(change, 4),
        "after_change": round(after_change, 4),
        "flat": change is not None and change <= MEMORY_LIMIT and after_change <= MEMORY_LIMIT,
        "course": _thinned(memory),
    }


def figures(clients: int, heard: Heard, memory: dict[str, Any] | None, log_errors: int | None) -> dict[str, Any]:
    """All that is reported of a run with so many clients."""
    return {
        "clients": clients,
        "questions": heard.questions,
        "answers_timed": len(heard.ttft_s),
        **percentiles(heard.ttft_s),
        "frames": heard.frames,
        "accepted": heard.accepted,
        "dropped": dict(heard.dropped),
        "errors": dict(heard.errors),
        "events": heard.events,
        "protocol_errors": heard.protocol_errors,
        "examples": heard.examples,
        "lag_s": round(heard.lag_s, 3),
        "server_log_errors": log_errors,
        "memory": memory,
    }


def has_doubled(results: list[dict[str, Any]]) -> bool:
    """Whether the latest 95th percentile is twice that of the fewest clients; or nothing was answered any more."""
    first, last = results[0]["ttft_p95_s"], results[-1]["ttft_p95_s"]
    return len(results) > 1 and (first is None or last is None or last >= 2 * first)


def show(results: list[dict[str, Any]]) -> None:
    """The table."""
    header = ["clients", "questions", "p50 s", "p95 s", "p99 s", "frames", "dropped", "errors", "protocol errors",
              "server MiB: idle, early, late, after", "flat"]  # fmt: skip
    print_table(header, [_row(result) for result in results])


def draw(results: list[dict[str, Any]], title: str, path: Path) -> None:
    """Times to the first token over the number of clients, and the server's memory over time, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    clients = [result["clients"] for result in results]
    for p in PERCENTILES:
        left.plot(clients, [result[f"ttft_p{p}_s"] for result in results], "o-", label=f"p{p}")
    left.set(xlabel="clients", ylabel="time to first token, s", ylim=(0, None), title=title)
    left.set_xscale("log", base=2)
    left.set_xticks(clients, [str(n) for n in clients])
    left.legend()
    for result in results:
        if result["memory"]:
            course = result["memory"]["course"]
            right.plot([at_s / 60 for at_s, _ in course], [mib for _, mib in course], label=str(result["clients"]))
    right.set(xlabel="minutes", ylabel="memory of the server, MiB", ylim=(0, None))
    if right.lines:
        right.legend(title="clients")
    figure.savefig(path, dpi=110)


def _row(result: dict[str, Any]) -> list[str]:
    memory = result["memory"]
    times = [_text(result[f"ttft_p{p}_s"], ".2f") for p in PERCENTILES]
    sizes = "" if memory is None else ", ".join(
        _text(memory[name], ".0f") for name in ("idle_mib", "settled_mib", "late_mib", "after_mib")
    )  # fmt: skip
    return [
        str(result["clients"]), str(result["questions"]), *times, str(result["frames"]), _counts(result["dropped"]),
        _counts(result["errors"]), str(result["protocol_errors"]), sizes,
        "" if memory is None else "yes" if memory["flat"] else "no",
    ]  # fmt: skip


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "0"


def _thinned(memory: Memory) -> list[list[float]]:
    step = max(1, -(-len(memory) // MOST_POINTS))
    return [[round(at_s, 1), round(mib, 1)] for at_s, mib in memory[::step]]
