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


def _readings(chunk: int) -> dict[tuple[str, int, str], dict[str, Any]]:
    """What came of each text, budget and policy in chunks of so many tokens."""
    return {(p["text"], p["budget"], p["policy"]): r for p, r in parts("perplexity") if p["chunk"] == chunk}


def perplexity_table(chunk: int) -> str:
    """One row a policy and budget, one column a text; against `inf-mllm` on the same thousands of tokens."""
    found = _readings(chunk)
    texts = list(dict.fromkeys(text for text, _, _ in found))
    rows = []
    for budget, policy in sorted(dict.fromkeys((budget, policy) for _, budget, policy in found), key=lambda r: r[0]):
        row = [f"`{policy}`", "all, " + f"{budget:,} tokens" if policy == "full" else str(budget)]
        for text in texts:
            r, ours = found.get((text, budget, policy)), found.get((text, budget, "inf-mllm"))
            row.append("" if r is None else f"{math.exp(r['loss']):.2f}{_gap(r, ours)}")
        rows.append(row)
    return table(["policy", "budget", *texts], rows)


def long_table() -> str:
    """Perplexity of each tenth of the longest reading."""
    (part, result), *_ = parts("perplexity_long")
    pieces = result["pieces"]
    tenths = [pieces[n * len(pieces) // 10 : (n + 1) * len(pieces) // 10] for n in range(10)]
    row = [f"`{part['policy']}`, {part['budget']}", f"{result['tokens']:,}"]
    return table(
        ["policy, budget", "tokens", *(f"{n}." for n in range(1, 11))],
        [[*row, *(f"{math.exp(sum(tenth) / len(tenth)):.2f}" for tenth in tenths)]],
    )


WARM_PIECES = 4
"""Thousands of tokens that a fresh reading has before it is compared: four budgets of 1 024."""


def drift_table() -> str:
    """The same thousands of tokens at the end of the longest reading, and read afresh."""
    (_, longest), *fresh = parts("perplexity_long")
    rows = []
    for part, result in fresh:
        pieces = result["pieces"][WARM_PIECES:]
        first = part["skip"] // 1000 + WARM_PIECES
        there = longest["pieces"][first : first + len(pieces)]
        gap, error = difference(there, pieces)
        late, afresh = (f"{math.exp(sum(p) / len(p)):.2f}" for p in (there, pieces))
        tokens = f"{1000 * first:,} to {1000 * (first + len(pieces)):,}"
        rows.append([tokens, late, f"{afresh} (`{part['policy']}`)", f"{gap:+.1f} ± {error:.1f} %"])
    return table(["tokens", "longest reading", "read afresh", "the former above"], rows)


def _gap(result: dict[str, Any], ours: dict[str, Any] | None) -> str:
    if ours is None or result is ours:
        return ""
    gap, error = difference(result["pieces"], ours["pieces"])
    return f" ({gap:+.1f} ± {error:.1f} %)"


def trained_table() -> str:
    """Perplexity inside the trained context above that of keeping all of it, which is the reference."""
    found = _readings(256)
    texts = list(dict.fromkeys(text for text, _, _ in found))
    full = {text: r["loss_trained"] for (text, _, policy), r in found.items() if policy == "full"}
    compared = dict.fromkeys((b, p) for _, b, p in found if p in ("inf-mllm", "streaming-llm", "h2o", "tova"))
    rows = []
    for budget, policy in sorted(compared, key=lambda r: r[0]):
        losses = [(text, found[text, budget, policy]["loss_trained"]) for text in texts]
        above = [f"{100 * math.expm1(loss - full[text]):+.1f} %" for text, loss in losses]
        rows.append([f"`{policy}`", str(budget), *above])
    return table(["above `full`", "budget", *texts], rows)


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


def saddles_table(name: str, key: str, title: str) -> str:
    """Shares of attention in percent, one column a kind or an age."""
    shares = entries(name)[-1][key]
    return table([title, *map(str, shares)], [["% of the attention", *(f"{100 * v:.1f}" for v in shares.values())]])


def saddles_video_table(key: str, title: str) -> str:
    """Shares of attention in percent: of the frames' own queries, and of each question's."""
    last = entries("saddles_video")[-1]
    asked = {"frames": last[key]} | {question: found[key] for question, found in last["questions"].items()}
    names = list(dict.fromkeys(name for shares in asked.values() for name in shares))
    rows = [
        [who, *(f"{100 * shares[name]:.1f}" if name in shares else "" for name in names)]
        for who, shares in asked.items()
    ]
    return table([title, *names], rows)


TABLES: dict[str, Callable[[], str]] = {
    "perplexity": lambda: perplexity_table(256),
    "long": long_table,
    "drift": drift_table,
    "trained": trained_table,
    "lines": lambda: retrieval_table("lines", "age"),
    "lines_own_blocks": lambda: retrieval_table("lines_own_blocks", "age"),
    "lines_2048": lambda: retrieval_table("lines_2048", "age"),
    "needles": lambda: retrieval_table("needles", "age"),
    "turns": lambda: retrieval_table("turns", "turn"),
    "choice": choice_table,
    "video_quiet": lambda: video_table("quiet"),
    "video_dense": lambda: video_table("dense"),
    "ablations": lambda: summary_table("ablations"),
    "saddles_kind": lambda: saddles_table("saddles", "by_kind", "kind of token"),
    "saddles_video": lambda: saddles_video_table("by_kind", "% of the attention of"),
    "saddles_video_age": lambda: saddles_video_table("by_age", "% of the attention of"),
    "saddles_age": lambda: saddles_table("saddles", "by_age", "rounds of 64 tokens ago, from"),
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
