"""Effective receptive fields beside the theoretical ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from drn_jax.analysis import effective_field
from drn_jax.analysis.effective_field import EffectiveField
from drn_jax.errors import UserError
from drn_jax.figures import charts
from drn_jax.figures.charts import Chart
from drn_jax.figures.runs import Picture, Run
from drn_jax.report import curves

SEED = 0
"""Of the random signs of the channels."""
_THEORY, _HELD = "#3f9b6b", "#5aa9e6"


def of(run: Run, pictures: Sequence[Picture]) -> EffectiveField:
    """Of the classifier's last map, over pictures of one size. Raises: UserError where no gradient
    reaches the image."""
    trained, table = run.trained, run.network.stages

    def features(variables: Any, images: jax.Array) -> Any:
        found: Any = trained.model.apply(variables, images, train=False)
        return found[1]

    images = (trained.preprocess(jnp.asarray(picture.image[None])) for picture in pictures)
    try:
        return effective_field.of(
            features, trained.variables, table, table[-1].name, images, jax.random.key(SEED)
        )
    except ValueError as error:
        raise UserError(f"{run.name}: {error}; choose another --checkpoint") from error


@curves.styled()
def draw(fields: Mapping[str, EffectiveField]) -> Chart:
    """One map a network, all on one scale and around the middle of their theoretical fields."""
    columns = min(4, len(fields))
    rows = -(-len(fields) // columns)
    side = min(3.2, (charts.WIDTH - 1) / columns)
    figure = Figure(figsize=(side * columns + 1, (side + 0.6) * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    reach = max(max(field.size, *field.map.shape) for field in fields.values()) / 2 * 1.04
    for axes in grid.flat[len(fields) :]:
        axes.set_visible(False)
    for axes, (name, field) in zip(grid.flat, fields.items(), strict=False):
        height, width = field.map.shape
        down, right = field.centre
        extent = (-right - 0.5, width - right - 0.5, height - down - 0.5, -down - 0.5)
        charts.cells(axes, np.sqrt(field.map / field.map.max()), extent=extent)
        for color, size in ((_THEORY, field.size), (_HELD, field.side)):
            axes.add_patch(
                Rectangle(
                    (-size / 2, -size / 2), size, size, facecolor="none", edgecolor=color, lw=1.6
                )
            )
        charts.heading(axes, name, 16)
        told = f"radius {field.radius:.0f}; 95 % in {field.side:.0f} of {field.size}"
        axes.set_title(told, fontsize=8.5, fontweight="normal", loc="center", pad=4)
        ticks = [t for t in (-400, -200, 0, 200, 400) if abs(t) < reach]
        axes.set(xlim=(-reach, reach), ylim=(reach, -reach), xticks=ticks, yticks=ticks)
        axes.tick_params(labelsize=8)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("pixels right of the middle", fontsize=9)
    for line in grid:
        line[0].set_ylabel("pixels below the middle", fontsize=9)
        charts.bar(figure, line, "sensitivity / its maximum (square root)")
    figure.legend(
        handles=[
            Rectangle((0, 0), 1, 1, facecolor="none", edgecolor=color, lw=1.6, label=label)
            for color, label in ((_THEORY, "theoretical field"), (_HELD, "holds 95 %"))
        ],
        loc="outside upper left",
        ncols=2,
        fontsize=9,
    )
    images = next(iter(fields.values())).images
    return Chart(
        name="effective_fields",
        title="Effective receptive fields",
        source="New, after Luo et al. 2016",
        caption=(
            "How strongly the cell in the middle of the last map depends on every pixel of the "
            f"image (mean absolute gradient over {images} images, square root, each divided by "
            "its maximum), within the square that it can depend on by its stage table; only "
            "the coloured area is image, and what a field has beyond it counts nothing. Radius: "
            "root of the second moment, pixels. Blue: the "
            "smallest centred square that holds 95 % of it."
        ),
        figure=figure,
    )
