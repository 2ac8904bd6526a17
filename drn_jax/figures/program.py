"""The program: which figures the command line asks for, and their files."""

import argparse
import shlex
from collections.abc import Iterator, Sequence

from drn_jax import models, places, runtime
from drn_jax.analysis import cost
from drn_jax.config import ClassificationData
from drn_jax.errors import UserError
from drn_jax.evaluation.results import require_folder
from drn_jax.figures import (
    activations,
    answers,
    architecture,
    charts,
    effective,
    fields,
    gridding,
    page,
    prices,
    runs,
    segmentations,
)
from drn_jax.figures.charts import Chart
from drn_jax.figures.levels import are_numbered
from drn_jax.figures.prices import Point
from drn_jax.figures.runs import Picture, Run, Scene
from drn_jax.report import console

PAGE = "index.html"
LEAST = 32
"""Pixels of the shorter side of an image."""


def run(arguments: argparse.Namespace) -> int:
    """Draw, write, print a line a file. Returns: the exit status.

    Raises: UserError for whatever the command line asks that can't be, before anything is written;
      and if a file can't be written.
    """
    _check(arguments)
    runtime.keep_compiled()
    out, checkpoint, data_dir = arguments.out, arguments.checkpoint, arguments.data_dir
    facts = {"networks": ", ".join(map(charts.title, arguments.networks))}
    of_classifiers = "" if arguments.segmenters else data_dir
    classifiers = runs.classifiers(arguments.classifiers, checkpoint, of_classifiers)
    segmenters = runs.segmenters(arguments.segmenters, checkpoint, data_dir)
    facts.update((f"classifier {one.name}", one.words()) for one in classifiers)
    facts.update((f"segmenter {one.name}", one.words()) for one in segmenters)
    drawn = [*of_tables([*dict.fromkeys(arguments.networks)])]
    if classifiers:
        size, named = arguments.size, arguments.images
        pictures = runs.pictures(named, classifiers[0], arguments.count, size, out, of_classifiers)
        told = ", ".join(picture.name for picture in pictures)
        facts["images"] = f"{told}: shorter side {size} pixels, the middle square"
        drawn += of_maps(classifiers, pictures)
    if segmenters:
        name, scenes = runs.scenes(segmenters[0], arguments.count, data_dir)
        told = ", ".join(scene.name for scene in scenes)
        facts["segmented"] = f"{name}, validation: {told}"
        drawn.append(of_masks(segmenters, scenes))
    for name, content in _files(drawn, facts, arguments):
        path = places.join(out, name)
        try:
            places.write(path, content)
        except OSError as error:
            raise UserError(
                f"--out={out}: {name} can't be written ({error.strerror or error})"
            ) from error
        console.say(path)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise UserError for what can be seen to be wrong at once."""
    if arguments.count < 1:
        raise UserError(f"--count={arguments.count}: must be at least 1")
    if arguments.size < LEAST:
        raise UserError(f"--size={arguments.size}: must be at least {LEAST} pixels")
    for network in arguments.networks:
        models.table(network)
    require_folder(arguments.out)
    if arguments.images and not arguments.classifiers:
        raise UserError("--images is for --classifiers: name the runs whose maps are to be seen")


def of_tables(networks: Sequence[str]) -> Iterator[Chart]:
    """What needs no weights. Raises: UserError for an unknown network."""
    yield architecture.draw(networks)
    yield fields.coverage()
    yield fields.growth(networks)
    yield gridding.impulse_response()
    yield prices.draw()


def of_maps(classifiers: Sequence[Run], pictures: Sequence[Picture]) -> list[Chart]:
    """What classifiers see in pictures of one size. Gridding is left out where no network has
    any, or maps too small to tell it; our prices, where no checkpoint tells its score."""
    side = pictures[0].image.shape[0]
    seen = {one.name: answers.of(one, pictures) for one in classifiers}
    levels = {one.name: one.levels(side) for one in classifiers}
    last = classifiers[-1].name
    drawn = [
        activations.class_maps(pictures, seen),
        activations.levels(pictures, last, levels[last], seen[last]),
    ]
    numbered = {name: found for name, found in levels.items() if are_numbered(found)}
    if numbered:
        drawn.append(activations.stems(pictures, numbered, seen))
    grids = {one.name: gridding.of(one, pictures) for one in classifiers}
    grids = {name: found for name, found in grids.items() if found}
    if grids:
        columns = {name: {row.stage: row.column for row in levels[name]} for name in grids}
        drawn.append(gridding.draw(grids, columns))
    drawn.append(effective.draw({one.name: effective.of(one, pictures) for one in classifiers}))
    points = points_of(classifiers)
    return [*drawn, prices.draw_here(points)] if points else drawn


def points_of(classifiers: Sequence[Run]) -> dict[str, list[Point]]:
    """Those whose checkpoint tells its accuracy, by data set and size of its images."""
    points: dict[str, list[Point]] = {}
    for one in classifiers:
        settings = one.trained.config.data
        assert isinstance(settings, ClassificationData)
        if "top1" in one.trained.scores:
            side = settings.crop + 2 * one.trained.preprocess.margin
            costs = cost.of(one.network.table, side, side)
            of_set = points.setdefault(f"{settings.name}, {settings.crop} x {settings.crop}", [])
            of_set.append(prices.point(one.name, costs, one.trained.scores["top1"]))
    return points


def of_masks(segmenters: Sequence[Run], scenes: Sequence[Scene]) -> Chart:
    """What segmenters make of validation images."""
    first = segmenters[0].trained
    masks = {one.name: segmentations.of(one, scenes) for one in segmenters}
    return segmentations.draw(scenes, masks, first.classes, first.colors)


def _files(
    drawn: Sequence[Chart], facts: dict[str, str], arguments: argparse.Namespace
) -> list[tuple[str, bytes]]:
    """All made before the first is written."""
    kind = arguments.format
    made = [(f"{chart.name}.{kind}", charts.encode(chart, kind)) for chart in drawn]
    return [*made, (PAGE, page.render(drawn, facts, _command(arguments)).encode())]


def _command(arguments: argparse.Namespace) -> str:
    """What to type to make the page again."""
    words = ["python", "-m", "drn_jax.figures"]
    for name, value in vars(arguments).items():
        if value not in ("", (), None):
            listed = value if isinstance(value, list | tuple) else [value]
            words += [f"--{name}", *map(str, listed)]
    return shlex.join(words)
