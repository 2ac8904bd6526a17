"""Draws the pictures of README.md from finished runs.

python train.py && python train.py --config=quickstart:segmentation
python train.py --config=quickstart_context
python docs/draw_pictures.py
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drn_jax import config, experiment, program
from drn_jax.report import pictures
from drn_jax.training import sharding
from drn_jax.training.checkpoint import Checkpoints

HERE = Path(__file__).parent
DIGITS = (0, 91, 182, 272, 363, 454)
RIBBONS = (0, 11, 22, 32)
"""Scenes shown: the first of those in each report.html."""
SIDE = 128


def predictions(
    workdir: str, scenes: Sequence[int]
) -> tuple[experiment.Experiment, list[dict[str, np.ndarray]]]:
    """The run in `workdir`, and what its best checkpoint makes of the scenes."""
    mesh = sharding.make_mesh()
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        step = checkpoints.choose("best").step
        run = experiment.build(config.parse(checkpoints.meta(step)["config"]))
        variables = checkpoints.restore_variables(step, program.abstract_variables(run, mesh))
    predict = program.predictor(run, variables, mesh)
    key = run.keys[0]
    found = [
        predict({key: run.dataset.validation[i][key][None]}, run.pictures[i]["image"].shape[:2])
        for i in scenes
    ]
    return run, [{k: np.asarray(v)[0] for k, v in answer.items()} for answer in found]


def digits() -> None:
    """quickstart.png: scenes, class maps of the classifier, segmentations, truth."""
    run, classified = predictions("runs/quickstart", DIGITS)
    segmenter, segmented = predictions("runs/quickstart_segmentation", DIGITS)
    colors = pictures.palette(len(segmenter.dataset.classes), None)
    tiles = []
    for index, answer, masks in zip(DIGITS, classified, segmented, strict=True):
        example = run.dataset.validation[index]
        image = pictures.enlarge(example["image"], SIDE)
        best = answer["probability"].argmax()
        tiles.append(
            [
                image,
                pictures.class_map(image, answer["class_map"][..., best], stride=16),
                pictures.enlarge(pictures.paint(masks["mask"].astype(np.uint8), colors), SIDE),
                pictures.enlarge(pictures.paint(example["mask"], colors), SIDE),
            ]
        )
    save("quickstart.png", tiles, ["scene", "class map", "segmented", "truth"])


def ribbons() -> None:
    """context.png: scenes, the front end's masks, those with context, truth."""
    run, refined = predictions("runs/quickstart_context_vgg/context", RIBBONS)
    colors = pictures.palette(len(run.dataset.classes), None)
    tiles = [
        [
            run.pictures[index]["image"],
            pictures.paint(answer["front_end_mask"].astype(np.uint8), colors),
            pictures.paint(answer["mask"].astype(np.uint8), colors),
            pictures.paint(run.dataset.validation[index]["mask"], colors),
        ]
        for index, answer in zip(RIBBONS, refined, strict=True)
    ]
    save("context.png", tiles, ["scene", "front end", "with context", "truth"])


def save(name: str, tiles: list[list[np.ndarray]], titles: list[str]) -> None:
    """Write the tiles as a sheet of two groups side by side."""
    half = len(tiles) // 2
    rows = [left + right for left, right in zip(tiles[:half], tiles[half:], strict=True)]
    (HERE / name).write_bytes(pictures.png(pictures.sheet(rows, titles * 2)))


if __name__ == "__main__":
    digits()
    ribbons()
