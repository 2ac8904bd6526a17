"""What networks see: class maps, the strongest channel of every level, and of the stem (DRN,
Figs. 3, 7 and 6)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drn_jax.figures import charts
from drn_jax.figures.answers import Answer, Strongest
from drn_jax.figures.charts import Chart
from drn_jax.figures.levels import Level
from drn_jax.figures.runs import Picture
from drn_jax.report import curves

Answers = Mapping[str, Sequence[Answer]]
"""By the classifier's name, one a picture."""


@curves.styled()
def class_maps(pictures: Sequence[Picture], answers: Answers) -> Chart:
    """A row an image: the image, and each network's class map."""
    figure, grid = _grid(len(pictures), 1 + len(answers), room=0.42)
    for i, (picture, line) in enumerate(zip(pictures, grid, strict=True)):
        _picture(line[0], picture)
        for axes, (name, found) in zip(line[1:], answers.items(), strict=True):
            answer = found[i]
            charts.bare(axes)
            charts.cells(axes, answer.class_map)
            axes.set_title(
                f"{charts.shortened(answer.label)}\n{answer.probability:.0%}",
                fontsize=8.5,
                fontweight="normal",
                loc="center",
                pad=4,
            )
            if not i:
                charts.heading(axes, name)
            if i == len(pictures) - 1:
                _size(axes, answer.class_map, "cells")
        charts.bar(figure, line, "probability of the class")
    charts.heading(grid[0][0], "image")
    _size(grid[-1][0], pictures[-1].image, "pixels")
    return Chart(
        name="class_maps",
        title="Class maps",
        source="DRN, Fig. 3",
        caption=(
            "For each image the class that the network predicts for the whole of it, with its "
            "probability; and the probability of that class (softmax) at every cell of the last "
            "map, from the same weights without any training for places. Cells are drawn as they "
            "are, on one scale from 0 to 1."
        ),
        figure=figure,
    )


@curves.styled()
def levels(
    pictures: Sequence[Picture], name: str, found: Sequence[Level], answers: Sequence[Answer]
) -> Chart:
    """A row an image: the image, the strongest channel of each level of one network, and the
    class map."""
    figure, grid = _grid(len(pictures), 2 + len(found), room=0.5)
    for i, (picture, answer, line) in enumerate(zip(pictures, answers, grid, strict=True)):
        _picture(line[0], picture)
        charts.bare(line[-1])
        charts.cells(line[-1], answer.class_map)
        line[-1].set_xlabel(
            f"{charts.shortened(answer.label, 14)}\n{answer.probability:.0%}",
            fontsize=7.5,
            labelpad=2,
        )
        for axes, level in zip(line[1:-1], found, strict=True):
            strongest = answer.strongest[level.stage]
            _activation(axes, strongest)
            if not i:
                charts.heading(axes, level.name, 15)
            if i == len(pictures) - 1:
                _size(axes, strongest.map, "")
        charts.bar(figure, line, _RELATIVE)
    charts.heading(grid[0][0], "image", 15)
    charts.heading(grid[0][-1], "class", 15)
    _size(grid[-1][0], pictures[-1].image, "")
    _size(grid[-1][-1], answers[-1].class_map, "")
    return Chart(
        name="levels",
        title=f"{name}, level by level",
        source="DRN, Fig. 7",
        caption=(
            "The channel of the highest mean at the end of every level; below each map its number "
            "and its maximum, in the last row also its cells. Levels differ in scale: each map is "
            "divided by its own maximum. Class: the probability of the predicted class at every "
            "cell, as it is; below it that of the whole image."
        ),
        figure=figure,
    )


@curves.styled()
def stems(
    pictures: Sequence[Picture], found: Mapping[str, Sequence[Level]], answers: Answers
) -> Chart:
    """A row an image: the image, and the strongest channel of what enters level 3 of each network.

    Args:
      found: the levels of each network, all of them residual (`levels.are_numbered`).
    """
    entering = {name: _before_level_3(of_network) for name, of_network in found.items()}
    figure, grid = _grid(len(pictures), 1 + len(entering), room=0.5)
    for i, (picture, line) in enumerate(zip(pictures, grid, strict=True)):
        _picture(line[0], picture)
        for axes, (name, level) in zip(line[1:], entering.items(), strict=True):
            strongest = answers[name][i].strongest[level.stage]
            _activation(axes, strongest)
            if not i:
                charts.heading(axes, name, 18)
                axes.set_title(level.name, fontsize=9, fontweight="normal", loc="center", pad=4)
            if i == len(pictures) - 1:
                _size(axes, strongest.map, "cells")
        charts.bar(figure, line, _RELATIVE)
    charts.heading(grid[0][0], "image", 18)
    _size(grid[-1][0], pictures[-1].image, "pixels")
    return Chart(
        name="stems",
        title="What enters level 3",
        source="DRN, Fig. 6",
        caption=(
            "The channel of the highest mean in the map that enters level 3 (as the paper counts: "
            "the first residual level behind a max-pool, where there is one): behind a max-pool, "
            "or behind a stem of convolutions. Each map is divided by its own maximum."
        ),
        figure=figure,
    )


_RELATIVE = "activation / max"

_LETTER = 0.065
"""Inches of a letter of a picture's name, about."""


def _before_level_3(found: Sequence[Level]) -> Level:
    """Level 3 is the paper's: in the fourth column."""
    before = [level for level in found if level.column < 3]
    return max(before, key=lambda level: level.column)


def _grid(rows: int, columns: int, room: float) -> tuple[Figure, np.ndarray]:
    """Square places. `room`: height of what stands between two rows, inches."""
    side = min(1.9, (charts.WIDTH - 0.9) / columns - 0.08)
    figure = Figure(
        figsize=(columns * (side + 0.08) + 0.9, rows * (side + room) + 0.9), layout="compressed"
    )
    return figure, figure.subplots(rows, columns, squeeze=False)


def _picture(axes: Axes, picture: Picture) -> None:
    charts.photograph(axes, picture.image)
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = axes.get_position().width * figure.get_size_inches()[0]
    name = charts.shortened(picture.name.rpartition("/")[2], max(6, int(inches / _LETTER)))
    axes.set_title(name, fontsize=7.5, fontweight="normal", loc="center", pad=3)


def _activation(axes: Axes, strongest: Strongest) -> None:
    """The map divided by its maximum; below it what was left out."""
    charts.bare(axes)
    most = float(strongest.map.max())
    charts.cells(axes, strongest.map / most if most > 0 else np.zeros_like(strongest.map))
    axes.set_xlabel(f"channel {strongest.channel}\nmax {most:.3g}", fontsize=7.5, labelpad=2)


def _size(axes: Axes, map: np.ndarray, unit: str) -> None:
    """The size of what is drawn, below it."""
    height, width = map.shape[:2]
    before = axes.get_xlabel()
    told = f"{height} x {width} {unit}".strip()
    axes.set_xlabel(f"{before}\n{told}" if before else told, fontsize=7.5, labelpad=2)
