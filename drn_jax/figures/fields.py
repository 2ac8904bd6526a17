"""Receptive fields: which pixels a series of dilated layers uses (Context, Fig. 1), and how the
field grows over the layers of a network."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

from drn_jax import models
from drn_jax.analysis import receptive_field
from drn_jax.figures import charts
from drn_jax.figures.charts import Chart
from drn_jax.models.context import Context, rows
from drn_jax.report import curves

SERIES = ((1, 2, 4), (2, 2, 2))
"""Dilations: the paper's, and one of as many parameters that leaves holes."""
IMAGE = 224

_HOLE = "#8fb8d8"


@curves.styled()
def coverage() -> Chart:
    """Per series a row, with the field of a cell behind each of its layers."""
    figure = Figure(figsize=(charts.WIDTH, 7.2), layout="constrained")
    grid = figure.subplots(len(SERIES), len(SERIES[0]), squeeze=False)
    reach = 1 + max(2 * sum(dilations) for dilations in SERIES)
    for dilations, line in zip(SERIES, grid, strict=True):
        counts = [
            receptive_field.coverage(receptive_field.series(dilations[: depth + 1]))
            for depth in range(len(dilations))
        ]
        norm = LogNorm(1, counts[-1].max())
        for depth, (axes, found) in enumerate(zip(line, counts, strict=True)):
            _counts(axes, found, norm, reach)
            told = ", ".join(map(str, dilations[: depth + 1]))
            axes.set_title(f"dilation {told}: {len(found)} x {len(found)}", fontsize=10)
        line[0].set_ylabel("pixels below the centre")
        charts.bar(figure, line, "paths from a pixel (log scale)", norm)
    for axes in grid[-1]:
        axes.set_xlabel("pixels right of the centre")
    hole = Patch(facecolor="none", edgecolor=_HOLE, hatch="////", label="never used")
    figure.legend(handles=[hole], loc="outside upper left", fontsize=9)
    return Chart(
        name="coverage",
        title="Which pixels a series of dilated layers uses",
        source="Context, Fig. 1",
        caption=(
            "Number of paths from every pixel to one cell behind one, two and three 3 x 3 layers. "
            "Dilations that double see a square of 3, 7 and 15 pixels a side and use each of its "
            "pixels; as many parameters with one dilation throughout leave holes. One scale a row, "
            "logarithmic."
        ),
        figure=figure,
    )


def _counts(axes: Axes, counts: np.ndarray, norm: LogNorm, reach: int) -> None:
    """The counts around the centre, grid lines between pixels, holes hatched."""
    half = len(counts) / 2
    used = np.ma.masked_equal(counts, 0)
    charts.cells(axes, used, norm, extent=(-half, half, half, -half))
    for row, column in np.argwhere(counts == 0):
        place = column - half, row - half
        axes.add_patch(Rectangle(place, 1, 1, facecolor="none", edgecolor=_HOLE, hatch="//////"))
    edges = np.arange(len(counts) + 1) - half
    options = {"colors": charts.QUIET, "linewidth": 0.5}
    axes.hlines(edges, -half, half, **options)
    axes.vlines(edges, -half, half, **options)
    axes.set(xlim=(-reach / 2, reach / 2), ylim=(reach / 2, -reach / 2), aspect="equal")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=8)
    axes.spines["bottom"].set_visible(False)


def sizes(network: str) -> tuple[int, ...]:
    """The field at every convolution and pooling on the longest path. Raises: UserError for an
    unknown network."""
    return tuple(
        row.size
        for row in receptive_field.of(network)
        if not row.layer.rpartition("/")[2].startswith(("block", "projection"))
    )


@curves.styled()
def growth(networks: Sequence[str]) -> Chart:
    """The field over the layers of networks, those of equal fields as one line, and of the context
    module."""
    figure = Figure(figsize=(charts.WIDTH, 4.3), layout="constrained")
    of_networks, of_context = figure.subplots(1, 2, width_ratios=(3, 2))
    alike: dict[tuple[int, ...], list[str]] = {}
    for network in networks:
        if models.table(network):
            alike.setdefault(sizes(network), []).append(charts.title(network))
    for (field, names), look in zip(alike.items(), charts.looks(len(alike)), strict=True):
        options = {"marker": "o", "markersize": 3, "linewidth": 1.6}
        options |= dict(zip(("color", "linestyle"), look, strict=True))
        of_networks.plot(range(1, len(field) + 1), field, label=", ".join(names), **options)
    of_networks.axhline(IMAGE, color=charts.QUIET, linewidth=1, linestyle=(0, (1, 2)))
    of_networks.annotate(
        f"image of {IMAGE}", (1, IMAGE), (0, 3), textcoords="offset points", fontsize=9
    )
    _axes(of_networks, "Networks", "layer (convolutions and poolings)", "receptive field (pixels)")
    _context(of_context)
    return Chart(
        name="receptive_fields",
        title="How receptive fields grow",
        source="New; the module's sizes are those of Context, Table 1",
        caption=(
            "Side of the square that reaches a cell, by the longest path, behind every layer. A "
            "DRN-A keeps the fields of its ResNet at an eighth of the resolution instead of a "
            "thirty-second. Right: the context module's field, in cells of the class map that it "
            "refines, and that of as many layers without dilation."
        ),
        figure=figure,
    )


def _context(axes: Axes) -> None:
    """The module's layers, their dilation beside each."""
    table = rows(1, Context())
    fields = [row.size for row in receptive_field.of(table)]
    plain = [3 + 2 * i for i in range(len(table))]
    layers = range(1, len(table) + 1)
    first, second = curves.colors(2)
    options = {"marker": "o", "markersize": 3.5, "linewidth": 1.6}
    axes.plot(layers, fields, color=first, label="context module", **options)
    axes.plot(layers, plain, color=second, label="3 x 3, undilated", linestyle="--", **options)
    for layer, stage, field in zip(layers, table, fields, strict=True):
        kind = f"d {stage.dilation}" if stage.kernel > 1 else "1 x 1"
        axes.annotate(
            kind, (layer, field), (-2, 5), textcoords="offset points", ha="right", fontsize=8
        )
    _axes(axes, "Context module", "layer (d: its dilation)", "receptive field (cells)")
    axes.set(xticks=layers, xlim=(0.3, None))
    axes.set_ylim(top=max(fields) * 1.6)


def _axes(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y, yscale="log")
    axes.set_ylim(bottom=2)
    axes.yaxis.set_major_locator(FixedLocator([2**i for i in range(1, 12)]))
    axes.yaxis.set_minor_locator(FixedLocator([]))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
