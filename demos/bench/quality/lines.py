"""Line retrieval in one endless conversation: what is still known of a line, by how many lines came since?

    python demos/bench/quality/lines.py --data FOLDER_OF_LONGEVAL --model MODEL --budget 1024 --rounds 40 \
        --out lines.jsonl --plot lines.svg

In every round some lines are read (LongEval's, Li et al. 2023), then one question is asked for each distance that the
stream goes back to, as an aside, so that no question helps or harms another. The model's answer is begun for it
(`line torpid-kid: REGISTER_CONTENT is <`); it is right if greedy decoding goes on with exactly the right number.
`kept` is how much of the asked line was live in the cache, `recalled` in how many layers a block of it was recalled.
"""

import argparse

import numpy as np
from line_stream import INTRODUCTION, Line, read_lines
from retrieval import Ask, Say, Script, add_arguments, compare, show


def make_script(lines: list[Line], per_round: int, distances: list[int], rng: np.random.Generator) -> Script:
    """Rounds of lines, and after each a question per distance; a line is asked for at its distance, give or take some.

    A distance is in lines between the asked one and the newest; the asked one lies up to half a round further back.
    """
    script: list[Say | Ask] = []
    for turn, start in enumerate(range(0, len(lines), per_round)):
        new = lines[start : start + per_round]
        head = INTRODUCTION if start == 0 else ""
        script.append(Say(head + "".join(line.text for line in new), tuple(new)))
        for distance in distances:
            place = start + len(new) - 1 - distance - int(rng.integers(max(1, per_round // 2)))
            if place >= 0:
                script.append(Ask(lines[place], turn, distance))
    return script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=40, help="prompts; up to 300")
    parser.add_argument("--lines", type=int, default=20, help="lines of a round")
    parser.add_argument("--distances", type=int, nargs="+", default=[0, 20, 60, 120, 240, 480], help="in lines")
    args = parser.parse_args()
    lines = read_lines(args.data, args.rounds * args.lines, args.seed)
    script = make_script(lines, args.lines, args.distances, np.random.default_rng(args.seed))
    facts = {"rounds": args.rounds, "lines": args.lines, "distances": args.distances}
    found = compare("lines", args, facts, [script])
    tenth = max(1, args.rounds // 10)
    keys = {"distance in lines": lambda r: r["age"], "rounds before": lambda r: r["turn"] // tenth * tenth}
    show("lines", args, facts, found, keys)


if __name__ == "__main__":
    main()
