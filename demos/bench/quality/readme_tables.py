"""Writes the tables between the marks in this folder's README.md from the JSON lines in `demos/bench/results/quality/`.

    python demos/bench/quality/readme_tables.py [--check]

No figure there is typed by hand.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from common import ago
from perplexity import difference
from retrieval import accuracy
from video import summary

HERE = Path(__file__).parent
README = HERE / "README.md"
RESULTS = HERE.parent / "results" / "quality"
_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def entries(name: str) -> list[dict[str, Any]]:
    """All lines of a file of results."""
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def parts(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What was measured, and what was found."""
    return [(entry["part"], entry["result"]) for entry in entries(name) if "part" in entry]


def table(header: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def perplexity_table() -> str:
    """One row a policy and budget, one column a text; against `inf-mllm` on the same thousands of tokens."""
    found = {(p["text"], p["budget"], p["policy"]): r for p, r in parts("perplexity")}
    texts = list(dict.fromkeys(text for text, _, _ in found))
    rows = []
    for budget, policy in dict.fromkeys((budget, policy) for _, budget, policy in found):
        row = [f"`{policy}`", "all, " + f"{budget:,} tokens" if policy == "full" else str(budget)]
        for text in texts:
            r, ours = found.get((text, budget, policy)), found.get((text, budget, "inf-mllm"))
            row.append("" if r is None else f"{math.exp(r['loss']):.2f}{_gap(r, ours)}")
        rows.append(row)
    return table(["policy", "budget", *texts], rows)


def _gap(result: dict[str, Any], ours: dict[str, Any] | None) -> str:
    if ours is None or result is ours:
        return ""
    gap, error = difference(result["pieces"], ours["pieces"])
    return f" ({gap:+.1f} ± {error:.1f} %)"


def trained_table() -> str:
    """Perplexity inside the trained context, where `full` is the reference."""
    found = {(p["text"], p["budget"], p["policy"]): r for p, r in parts("perplexity")}
    rows = []
    for (text, budget, policy), r in found.items():
        full = next((x for (t, _, p), x in found.items() if t == text and p == "full"), None)
        if full is not None and policy in ("inf-mllm", "streaming-llm", "h2o"):
            above = 100 * math.expm1(r["loss_trained"] - full["loss_trained"])
            rows.append([text, f"`{policy}`", str(budget), f"{math.exp(r['loss_trained']):.2f}", f"{above:+.1f} %"])
    return table(["text", "policy", "budget", "perplexity", "above `full`"], rows)


def retrieval_table(name: str, key: str) -> str:
    """One row a column, right answers in percent by `key`, and how many were asked."""
    replies: dict[str, list[dict[str, Any]]] = {}
    for part, result in parts(name):
        replies.setdefault(part["column"], []).extend(result["replies"])
    names = sorted({reply[key] for found in replies.values() for reply in found})
    rows = []
    for column, found in replies.items():
        right = accuracy(found, _key(key))
        asked = {n: sum(reply[key] == n for reply in found) for n in names}
        cells = [f"{100 * right[n]:.0f} ({asked[n]})" if n in right else "-" for n in names]
        rows.append([f"`{column}`", *cells, f"{100 * sum(r['right'] for r in found) / len(found):.0f}"])
    return table(["% right (asked)", *map(str, names), "all"], rows)


def _key(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda reply: reply[key]


def summary_table(name: str) -> str:
    """The table that the newest run printed."""
    last = [entry for entry in entries(name) if "rows" in entry][-1]
    return table(last["header"], last["rows"])


def choice_table() -> str:
    """The vote, and the best single layer, of each way to score."""
    last = [entry for entry in entries("choice") if "rows" in entry][-1]
    header, rows = last["header"], last["rows"]
    ways = [(n, header[n].partition(",")[0]) for n in range(1, len(header), 2)]
    vote, layers = rows[-1], rows[:-1]
    return table(
        ["% of the questions", "any, by vote", "whole, by vote", "whole, best layer by itself"],
        [[f"`{way}`", vote[n], vote[n + 1], str(max(int(row[n + 1]) for row in layers))] for n, way in ways],
    )


def video_table(stream: str) -> str:
    """One row a column of a kind of hour: points above chance by age, and how much of the event's frame was there."""
    found = {p["column"]: (p, summary(r["replies"])) for p, r in parts("video") if p["stream"] == stream}
    ages = list(dict.fromkeys(age for _, s in found.values() for age in s["by_age"]))
    rows = []
    for column, (part, s) in found.items():
        cells = [f"{s['by_age'][age]:+.0f} ({_there(s, age)})" if age in s["by_age"] else "-" for age in ages]
        now = f"{s['by_kind']['now']:.0f}"
        rows.append([f"`{column}`", str(part["budget"]), now, *cells, f"{s['above_chance']:+.1f}"])
    return table(["column", "budget", "now, % right", *(ago(int(age)) for age in ages), "all ages"], rows)


def _there(s: dict[str, Any], age: str) -> str:
    recalled = s["recalled_by_age"].get(age)
    return f"{100 * s['kept_by_age'][age]:.0f} %" + ("" if recalled is None else f", {100 * recalled:.0f} %")


TABLES: dict[str, Callable[[], str]] = {
    "perplexity": perplexity_table,
    "trained": trained_table,
    "lines": lambda: retrieval_table("lines", "age"),
    "lines_own_blocks": lambda: retrieval_table("lines_own_blocks", "age"),
    "turns": lambda: retrieval_table("turns", "turn"),
    "choice": choice_table,
    "video_quiet": lambda: video_table("quiet"),
    "video_dense": lambda: video_table("dense"),
    "ablations": lambda: summary_table("ablations"),
}


def updated(text: str) -> str:
    """The README with every marked table made afresh."""
    return _MARKED.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether README.md is up to date")
    args = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    new = updated(text)
    if args.check and new != text:
        sys.exit("README.md is out of date; run python demos/bench/quality/readme_tables.py")
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
