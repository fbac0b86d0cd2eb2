"""Questions that come in many turns, long after the facts: does a cache still serve the tenth?

    python demos/bench/quality/turns.py --data FOLDER_OF_TEXTS --model MODEL --budget 1024 --episodes 6 --turns 10 \
        --out turns.jsonl --plot turns.svg

In the manner of SCBench's multi-turn tasks (arXiv 2412.10319). Each episode is a conversation of its own: first a long
text with facts strewn in, longer than the budget; then turn after turn a question about one of them, none twice, in
random order. Question and right answer stay in the conversation, and between two turns a piece of other text comes, so
what is asked for late was seen long ago, with much that was said since. A cache that chose by the first question what
to keep has nothing for the others.
"""

import argparse

import numpy as np
from facts import Fact, make_facts, paragraphs
from retrieval import Ask, Say, Script, add_arguments, compare, show
from texts import read_text

INTRODUCTION = "Here is a text. Some codes are told in between; I shall ask for them later.\n\n"


def make_script(pieces: list[str], facts: list[Fact], turns: int, rng: np.random.Generator) -> Script:
    """One piece after each fact, then the turns, a piece before each but the first.

    `pieces` are as many as the facts and the turns less one; the age of a question is the number of pieces since.
    """
    script: list[Say | Ask] = []
    for number, fact in enumerate(facts):
        head = INTRODUCTION if number == 0 else ""
        script.append(Say(f"{head}{fact.text}\n{pieces[number]}\n", (fact,)))
    for turn, place in enumerate(rng.permutation(len(facts))[:turns]):
        if turn:
            script.append(Say(pieces[len(facts) + turn - 1] + "\n"))
        script.append(Ask(facts[int(place)], turn + 1, len(facts) - int(place) + turn, aside=False))
    return script


def make_scripts(text: str, episodes: int, facts: int, turns: int, characters: int, seed: int) -> list[Script]:
    """Scripts of different facts and pieces; all depend on nothing but these arguments.

    Exits with a message if the text is too short, or if there are more turns than facts.
    """
    if turns > facts:
        raise SystemExit(f"{turns} turns ask for different facts; there are {facts}: lower --turns or raise --facts")
    pieces, each = list(paragraphs(text, characters)), facts + turns - 1
    if len(pieces) < episodes * each:
        raise SystemExit(f"the text has {len(pieces)} pieces; {episodes * each} are needed: give a longer one")
    return [
        make_script(pieces[n * each : (n + 1) * each], make_facts(facts, rng), turns, rng)
        for n in range(episodes)
        for rng in [np.random.default_rng([seed, n])]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--text", default="war_and_peace")
    parser.add_argument("--episodes", type=int, default=6)
    parser.add_argument("--facts", type=int, default=24, help="of an episode")
    parser.add_argument("--turns", type=int, default=10, help="questions of an episode")
    parser.add_argument("--piece", type=int, default=450, help="characters between two facts, at least")
    args = parser.parse_args()
    characters = 2 * args.episodes * (args.facts + args.turns) * args.piece
    text = read_text(args.data, args.text, characters, args.seed)
    scripts = make_scripts(text, args.episodes, args.facts, args.turns, args.piece, args.seed)
    facts = {k: getattr(args, k) for k in ("text", "episodes", "facts", "turns", "piece")}
    found = compare("turns", args, {k: v for k, v in facts.items() if k != "episodes"}, scripts)
    keys = {"turn": lambda r: r["turn"], "pieces since": lambda r: r["age"] // 6 * 6}
    show("turns", args, facts, found, keys)


if __name__ == "__main__":
    main()
