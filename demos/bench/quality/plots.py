"""Pictures of results, small enough to be kept beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

Curves = Mapping[str, Sequence[float]]


def draw_lines(panels: Mapping[str, Curves], x_title: str, y_title: str, path: Path) -> None:
    """One panel a title, one line a name; values follow one another in steps of one."""
    draw_points(
        {t: {n: list(enumerate(v, 1)) for n, v in c.items()} for t, c in panels.items()}, x_title, y_title, path
    )


def draw_points(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    x_title: str,
    y_title: str,
    path: Path,
    *,
    log: bool = False,
) -> None:
    """One panel a title, one line through (x, y) a name; `log` spreads x by powers of two."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(down, across, figsize=(4.2 * across, 3 * down), squeeze=False)
    for axis, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        for name, points in curves.items():
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1, marker="." if log else None)
        axis.set_title(title, fontsize=8)
        axis.set_xlabel(x_title, fontsize=7)
        axis.set_ylabel(y_title, fontsize=7)
        axis.tick_params(labelsize=7)
        if log:
            positive = [x for points in curves.values() for x, _ in points if x > 0]
            axis.set_xscale("symlog", base=2, linthresh=min(positive, default=1))
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    axes.flat[0].legend(fontsize=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
