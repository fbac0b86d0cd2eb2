"""An hour of video with 300 questions through `inf-stream ask`, as a user runs it: memory and time to first token.

    python demos/bench/endless_video.py short_clip.mp4 --work /tmp/hour --plot endless_video.png

Makes a one-hour clip from the short one (a clock burned in), a questions file, and, unless --model names one, a model
folder (`random_model.py`); then runs the command line as a process of its own and judges what its answers report.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from clock_clip import make
from common import report
from random_model import smolvlm
from steadiness import Sample, draw, judge

QUESTIONS = ("What does the clock in the corner show?", "What is happening now?", "What happened a minute ago?")


def prepare(args: argparse.Namespace) -> tuple[Path, Path, str]:
    """The clip, the questions file and the model's name, made as far as they are missing."""
    args.work.mkdir(parents=True, exist_ok=True)
    clip, questions = args.work / f"{args.seconds}s.mp4", args.work / "questions.jsonl"
    if not clip.exists():
        make(args.clip, clip, args.seconds)
    every = args.seconds / args.questions
    rows = [{"at_s": (i + 1) * every, "text": QUESTIONS[i % len(QUESTIONS)]} for i in range(args.questions)]
    rows[-1]["at_s"] = args.seconds - 1
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if args.model:
        return clip, questions, args.model
    folder = args.work / "smolvlm-135m"
    if not (folder / "config.json").exists():
        folder.mkdir(exist_ok=True)
        smolvlm(folder, larger={})
    return clip, questions, str(folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, help="a short clip")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made (about 400 MB)")
    parser.add_argument("--model", help="a model that sees; default: a folder made here")
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--answer-tokens", type=int, default=8)
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--policy", default="inf-mllm")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--clock",
        choices=["thread", "wall"],
        default="thread",
        help="time to first token of the engine's thread, or all",
    )
    parser.add_argument("--plot", type=Path, help="write a picture here")
    parser.add_argument("--memory-map", type=Path, help="write the memory map here")
    parser.add_argument("--out", type=Path, help="append the JSON line to this file")
    return parser.parse_args()


def command(args: argparse.Namespace, clip: Path, questions: Path, model: str) -> list[str]:
    words = [
        str(Path(sys.executable).with_name("inf-stream")),
        "ask",
        str(clip),
        "--questions",
        str(questions),
        "--json",
    ]
    words += ["--model", model, "--budget", str(args.budget), "--policy", args.policy, "--fps", "1"]
    words += ["--max-tokens", str(args.answer_tokens), "--threads", str(args.threads)]
    return words + (["--memory-map", str(args.memory_map)] if args.memory_map else [])


def main() -> None:
    args = arguments()
    clip, questions, model = prepare(args)
    samples: list[Sample] = []
    with subprocess.Popen(command(args, clip, questions, model), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "piped"
        for line in process.stdout:
            answer = json.loads(line)
            stats = answer["stats"]
            sample = Sample(
                answer["at_s"] / args.seconds,
                stats["first_token_cpu_s" if args.clock == "thread" else "ttft_s"],
                stats["process_bytes"],
                stats["cache_bytes"],
                stats["tokens_seen"],
                stats["tokens_kept"],
            )
            samples.append(sample)
            print(
                f"{answer['at_s']:6.0f} s  {sample.process_bytes / 2**20:6.0f} MiB  {sample.ttft_s:.3f} s", flush=True
            )
    if process.returncode or len(samples) != args.questions:
        sys.exit(f"inf-stream ended with status {process.returncode} after {len(samples)} of {args.questions} answers")
    if args.plot:
        draw(samples, f"an hour of video, budget {args.budget}, {args.policy}", args.plot)
    result = judge(samples) | {
        "clock": args.clock,
        "seconds": args.seconds,
        "budget": args.budget,
        "policy": args.policy,
    }
    for key, value in result.items():
        print(f"{key:28} {value:.4g}" if isinstance(value, float) else f"{key:28} {value}")
    report("endless_video", result, args.out)


if __name__ == "__main__":
    main()
