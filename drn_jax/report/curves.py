"""The curves of a run as inline SVG: loss, scores, learning rate and time against the step.

The rows are those of metrics.jsonl, flat: training rows have `step`, `epoch`, `train_loss`,
`learning_rate` and, where steps were timed, `compute_s` and `input_s`; validation rows have
`step`, `epoch`, `val_loss` and scores `val_*` in [0, 1].
Ink is `currentColor`, so the curves take the text colour of the page, light or dark.
"""

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, float]

POINTS = 400
"""The most points drawn a curve; of a longer one, means of consecutive points are drawn."""

_INK = "#010203"  # replaced by currentColor
_COLORS = ("#2b7bba", "#d9702c", "#3a9d6e", "#a163b5", "#b8901f", "#c4527e")
_SIZE = (4.6, 3.0)  # inches of 72 SVG points
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "drn_jax",
    "font.size": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


@dataclass(frozen=True)
class _Curve:
    name: str
    steps: Sequence[float]
    values: Sequence[float]
    marked: bool = False
    """Whether each point is marked: a curve of few points, of which there may be one."""


def svg(rows: Iterable[Row]) -> str:
    """Draws the curves of a run.

    Args:
      rows: the rows of metrics.jsonl, in any order. Of two values for one step the later row
        counts, as after a restart. Values that are not finite are left out.

    Returns:
      up to four `<svg>` elements (loss, scores, learning rate, time) for an HTML page; none for
      what the rows do not have, "" if they have nothing. The same text for the same rows.
    """
    return "\n".join(panels(rows).values())


def panels(rows: Iterable[Row]) -> dict[str, str]:
    """The same panels one by one, "loss", "scores", "learning_rate", "time" -> `<svg>` element."""
    rows = list(rows)
    keys = dict.fromkeys(key for row in rows for key in row)
    scores = [key for key in keys if key.startswith("val_") and key != "val_loss"]
    learning_rate = _curve(rows, "learning_rate", "learning rate")
    losses = [
        _curve(rows, "train_loss", "training"),
        _curve(rows, "val_loss", "validation", marked=True),
    ]
    times = [
        _curve(rows, "compute_s", "computing"),
        _curve(rows, "input_s", "waiting for input"),
    ]
    percent = [_curve(rows, key, _name(key), marked=True, scale=100) for key in scores]
    epochs = max((row["epoch"] for row in rows if "epoch" in row), default=None)
    step = "step" if epochs is None else f"step ({epochs:,.4g} epochs in all)"
    drawn = {
        "loss": ("Loss", "cross-entropy (nats)", losses),
        "scores": ("Validation scores", "score (%)", percent),
        "learning_rate": ("Learning rate", "learning rate", [learning_rate]),
        "time": ("Time of a step", "seconds", times),
    }
    return {
        key: _panel(key, title, step, unit, [curve for curve in curves if curve.steps])
        for key, (title, unit, curves) in drawn.items()
        if any(curve.steps for curve in curves)
    }


def lines(
    key: str,
    title: str,
    x: str,
    y: str,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> str:
    """One set of axes with several curves, as an `<svg>` element.

    Args:
      key: unlike that of any other panel of the page.
      x, y: labels of the axes.
      curves: (places, values) by name; what is not finite is left out.
    """
    drawn = []
    for name, (places, values) in curves.items():
        pairs = [(a, b) for a, b in zip(places, values, strict=True) if math.isfinite(a + b)]
        drawn.append(_Curve(name, [a for a, _ in pairs], [b for _, b in pairs]))
    return _panel(key, title, x, y, drawn, whole=False)


def _name(key: str) -> str:
    """What a score is called in the legend: val_top5 -> top-5, val_pixel_accuracy -> ..."""
    name = key.removeprefix("val_").replace("_", " ").replace("miou", "mean IoU")
    return re.sub(r"\btop(\d)", r"top-\1", name)


def _curve(
    rows: Sequence[Row], key: str, name: str, marked: bool = False, scale: float = 1
) -> _Curve:
    """The finite values of a key by step, thinned to POINTS."""
    found = {row["step"]: row[key] for row in rows if key in row and math.isfinite(row[key])}
    steps = sorted(found)
    values = [scale * found[step] for step in steps]
    parts = min(POINTS, len(steps))
    if parts < len(steps):
        steps = [float(part.mean()) for part in np.array_split(np.array(steps), parts)]
        values = [float(part.mean()) for part in np.array_split(np.array(values), parts)]
    return _Curve(name, steps, values, marked)


def _panel(
    key: str, title: str, step: str, unit: str, curves: Sequence[_Curve], whole: bool = True
) -> str:
    """One set of axes as an `<svg>` element; `whole`: steps are whole numbers."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    with styled():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        for curve, color in zip(curves, colors(len(curves)), strict=True):
            marker = "o" if curve.marked and len(curve.steps) <= 60 else ""
            axes.plot(
                curve.steps,
                curve.values,
                color=color,
                label=curve.name,
                linewidth=1.6,
                marker=marker,
                markersize=3.5,
            )
        axes.set(title=title, xlabel=step, ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}" if whole else "{x:g}"))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.grid(False)
        axes.margins(x=0.02)
        axes.set_ylim(bottom=0)
        if len(curves) > 1 or curves[0].name not in title.lower():
            axes.legend(loc="best")
    ends = ", ".join(f"{curve.name} {curve.values[-1]:.4g}" for curve in curves)
    last = max(curve.steps[-1] for curve in curves)
    at = f"step {last:,.0f}" if whole else f"{step} {last:.4g}"
    label = f"{title}, {unit}, at {at}: {ends}"
    return element(document(figure), key, label)


@contextmanager
def styled() -> Iterator[None]:
    """Within it figures are made in the looks of the page."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def document(figure: "Figure", **options: Any) -> str:
    """A figure made within `styled` as SVG, without ground; the same text for the same figure.
    `options` are those of `Figure.savefig`."""
    file = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with styled():
        figure.savefig(file, format="svg", transparent=True, metadata=nothing, **options)
    return file.getvalue()


def colors(count: int) -> list[str]:
    """So many colours of curves."""
    return [_COLORS[i % len(_COLORS)] for i in range(count)]


def element(document: str, key: str, label: str) -> str:
    """The `<svg>` element of a document for an HTML page, in the page's ink.

    Args:
      key: before all its ids, so unlike that of any other figure of the page.
      label: what is read out in its place.
    """
    element = document[document.index("<svg") :].strip()
    # Equal images would have equal ids, to which nothing refers.
    element = re.sub(r'\bid="image\w+" ?', "", element)
    element = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{key}-", element)
    element = re.sub(r"<!--.*?-->\s*", "", element, flags=re.DOTALL)
    element = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", element, flags=re.DOTALL)
    element = element.replace(_INK, "currentColor")
    attributes = f'role="img" aria-label="{escape(label)}" stroke-linejoin="round"'
    return element.replace("<svg ", f"<svg {attributes} ", 1)
