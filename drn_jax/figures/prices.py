"""Error against parameters and multiply-adds: what was published, and what is measured here."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from drn_jax.analysis import cost
from drn_jax.evaluation import published
from drn_jax.figures import charts
from drn_jax.figures.charts import Chart
from drn_jax.report import curves

SIDE = 224


class Point(NamedTuple):
    """A network and its price."""

    name: str
    """As the papers call it."""
    parameters: float
    """Millions."""
    multiply_adds: float
    """Billions, for one image."""
    error: float
    """Top-1, %."""


def _family(name: str) -> str:
    return next((family for family in _COLORS if name.startswith(family)), _OTHERS)


_OTHERS = "others"
_NAMES = ("ResNet", "DRN-A", "DRN-B", "DRN-C", "DRN-D", _OTHERS)
_COLORS: dict[str, str] = dict(zip(_NAMES, curves.colors(len(_NAMES)), strict=True))


def of_published() -> tuple[Point, ...]:
    """Every network whose error with one crop is published, at its cost for such a crop."""
    return tuple(
        point(charts.title(row.model), cost.of(row.model, SIDE, SIDE), row.value)
        for row in published.ALL
        if row.data == "imagenet" and row.metric == "top1" and row.crops == 1
    )


def point(name: str, costs: Sequence[cost.StageCost], accuracy: float) -> Point:
    """`accuracy` is in [0, 1]."""
    total = cost.total(costs)
    millions, billions = total.parameters / 1e6, total.multiply_adds / 1e9
    return Point(name, millions, billions, round(100 * (1 - accuracy), 6))


@curves.styled()
def draw() -> Chart:
    """The published errors."""
    figure = _figure({"ImageNet, 1 crop": of_published()})
    return Chart(
        name="prices",
        title="What the accuracy costs",
        source="After fyu/drn, doc/drn_comp.png; the right half is new",
        caption=(
            "Published top-1 error on ImageNet's validation images (one crop of "
            f"{SIDE} x {SIDE}; DRN, Table 1, and fyu/drn's README) against the parameters and the "
            "multiply-adds of the network, counted from its stage table. For its parameters a "
            "DRN errs less than a ResNet; its resolution costs five to nine times the arithmetic."
        ),
        figure=figure,
    )


@curves.styled()
def draw_here(found: Mapping[str, Sequence[Point]]) -> Chart:
    """Networks trained here, by data set."""
    return Chart(
        name="prices_here",
        title="What the accuracy costs, measured here",
        source="New",
        caption=(
            "Top-1 error on the validation images of the runs' own data set, as saved with each "
            "checkpoint, against the cost of one image of the size that it was trained on. Only "
            "what was trained on ImageNet compares with the published errors."
        ),
        figure=_figure(found),
    )


def _figure(rows: Mapping[str, Sequence[Point]]) -> Figure:
    """A row of two axes for every data set."""
    figure = Figure(figsize=(charts.WIDTH, 4.9 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), 2, sharey="row", squeeze=False)
    for (data, points), line in zip(rows.items(), grid, strict=True):
        for axes, (key, label) in zip(line, _AXES.items(), strict=True):
            _lines(axes, points, key)
            axes.set(xscale="log", xlabel=label)
            _ticks(axes, [getattr(p, key) for p in points])
            axes.margins(x=0.1, y=0.12)
        line[0].set(ylabel="top-1 error (%)", title=data)
        line[1].legend(loc="upper right" if len(points) > 6 else "best")
    figure.draw_without_rendering()  # Places axes, so that labels can be placed.
    for points, line in zip(rows.values(), grid, strict=True):
        for axes, key in zip(line, _AXES, strict=True):
            _label(axes, [(getattr(p, key), p.error, p.name) for p in points])
    return figure


_AXES = {
    "parameters": "parameters (millions)",
    "multiply_adds": "multiply-adds of an image (billions)",
}


def _lines(axes: Axes, points: Sequence[Point], key: str) -> None:
    """A family's networks joined by the order of their cost."""
    for family, color in _COLORS.items():
        members = sorted((getattr(p, key), p.error) for p in points if _family(p.name) == family)
        if members:
            x, y = zip(*members, strict=True)
            axes.plot(x, y, color=color, label=family, marker="o", markersize=4.5, linewidth=1.2)


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """A few round numbers on a logarithmic axis."""
    low, high = min(values) / 1.3, max(values) * 1.3
    shown: list[float] = []
    for round_ones in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), range(10, 100)):
        steps = [round(m * 10.0**e, 9) for e in range(-5, 5) for m in round_ones]
        shown = shown if len(shown) > 2 else [step for step in steps if low <= step <= high]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.grid(True)


def _label(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """The names beside their points: each at the first place where it meets no point, no other
    name, no legend, and if possible no line."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()
    scale = figure.dpi / 72
    places = axes.transData.transform([(x, y) for x, y, _ in points])
    taken = [*np.hstack((places - 3 * scale, places + 3 * scale))]
    legend = axes.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent(renderer).extents)
    lines = np.concatenate([_along(axes, line, 3) for line in axes.lines])
    lines = np.hstack((lines - scale, lines + scale))
    inside = axes.get_window_extent(renderer).extents
    for (x, y, name), place in zip(points, places, strict=True):
        text = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=8)
        text.set(in_layout=False, va="center", color=_COLORS[_family(name)])
        size = np.asarray(text.get_window_extent(renderer).size)
        found = []
        for offset, align in _OFFSETS:
            lower = place + scale * np.array(offset) - size * (_LEFT_OF[align], 0.5)
            box = np.concatenate((lower, lower + size))
            wrong = _met(box, np.array(taken)) + (box[:2] < inside[:2]).sum()
            wrong += (box[2:] > inside[2:]).sum()
            detour = np.hypot(*offset) + _LINE * (_met(box, lines) > 0)
            found.append((wrong, detour, len(found), offset, align, box))
        *_, offset, align, box = min(found, key=lambda one: one[:3])
        text.set(position=offset, ha=align)
        taken.append(box + 2 * scale * np.array((-1, -1, 1, 1)))


_LEFT_OF = {"left": 0, "center": 0.5, "right": 1}
"""The share of a name that lies left of its place."""


def _met(box: np.ndarray, boxes: np.ndarray) -> int:
    """How many boxes [n, 4] (x0, y0, x1, y1) one meets."""
    return int(((boxes[:, :2] < box[2:]) & (box[:2] < boxes[:, 2:])).all(1).sum())


def _along(axes: Axes, line: Line2D, step: float) -> np.ndarray:
    """Places on a line in pixels [n, 2], about `step` apart."""
    corners = axes.transData.transform(np.asarray(line.get_xydata()))
    parts = [
        np.linspace(a, b, max(2, int(np.hypot(*(b - a)) / step))) for a, b in pairwise(corners)
    ]
    return np.concatenate(parts) if parts else corners


_OFFSETS = [
    (
        (round(r * float(np.cos(a)), 1), round(r * float(np.sin(a)), 1)),
        "left" if np.cos(a) > 0.3 else "right" if np.cos(a) < -0.3 else "center",
    )
    for r in (7, 10, 14, 19, 25, 32)
    for a in np.radians([0, 45, 180, 225, 90, 270, 135, 315])
]
"""Points from a dot to the near end of its name, nearest first."""
_LINE = 9
"""Points that a name rather goes than meets a line."""
