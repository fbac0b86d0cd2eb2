"""Writes the tables of results between the marks in README.md from the JSON lines in `demos/bench/results/`.

    python demos/bench/readme_results.py [--check]

No figure there is typed by hand; the last line of each file counts, and of `load.jsonl` all of them.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from common import ago

RETRIEVAL = {
    "lines_2048": "a line of 800 in a record",
    "needles": "a fact in 24,000 tokens of a book",
    "turns": "facts of a book, asked turn by turn",
}
KNOWN = {
    "full": "everything kept",
    "inf-mllm+recall": "**`inf-mllm` with recall**",
    "streaming-llm+rekv": "`streaming-llm` with recall as ReKV chooses",
    "inf-mllm": "`inf-mllm` alone",
    "streaming-llm": "`streaming-llm` alone",
    "h2o": "`h2o` alone",
    "tova": "`tova` alone",
}
BUDGETS = (512, 2048)

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"


def latest(name: str) -> dict[str, Any]:
    """The newest result of a benchmark."""
    found: dict[str, Any] = json.loads((HERE / "results" / f"{name}.jsonl").read_text().splitlines()[-1])
    return found


def endless_rows() -> list[str]:
    """One row a stream that was measured: what went in, what stayed, how the end compares with the beginning."""
    streams = {"endless_video": "an hour of video at 1 fps", "endless_text": "a text of a million tokens"}
    measured = {title: latest(name) for name, title in streams.items() if (HERE / "results" / f"{name}.jsonl").exists()}
    if not measured:
        return []
    rows = [
        "| stream | questions | tokens seen | kept, at most | process memory, early and late | time to first token |",
        "|---|---|---|---|---|---|",
    ]
    for title, r in measured.items():
        rows.append(
            f"| {title} | {r['questions']} | {r['tokens_seen']:,} | {r['most_tokens_kept']:,} "
            f"| {r['memory_after_a_twelfth_mib']:.0f} and {r['memory_at_the_end_mib']:.0f} MiB "
            f"({100 * r['memory_change']:+.1f} %) "
            f"| {r['ttft_start_s']:.2f} and {r['ttft_end_s']:.2f} s ({100 * r['ttft_change']:+.1f} %) |"
        )
    r = next(iter(measured.values()))
    return [
        *rows,
        "",
        f"Measured by `demos/bench/endless_video.py` and `endless_text.py` on {r['device']}, {r['threads']} thread, "
        "SmolLM2-135M in bfloat16 (for the video behind a vision tower with random weights: it measures cost, not "
        "sight). Times are those of the engine's thread.",
        "",
    ]


def parts(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What was measured of a bench of quality, and what was found."""
    lines = map(json.loads, (HERE / "results" / "quality" / f"{name}.jsonl").read_text().splitlines())
    return [(entry["part"], entry["result"]) for entry in lines if "part" in entry]


def known_rows() -> list[str]:
    """One row a column, one column a bench of retrieval: right answers in percent."""
    found: dict[str, dict[str, float]] = {column: {} for column in KNOWN}
    for name in RETRIEVAL:
        for column in KNOWN:
            replies = [r for p, result in parts(name) if p["column"] == column for r in result["replies"]]
            if replies:
                found[column][name] = 100 * _mean(replies, "right")
    rows = [f"| % right | {' | '.join(RETRIEVAL.values())} |", "|---|" + "---|" * len(RETRIEVAL)]
    for column, title in KNOWN.items():
        cells = [f"{found[column][name]:.0f}" if name in found[column] else "" for name in RETRIEVAL]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def perplexity_rows() -> list[str]:
    """One row a policy, one column a text, two budgets in a cell."""
    found = {(p["text"], p["budget"], p["policy"]): r["loss"] for p, r in parts("perplexity") if p["chunk"] == 256}
    texts = list(dict.fromkeys(text for text, _, _ in found))
    policies = list(dict.fromkeys(policy for _, _, policy in found if policy != "full"))
    rows = [f"| policy | {' | '.join(texts)} |", "|---|" + "---|" * len(texts)]
    for policy in policies:
        cells = [", ".join(f"{math.exp(found[text, budget, policy]):.2f}" for budget in BUDGETS) for text in texts]
        rows.append(f"| `{policy}` | {' | '.join(cells)} |")
    return rows


def block() -> str:
    """Memory and times, what is still known, and perplexity."""
    budgets = " and ".join(f"{budget:,}" for budget in BUDGETS)
    return "\n".join(
        [
            *endless_rows(),
            "What is still known of a stream far longer than the cache, 2,048 tokens live, 512 recalled, by "
            "Qwen2.5-Coder-0.5B-Instruct; the questions are asked just after the fact and long after it "
            "([more](demos/bench/quality/README.md)):",
            "",
            *known_rows(),
            "",
            f"Perplexity over 20,000 tokens at budgets of {budgets}, SmolLM2-135M:",
            "",
            *perplexity_rows(),
        ]
    )


def load_table() -> str:
    """One row a number of clients."""
    runs = [json.loads(line) for line in (HERE / "results" / "load.jsonl").read_text().splitlines()]
    rows = [
        "| clients | time to first token: p50, p95, p99 | frames, dropped | errors, wrong messages "
        "| memory of the server: second quarter, last, after |",
        "|---|---|---|---|---|",
    ]
    for r in runs:
        times = ", ".join(f"{r[f'ttft_p{p}_s']:.2f}" for p in (50, 95, 99))
        memory = ", ".join(f"{r['memory'][name]:.0f}" for name in ("settled_mib", "late_mib", "after_mib"))
        counts = f"{r['frames']}, {sum(r['dropped'].values())} | {sum(r['errors'].values())}, {r['protocol_errors']}"
        rows.append(f"| {r['clients']} | {times} s | {counts} | {memory} MiB |")
    return "\n".join(rows)


def quiet_table() -> str:
    """One row a policy alone: of the events of a quiet hour, by age, how many were named and how much was kept."""
    lines = (HERE / "results" / "quality" / "video.jsonl").read_text().splitlines()
    found = {
        e["part"]["column"]: [r for r in e["result"]["replies"] if r["kind"] == "at"]
        for e in map(json.loads, lines)
        if "part" in e and e["part"]["stream"] == "quiet" and "+" not in e["part"]["column"]
    }
    ages = sorted({r["age"] for replies in found.values() for r in replies})
    rows = [f"| named, and kept, % | {' | '.join(map(ago, ages))} |", "|---|" + "---|" * len(ages)]
    for policy, replies in sorted(found.items(), key=lambda item: -sum(r["right"] for r in item[1])):
        by_age = [[r for r in replies if r["age"] == age] for age in ages]
        cells = [f"{100 * _mean(of, 'right'):.0f}, {100 * _mean(of, 'kept'):.0f}" for of in by_age]
        rows.append(f"| `{policy}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def _mean(replies: list[dict[str, Any]], key: str) -> float:
    return float(sum(r[key] for r in replies)) / len(replies)


BLOCKS = {"results": block, "load": load_table, "quiet": quiet_table}


def updated(text: str) -> str:
    """The README with every block made afresh."""
    for name, made in BLOCKS.items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        before, rest = text.split(start)
        text = before + start + made() + end + rest.split(end)[1]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether README.md is up to date")
    args = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    new = updated(text)
    if args.check and new != text:
        sys.exit("README.md is out of date; run python demos/bench/readme_results.py")
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
