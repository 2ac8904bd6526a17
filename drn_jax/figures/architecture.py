"""The networks as charts, from their stage tables (DRN, Figs. 1 and 5)."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch

from drn_jax import models
from drn_jax.figures import charts, levels
from drn_jax.figures.charts import Chart
from drn_jax.figures.levels import Level
from drn_jax.report import curves

SIZE = 224
"""Pixels a side of the image."""
MAP = 64
"""Cells a side of the map that a context module alone takes, as in the Context paper."""

_FILLS = {1: "#e3e7ea", 2: "#bcd8ee", 4: "#f5cfa8", 8: "#bfe3cc", 16: "#e2c5ec", 32: "#efdf9a"}
_MORE = "#f2b8c0"
_BOX = (0.88, 1.0)
_ROW = 1.78
"""From one line of boxes to the next, in units of a column."""
_PER_LINE = 9
"""Levels; a network of more goes on in the next line."""
_LEFT, _RIGHT = -1.35, _PER_LINE - 0.35
_SMALL = 7.2


def of(network: str) -> tuple[Level, ...]:
    """The levels of a network for an image of `SIZE`, the margin that it takes besides; of a
    context module for a map of `MAP`. Raises: UserError for an unknown network."""
    table = models.full_table(network)
    if table[-1].name == "head":
        table = table[:-1]
    if not models.table(network):
        return levels.of(table, MAP)
    return levels.of(table, SIZE + 2 * models.preprocessing(network).margin)


@curves.styled()
def draw(networks: Sequence[str]) -> Chart:
    """One row of boxes a network, or several. Raises: UserError for an unknown one."""
    rows = [of(network) for network in networks]
    lines = [1 + row_of[-1].column // _PER_LINE for row_of in rows]
    tall = _ROW * sum(lines) + 0.37
    inches = charts.WIDTH / (_RIGHT - _LEFT)
    figure = Figure(figsize=(charts.WIDTH, inches * tall))
    axes = figure.add_axes((0, 0, 1, 1))
    charts.bare(axes)
    axes.set(xlim=(_LEFT, _RIGHT), ylim=(1.12 - tall, 1.12))
    for i, (network, found) in enumerate(zip(networks, rows, strict=True)):
        top = -_ROW * sum(lines[:i])
        name = charts.title(network).replace(" ", "\n")
        axes.text(-1.28, top, name, fontsize=10, fontweight="bold", va="center")
        places = [(one.column % _PER_LINE, top - _ROW * (one.column // _PER_LINE)) for one in found]
        for level, place in zip(found, places, strict=True):
            _box(axes, level, *place)
        for k in range(1, len(found)):
            (before, y), (x, y_here) = places[k - 1], places[k]
            if y == y_here:
                ends = before + _width(found[k - 1]) / 2, x - _width(found[k]) / 2
                axes.plot(ends, (y, y), color=charts.QUIET, linewidth=1, zorder=0)
    _legend(axes, sorted({row.dilation for row_of in rows for row in row_of}))
    return Chart(
        name="architecture",
        title="Architectures",
        source="DRN, Figs. 1 and 5",
        caption=(
            "Each box is a level of the network's stage table: its blocks or convolutions, the "
            "channels that leave it, its dilation; below it the cells of its map for an image of "
            f"{SIZE} x {SIZE} pixels (for a context module alone: a map of {MAP} x {MAP} cells) "
            "and the pixels between neighbouring cells. Levels stand in one column where they "
            "correspond: those of a ResNet and of DRN-A keep the numbers of their groups (G2 to "
            "G5), one below those of the other DRNs."
        ),
        figure=figure,
    )


def lines(level: Level) -> list[str]:
    """What stands in a box, below the name."""
    if level.kind == "max_pool":
        return [f"{level.kernel}x{level.kernel}"]
    number, window = level.blocks, f"{level.kernel}x{level.kernel}"
    if level.kind == "bottleneck":
        what = "bottleneck{}"
    elif level.residual:
        what = "block{}, " + window
    else:
        number *= 2 if level.kind == "basic" else 1
        what = "conv{} " + window
    what = f"{number} {what.format('' if number == 1 else 's')}"
    dilation = f"dilation {level.dilation}"
    if level.first_dilation != level.dilation:
        dilation += f" (first {level.first_dilation})"
    return [what, f"{level.channels:,} channels", dilation]


def _width(level: Level) -> float:
    return _BOX[0] / 2 if level.kind == "max_pool" else _BOX[0]


def _box(axes: Axes, level: Level, x: float, y: float) -> None:
    width, height = _width(level), _BOX[1]
    left, below = x - width / 2, y - height / 2
    pool = level.kind == "max_pool"
    axes.add_patch(
        FancyBboxPatch(
            (left, below),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="none" if pool else _FILLS.get(level.dilation, _MORE),
            edgecolor=charts.QUIET,
            linestyle="--" if pool else "-",
            linewidth=0.8,
        )
    )
    if level.stride > 1:
        axes.plot([left, left], [below + 0.04, below + height - 0.04], color="#c0392b", linewidth=3)
    if level.residual:
        axes.add_patch(
            FancyArrowPatch(
                (left + 0.1, y + height / 2),
                (left + width - 0.1, y + height / 2),
                connectionstyle="arc3,rad=-0.28",
                arrowstyle="-|>,head_length=3,head_width=1.8",
                color=charts.QUIET,
                linewidth=1,
                shrinkA=0,
                shrinkB=0,
            )
        )
    place: dict[str, Any] = {"ha": "center", "va": "center"}
    ink: dict[str, Any] = {} if pool else {"color": charts.DARK}
    if pool:
        text = "\n".join([level.name, *lines(level)])
        axes.text(x, y, text, fontsize=_SMALL, rotation=90, **place)
    else:
        axes.text(x, y + 0.34, level.name, fontsize=_SMALL + 1, fontweight="bold", **place, **ink)
        for i, line in enumerate(lines(level)):
            small = _SMALL * min(1, 16.5 / len(line))
            axes.text(x, y + 0.1 - 0.22 * i, line, fontsize=small, **place, **ink)
    below_text = f"{level.size} x {level.size}\nstride {level.total_stride}"
    axes.text(x, y - 0.56, below_text, fontsize=_SMALL, ha="center", va="top")


def _legend(axes: Axes, dilations: Sequence[int]) -> None:
    handles: list[Patch | Line2D] = [
        Patch(facecolor=_FILLS.get(d, _MORE), edgecolor=charts.QUIET, label=f"dilation {d}")
        for d in dilations
    ]
    handles += [
        Line2D([], [], color="#c0392b", linewidth=3, label="strides"),
        Line2D(
            [], [], color=charts.QUIET, marker="$⌒$", linestyle="", markersize=11, label="residual"
        ),
        Patch(facecolor="none", edgecolor=charts.QUIET, linestyle="--", label="max-pool"),
    ]
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.003, 0.999),
        ncols=len(handles),
        fontsize=9,
        handlelength=1.4,
        columnspacing=1.6,
        borderaxespad=0.2,
    )
