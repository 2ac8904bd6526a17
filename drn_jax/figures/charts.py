"""What all figures have in common: looks, names, colour bars, saving."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from drn_jax.report import curves, pictures

Format = Literal["svg", "png", "pdf"]

WIDTH = 10.8
"""Inches of a figure as wide as the page."""

QUIET = "#7d868f"
"""Of lines that are no data: legible on light and on dark ground."""
DARK = "#1d2125"
"""Of text on light fills, which stay light on a dark page."""
HEAT = pictures.HEAT_MAP

_SAVED: dict[str, Any] = {"dpi": 144, "bbox_inches": "tight", "pad_inches": 0.06}
"""Two pixels a point, for photographs and PNG; and nothing that is drawn is cut off."""


@dataclass(frozen=True)
class Chart:
    """A figure, and what stands beside it."""

    name: str
    """Of its file, and of its section of the page."""
    title: str
    source: str
    """The figure of the paper that it corresponds to, or that it is new."""
    caption: str
    figure: Figure

    @cached_property
    def document(self) -> str:
        """As SVG without ground."""
        found = curves.document(self.figure, **_SAVED)
        self.figure.set_layout_engine("none")  # All is in its place: not again for a file.
        return found


def encode(chart: Chart, kind: Format) -> bytes:
    """A file of the figure on white ground; the same bytes for the same figure."""
    if kind == "svg":
        ground = '<rect width="100%" height="100%" fill="white"/>'
        return re.sub(r"(<svg\b[^>]*>)", rf"\1\n {ground}", chart.document, count=1).encode()
    file = io.BytesIO()
    nothing: dict[str, Any] = {
        "png": {"Software": None},
        "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    }
    with curves.styled():
        chart.figure.savefig(file, format=kind, facecolor="white", metadata=nothing[kind], **_SAVED)
    return file.getvalue()


def title(network: str) -> str:
    """What the papers call a network of `models.MODELS`."""
    family, _, rest = network.partition("_")
    if family == "resnet":
        return f"ResNet-{rest}"
    if family == "drn":
        return f"DRN-{rest.upper().replace('_', '-')}"
    if network.startswith("vgg_16"):
        return "VGG-16" + rest.removeprefix("16").replace("_", " ")
    return "Context module" if network == "context" else network.replace("_", " ").capitalize()


def looks(count: int) -> list[tuple[str, str]]:
    """Colour and style of so many lines, all unlike as far as there are styles."""
    styles = ("-", "--", ":", "-.")
    colors = curves.colors(count)
    first = len(set(colors))
    return [(color, styles[i // first % len(styles)]) for i, color in enumerate(colors)]


def bare(axes: Axes) -> None:
    """Leave only what is drawn inside: for pictures, whose places are no numbers."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def photograph(axes: Axes, image: np.ndarray) -> None:
    """An image, uint8 [H, W, 3]."""
    bare(axes)
    axes.imshow(image)


def cells(axes: Axes, values: np.ndarray, norm: Normalize | None = None, **options: Any) -> None:
    """A map [h, w] as the cells that it has, by default on the scale of 0 to 1."""
    axes.grid(False)
    norm = Normalize(0, 1) if norm is None else norm
    axes.imshow(values, cmap=HEAT, norm=norm, interpolation="none", **options)


def bar(figure: Figure, row: Sequence[Axes], label: str, norm: Normalize | None = None) -> None:
    """The one colour bar of a row of maps."""
    scale = ScalarMappable(Normalize(0, 1) if norm is None else norm, HEAT)
    found = figure.colorbar(scale, ax=list(row), label=label, pad=0.01, fraction=0.03, aspect=14)
    if isinstance(norm, LogNorm):
        found.set_ticks([2**i for i in range(12) if 2**i <= float(norm.vmax or 1)], minor=False)
        found.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        found.minorticks_off()
    found.outline.set_visible(False)
    found.ax.yaxis.label.set_fontsize(8)
    found.ax.tick_params(labelsize=8)


def heading(axes: Axes, text: str, above: float = 24) -> None:
    """The title of a column, `above` points over its first picture."""
    axes.annotate(
        text.replace(", ", "\n"),
        (0.5, 1),
        (0, above),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=10.5,
        fontweight="bold",
    )


def shortened(text: str, most: int = 20) -> str:
    """A name that fits above a picture."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
