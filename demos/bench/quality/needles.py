"""Needles in an endless text: what is still known of a fact, by how many tokens came since?

    python demos/bench/quality/needles.py --data FOLDER_OF_TEXTS --model MODEL --budget 1024 --tokens 40000 \
        --out needles.jsonl --plot needles.svg

A book is read; every so often a fact stands in it. After each of them those of certain ages are asked for, as asides.
Ages are in tokens of text, rounded to the needles there are.
"""

import argparse

import numpy as np
from facts import Fact, make_facts, paragraphs
from retrieval import Ask, Say, Script, add_arguments, compare, show
from texts import read_text

CHARACTERS_PER_TOKEN = 4
INTRODUCTION = "Here is a long text. Some codes are told in between; I shall ask for them.\n\n"


def make_script(pieces: list[str], facts: list[Fact], steps: list[int]) -> Script:
    """A fact in the middle of each piece, and after each piece a question about the fact so many pieces before."""
    script: list[Say | Ask] = []
    for number, (piece, fact) in enumerate(zip(pieces, facts, strict=True)):
        middle = piece.find(". ", len(piece) // 2) + 1
        head = INTRODUCTION if number == 0 else ""
        script.append(Say(f"{head}{piece[:middle]} {fact.text}{piece[middle:]}\n", (fact,)))
        script += [Ask(facts[number - step], number, step) for step in steps if step <= number]
    return script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--text", default="war_and_peace")
    parser.add_argument("--tokens", type=int, default=40_000, help="length of the stream, about")
    parser.add_argument("--every", type=int, default=500, help="tokens from one needle to the next, about")
    parser.add_argument("--ages", type=int, nargs="+", default=[0, 1000, 2000, 4000, 8000, 16_000, 32_000])
    args = parser.parse_args()
    characters = CHARACTERS_PER_TOKEN * args.every
    needles = args.tokens // args.every
    text = read_text(args.data, args.text, 2 * needles * characters, args.seed)
    pieces = list(paragraphs(text, characters))[:needles]
    facts = make_facts(len(pieces), np.random.default_rng(args.seed))
    steps = sorted({age // args.every for age in args.ages})
    named = {k: getattr(args, k) for k in ("text", "tokens", "every", "ages")}
    found = compare("needles", args, named, [make_script(pieces, facts, steps)])
    show("needles", args, named, found, {"tokens since": lambda r: r["age"] * args.every})


if __name__ == "__main__":
    main()
