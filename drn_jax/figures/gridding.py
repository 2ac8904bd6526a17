"""Gridding: what a dilated convolution makes of a single cell (DRN, Fig. 4), and how much of a grid
the maps of every level are."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from drn_jax.analysis import gridding
from drn_jax.analysis.gridding import Level
from drn_jax.figures import charts
from drn_jax.figures.charts import Chart
from drn_jax.figures.runs import Picture, Run
from drn_jax.models.stages import cells
from drn_jax.report import curves

DILATIONS = (1, 2, 4)
SIZE = 15
"""Cells a side."""


@curves.styled()
def impulse_response() -> Chart:
    """One active cell, and the map behind one convolution of each dilation."""
    figure = Figure(figsize=(charts.WIDTH, 3.1), layout="constrained")
    line = figure.subplots(1, 1 + len(DILATIONS))
    cell = np.zeros((SIZE, SIZE))
    cell[SIZE // 2, SIZE // 2] = 1
    maps = {"one active cell": cell}
    for dilation in DILATIONS:
        maps[f"3 x 3, dilation {dilation}"] = gridding.impulse_response(dilation, size=SIZE)
    half = SIZE / 2
    for axes, (name, found) in zip(line, maps.items(), strict=True):
        charts.cells(axes, found, extent=(-half, half, half, -half))
        axes.set_title(name, fontsize=10)
        axes.set(xlabel="cells right of it", xticks=(-6, -3, 0, 3, 6), yticks=(-6, -3, 0, 3, 6))
        axes.tick_params(labelsize=8)
    line[0].set_ylabel("cells below it")
    charts.bar(figure, list(line), "activation (all taps 1)")
    return Chart(
        name="impulse_response",
        title="Where gridding comes from",
        source="DRN, Fig. 4",
        caption=(
            "A map with a single active cell, and what one 3 x 3 convolution, all of whose weights "
            "are 1, makes of it: dilated, it leaves a grid with steps of its dilation."
        ),
        figure=figure,
    )


def of(run: Run, pictures: Sequence[Picture]) -> tuple[Level, ...]:
    """The gridding of a classifier's levels over pictures of one size; nothing for a network that
    dilates nowhere, or whose maps are too small to tell a grid."""
    trained, table = run.trained, run.network.stages
    widest = max(stage.dilation for stage in table)
    side = pictures[0].image.shape[0] + 2 * trained.preprocess.margin
    if widest == 1 or cells(table, side) < gridding.least_size(widest):
        return ()
    first = [stage.dilation > 1 for stage in table].index(True)
    names = {stage.name for stage in table[first:]}

    def features(image: jax.Array) -> Any:
        found: Any = trained.model.apply(variables, trained.preprocess(image), train=False)
        return {name: map for name, map in found[1].items() if name in names}

    variables = trained.variables
    compiled = jax.jit(features)
    images = (jnp.asarray(picture.image[None]) for picture in pictures)
    return gridding.of_levels(compiled, table, images)


@curves.styled()
def draw(found: Mapping[str, Sequence[Level]], columns: Mapping[str, Mapping[str, int]]) -> Chart:
    """Score over levels, a line a network, a panel a period.

    Args:
      found: by network, none of them empty.
      columns: the paper's number of every stage, by network.
    """
    images = next(iter(found.values()))[0].images
    looks = charts.looks(len(found))
    periods = sorted({level.period for levels in found.values() for level in levels})
    figure = Figure(figsize=(charts.WIDTH, 3.9), layout="constrained")
    line = figure.subplots(1, len(periods), sharey=True, squeeze=False)[0]
    for axes, period in zip(line, periods, strict=True):
        numbers = set()
        for i, (name, (color, style)) in enumerate(zip(found, looks, strict=True)):
            # Of rows that make one level the last.
            levels = [
                level
                for level in found[name]
                if level.period == period and level.stage in columns[name]
            ]
            x = [columns[name][level.stage] for level in levels]
            numbers.update(x)
            shift = 0.05 * (i - (len(found) - 1) / 2)
            axes.errorbar(
                [number + shift for number in x],
                [level.mean for level in levels],
                [level.deviation for level in levels] if images > 1 else None,
                color=color,
                linestyle=style,
                label=name,
                marker="o",
                markersize=4,
                linewidth=1.6,
                elinewidth=1,
                capsize=2.5,
            )
        axes.set(xlabel="level", xticks=sorted(numbers), title=f"grids of period {period} cells")
        axes.xaxis.grid(False)
    line[0].set(ylabel="gridding score (0 to 1)", ylim=(0, None))
    handles, names = line[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=len(names))
    spread = "bars: standard deviation over images" if images > 1 else "of which there is no spread"
    return Chart(
        name="gridding",
        title="How much of a grid is left",
        source="New: a number for what DRN, section 4, describes",
        caption=(
            "Share of a level's energy that repeats with the period of a dilation and not "
            f"in between (see drn_jax/analysis/gridding.py): mean over {images} images, {spread}. "
            "Levels are numbered as in the paper's Fig. 5, where the groups of DRN-A stand under "
            "levels 3 to 6; those of a VGG one behind another. A ResNet dilates nowhere."
        ),
        figure=figure,
    )
