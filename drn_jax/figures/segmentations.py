"""Segmentations beside the truth (DRN, Fig. 8)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from drn_jax.evaluation.dense import ClassMaps
from drn_jax.evaluation.pixels import PixelScores
from drn_jax.figures import charts
from drn_jax.figures.charts import Chart
from drn_jax.figures.runs import Run, Scene
from drn_jax.report import curves, pictures
from drn_jax.report.pictures import IGNORED
from drn_jax.tasks import Segmentation


def of(run: Run, scenes: Sequence[Scene]) -> list[np.ndarray]:
    """The mask that a segmenter gives each scene at one scale, [H, W]."""
    trained = run.trained
    assert isinstance(trained.task, Segmentation), "see `runs.segmenters`"
    class_maps = ClassMaps(trained.model, trained.preprocess, trained.variables)
    scores = PixelScores(class_maps, trained.task)
    return [scores.answer(scene.image)[0] for scene in scenes]


@curves.styled()
def draw(
    scenes: Sequence[Scene],
    found: Mapping[str, Sequence[np.ndarray]],
    classes: Sequence[str],
    colors: np.ndarray,
) -> Chart:
    """A row an image: the image, each network's mask, the truth; a legend of the classes seen.

    Args:
      found: by network, a mask a scene.
      colors: uint8 [classes, 3].
    """
    columns = 2 + len(found)
    side = (charts.WIDTH - 0.1) / columns
    tall = side * max(scene.image.shape[0] / scene.image.shape[1] for scene in scenes)
    seen = np.unique(np.concatenate([np.unique(m) for m in _masks(scenes, found)]))
    handles = [
        Patch(facecolor=tuple(colors[i] / 255), edgecolor=charts.QUIET, label=classes[i])
        for i in seen.tolist()
        if i != IGNORED
    ]
    if IGNORED in seen:
        handles.append(
            Patch(facecolor="#e0e0e0", edgecolor="#909090", hatch="////", label="not labelled")
        )
    across = 7
    below = 0.2 * -(-len(handles) // across) + 0.15
    figure = Figure(
        figsize=(charts.WIDTH, len(scenes) * (tall + 0.3) + 0.35 + below), layout="constrained"
    )
    grid = figure.subplots(len(scenes), columns, squeeze=False)
    for i, (scene, line) in enumerate(zip(scenes, grid, strict=True)):
        charts.photograph(line[0], scene.image)
        line[0].set_title(charts.shortened(scene.name, 28), **_SMALL)
        for axes, masks in zip(line[1:-1], found.values(), strict=True):
            charts.photograph(axes, pictures.paint(masks[i], colors))
            axes.set_title(_right(masks[i], scene.mask), **_SMALL)
        charts.photograph(line[-1], pictures.paint(scene.mask, colors))
    for axes, name in zip(grid[0], ("image", *found, "truth"), strict=True):
        charts.heading(axes, name, 16)
    figure.legend(handles=handles, loc="outside lower left", ncols=across, fontsize=8.5)
    sizes = ", ".join(
        sorted({f"{scene.image.shape[1]} x {scene.image.shape[0]}" for scene in scenes})
    )
    return Chart(
        name="segmentations",
        title="Segmentations",
        source="DRN, Fig. 8",
        caption=(
            "Validation images, what each network makes of them (whole images at one scale, each "
            "class's map enlarged to pixels as the network was trained), and the truth. Images of "
            f"{sizes} pixels; above each mask the share of the labelled pixels that are right."
        ),
        figure=figure,
    )


_SMALL: dict[str, Any] = {"fontsize": 8, "fontweight": "normal", "loc": "center", "pad": 3}


def _masks(scenes: Sequence[Scene], found: Mapping[str, Sequence[np.ndarray]]) -> list[np.ndarray]:
    return [*(scene.mask for scene in scenes), *(m for masks in found.values() for m in masks)]


def _right(mask: np.ndarray, truth: np.ndarray) -> str:
    """The share of the labelled pixels, in words."""
    counted = truth != IGNORED
    return f"{(mask == truth)[counted].mean():.1%} right" if counted.any() else "nothing labelled"
