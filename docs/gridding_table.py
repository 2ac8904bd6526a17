"""Print how much of the maps of trained classifiers is a grid, level by level.

    python docs/gridding_table.py RUN... --images FOLDER [--count 100] [--json gridding.json]

RUN are working directories of train.py; those of one network are its seeds. Every level whose cells
lie --stride pixels apart is looked at, also those before any dilation, and so are networks that do
not dilate: what photographs alone score. See drn_jax/analysis/gridding.py for the score.
"""

import argparse
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from drn_jax import cli, trained
from drn_jax.analysis import gridding
from drn_jax.data.dataset import spread as evenly
from drn_jax.data.image import decode_rgb, read_bytes
from drn_jax.data.transforms import ResizeShorterSide
from drn_jax.errors import UserError
from drn_jax.figures.levels import of as levels_of
from drn_jax.models.stages import Stage, output_stride
from drn_jax.predict import files

STEP = 32
"""What the longer side is cut to a multiple of, so that few programs are compiled, pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="working directories")
    parser.add_argument("--images", nargs="+", required=True, help="files, folders, patterns")
    parser.add_argument("--count", type=int, default=0, help="of the images, spread evenly; 0: all")
    parser.add_argument("--size", type=int, default=224, help="shorter side; 0: as they are")
    parser.add_argument("--stride", type=int, default=8, help="of the levels, pixels")
    parser.add_argument("--periods", type=int, nargs="+", default=[2, 4], help="cells")
    parser.add_argument("--checkpoint", default="best", help="best, latest, or a step")
    parser.add_argument("--data_dir", default="", help="the data set, for old checkpoints")
    parser.add_argument("--json", default="", help="a file for all of it")
    arguments = parser.parse_args()
    try:
        paths = chosen(arguments.images, arguments.count)
        found = []
        for run in arguments.runs:
            found.append(of_run(run, paths, arguments))
            for earlier in found[:-1]:
                if earlier["sha256"] == found[-1]["sha256"]:
                    raise UserError(f"{run} and {earlier['run']} are of the same weights")
        print("\n".join(table(found)))
        if arguments.json:
            whole = {"images": paths, "size": arguments.size, "runs": found}
            write(arguments.json, json.dumps(whole, indent=1, allow_nan=False) + "\n")
    except UserError as error:
        cli.fail(str(error))


def write(file: str, text: str) -> None:
    """Raises: UserError if that can't be."""
    try:
        Path(file).write_text(text)
    except OSError as error:
        raise UserError(f"--json={file}: {error.strerror or error}") from error


def chosen(named: Sequence[str], count: int) -> list[str]:
    """The paths of `count` images, evenly spread over those that are named; 0: of all."""
    if count < 0:
        raise UserError(f"--count={count}: it must be 0 or more")
    found, _ = files.find(named, os.devnull)  # Nothing is written among them.
    return [found[i].path for i in evenly(len(found), count or len(found))]


def prepared(paths: Sequence[str], size: int) -> Iterator[np.ndarray]:
    """The images, uint8 [1, H, W, 3], the shorter side `size` pixels, or as they are for 0."""
    for path in paths:
        image = decode_rgb(read_bytes(path), path)
        if size:
            image = ResizeShorterSide(size)({"image": image})["image"]
            over = [max(0, side - size) % STEP // 2 for side in image.shape[:2]]
            kept = [size + max(0, side - size) // STEP * STEP for side in image.shape[:2]]
            image = image[over[0] : over[0] + kept[0], over[1] : over[1] + kept[1]]
        yield image[None]


def of_run(run: str, paths: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """A run's levels, as JSON."""
    network = trained.load(run, arguments.checkpoint, arguments.data_dir)

    @jax.jit
    def features(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        found: Any = network.model.apply(variables, network.preprocess(images), train=False)
        return {stage.name: found[1][stage.name] for stage in rows}

    rows = up_to(network.model.stages, arguments.stride)
    if not rows:
        raise UserError(f"{run}: no level has cells {arguments.stride} pixels apart (--stride)")
    # Of rows that make one level the last.
    columns = {level.stage: level.column for level in levels_of(rows, arguments.size or STEP)}
    images = prepared(paths, arguments.size)
    try:
        of_images = partial(features, network.variables)
        levels = gridding.of_levels(of_images, rows, images, arguments.periods)
    except ValueError as error:
        raise UserError(f"{run}: {error} (--size, --periods)") from error
    return {
        "run": run,
        "network": network.config.model.name,
        "step": network.step,
        "sha256": network.digest,
        "top1": network.scores.get("top1"),
        "settings": {part: asdict(getattr(network.config, part)) for part in ("model", "data")},
        "levels": [
            {
                **asdict(level),
                "deviation": None if level.images == 1 else level.deviation,
                "column": columns[level.stage],
            }
            for level in levels
            if level.stage in columns
        ],
    }


def up_to(table: tuple[Stage, ...], stride: int) -> tuple[Stage, ...]:
    """The rows as far as the last at that stride."""
    ends = [end for end in range(1, len(table) + 1) if output_stride(table[:end]) == stride]
    return table[: max(ends, default=0)]


def table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The lines of a Markdown table: per level and period, of every network the dilation, the mean
    score over images in % with its deviation over seeds, and in brackets that over images. Levels
    are numbered as in the paper's Fig. 5, where the groups of a ResNet and of DRN-A stand under
    levels 3 to 6."""
    networks: dict[str, list[dict[str, Any]]] = {}
    for run in found:
        seeds = networks.setdefault(run["network"], [])
        if seeds and seeds[0]["settings"] != run["settings"]:
            raise UserError(
                f"{run['run']} differs from {seeds[0]['run']} in its network or data set: give "
                "runs of one recipe, which differ in their seed"
            )
        seeds.append(run)
    yield f"| level | period | {' | '.join(f'`{name}`' for name in networks)} |"
    yield "|---|---:|" + "---:|" * len(networks)
    rows = sorted({(level["column"], level["period"]) for run in found for level in run["levels"]})
    for column, period in rows:
        cells = [cell(runs, column, period) for runs in networks.values()]
        yield f"| {column} | {period} | {' | '.join(cells)} |"
    if any(run["top1"] is not None for run in found):
        tops = [[run["top1"] for run in runs] for runs in networks.values()]
        cells = ["" if None in top else spread([100 * value for value in top], 1) for top in tops]
        yield f"| top-1 accuracy (%) | | {' | '.join(cells)} |"


def cell(runs: Sequence[dict[str, Any]], column: int, period: int) -> str:
    """Of one network."""
    levels = [
        level
        for run in runs
        for level in run["levels"]
        if (level["column"], level["period"]) == (column, period)
    ]
    if not levels:
        return ""
    mean = spread([100 * level["mean"] for level in levels], 2)
    deviations = [level["deviation"] for level in levels if level["deviation"] is not None]
    images = f" [{100 * statistics.mean(deviations):.2f}]" if deviations else ""
    return f"d = {levels[0]['dilation']}: {mean}{images}"


def spread(values: Sequence[float], digits: int) -> str:
    """The mean and, of several, the deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
