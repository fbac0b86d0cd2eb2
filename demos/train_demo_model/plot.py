"""The loss of a training run as a picture."""

import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot as plt

WINDOW = 50


def draw(log: Path, picture: Path) -> None:
    """Training loss by kind of batch, smoothed, and held-out loss by kind of question."""
    rows = {r["step"]: r for r in map(json.loads, log.read_text(encoding="utf-8").splitlines())}
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5))
    for kind in sorted({r["kind"] for r in rows.values()}):
        steps = [s for s, r in sorted(rows.items()) if r["kind"] == kind]
        losses = np.array([rows[s]["loss"] for s in steps])
        window = min(WINDOW, len(losses))
        left.plot(steps[window - 1 :], np.convolve(losses, np.ones(window) / window, "valid"), label=kind)
    right.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    checks = {s: r["dev"] for s, r in sorted(rows.items()) if "dev" in r}
    for name in sorted({n for c in checks.values() for n in c}):
        right.plot(
            [s for s, c in checks.items() if name in c], [c[name] for c in checks.values() if name in c], label=name
        )
    for axes, title in ((left, "training"), (right, "held out")):
        axes.set(title=title, xlabel="step", ylabel="loss a token")
        if axes.has_data():
            axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    plt.close(figure)
