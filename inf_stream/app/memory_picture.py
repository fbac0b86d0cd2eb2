"""The memory map as a picture: the whole stream on the left, its newest stretch enlarged on the right."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inf_stream.app.memory_map import Kept, MemoryMap, enlarged, memory_map
from inf_stream.app.outputs import require_matplotlib
from inf_stream.base.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAPER, _INK, _FAINT, _GLOW = "#0d1117", "#e6edf3", "#7d8590", "#f5a742"
_WIDTHS = (2.6, 1.0)
_TICKS = (9, 3)
_UNEVEN = 20
"""From this ratio of the fullest stretch to the middle one on, the strip's scale is logarithmic."""
_LIGHT_FROM = 0.08
"""Where the colour scale starts above black, so that even one kept token shows."""


def draw_memory_map(kept: Kept, path: Path) -> None:
    """Write the picture of what a cache holds as a PNG.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    require_matplotlib()
    figure = _figure(kept)
    try:
        figure.savefig(path, format="png", facecolor=_PAPER)
    except OSError as error:
        raise ConfigError(f"memory map '{path}' cannot be written: {error.strerror or error}") from error


def _figure(kept: Kept) -> "Figure":
    from matplotlib.figure import Figure

    whole = memory_map(kept)
    newest = enlarged(kept, whole)
    parts, titles = [whole], ["whole stream"]
    if newest is not None:
        parts.append(newest.map)
        titles.append(f"newest {newest.share:.0%} of the memory, enlarged")
    figure = Figure(figsize=(13, 6.4), dpi=110)
    grid = figure.add_gridspec(
        2, len(parts), height_ratios=(1, 3.4), width_ratios=_WIDTHS[: len(parts)],
        left=0.065, right=0.975, top=0.8, bottom=0.115, hspace=0.06, wspace=0.09,
    )  # fmt: skip
    for column, part in enumerate(parts):
        strip = figure.add_subplot(grid[0, column])
        layers = figure.add_subplot(grid[1, column], sharex=strip)
        _draw_strip(strip, part)
        _draw_layers(layers, part, ticks=_TICKS[column])
        strip.set_title(titles[column], color=_INK, fontsize=11, loc="left", pad=6)
        if column == 0:
            strip.set_ylabel("% of memory", color=_FAINT)
            layers.set_ylabel("layer", color=_FAINT)
        layers.tick_params(labelleft=column == 0)
    figure.text(0.065, 0.935, "What the stream left in memory", fontsize=19, color=_INK, fontweight="bold")
    figure.text(0.975, 0.03, "bright: kept · black: forgotten", fontsize=9.5, color=_FAINT, ha="right")
    figure.text(0.065, 0.885, caption(kept, whole), fontsize=11.5, color=_FAINT)
    return figure


def caption(kept: Kept, whole: MemoryMap) -> str:
    """The numbers under the title."""
    share = kept.tokens / kept.seen_tokens if kept.seen_tokens else 0.0
    return (
        f"{kept.seen_tokens:,} tokens seen · {kept.tokens:,} kept per layer ({share:.2%}) · budget "
        f"{kept.budget_tokens:,} · {kept.cache_bytes / 2**20:.1f} MiB · policy {kept.policy} · "
        f"half of the memory is from before {whole.label(whole.half_from)}"
    )


def _draw_strip(axes: "Axes", part: MemoryMap) -> None:
    percent = np.append(part.share, part.share[-1:]) * 100
    axes.fill_between(part.edges, percent, step="post", color=_GLOW, alpha=0.85, linewidth=0)
    if percent.max() > _UNEVEN * np.median(percent):
        axes.set_yscale("symlog", linthresh=0.1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(bottom=0)
    axes.set_xlim(part.edges[0], part.edges[-1])
    _style(axes)
    axes.tick_params(labelbottom=False)


def _draw_layers(axes: "Axes", part: MemoryMap, *, ticks: int) -> None:
    from matplotlib.ticker import MaxNLocator

    brightness = np.where(part.tokens > 0, _LIGHT_FROM + (1 - _LIGHT_FROM) * np.sqrt(_relative(part)), 0.0)
    layers = part.tokens.shape[0]
    axes.pcolormesh(
        part.edges, np.arange(layers + 1) + 0.5, brightness, cmap="inferno", vmin=0, vmax=1, rasterized=True
    )
    axes.set_xlabel("stream time" if part.timed else "token of the stream", color=_FAINT)
    steps = [1, 1.5, 3, 6, 10] if part.timed else [1, 2, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator(nbins=ticks, steps=steps, integer=True))
    axes.xaxis.set_major_formatter(lambda place, _: part.tick(place))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _style(axes)


def _relative(part: MemoryMap) -> Any:
    return part.tokens / max(float(part.tokens.max(initial=0.0)), 1e-12)


def _style(axes: "Axes") -> None:
    axes.set_facecolor("#000004")
    axes.tick_params(colors=_FAINT, labelsize=9.5, length=3)
    for spine in axes.spines.values():
        spine.set_color("#30363d")
