"""Draw docs/quickstart.png from the two quickstart runs.

python train.py && python train.py --config=quickstart:segmentation
python docs/quickstart_picture.py
"""

from pathlib import Path

import numpy as np

from drn_jax import config, experiment, program
from drn_jax.report import pictures
from drn_jax.training import sharding
from drn_jax.training.checkpoint import Checkpoints

SCENES = (0, 91, 182, 272, 363, 454)  # The first of those in report.html.
SIDE = 128


def predictions(workdir: str) -> tuple[experiment.Experiment, list[dict[str, np.ndarray]]]:
    """The run in `workdir`, and what its best checkpoint makes of the scenes."""
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        step = checkpoints.choose("best").step
        run = experiment.build(config.parse(checkpoints.meta(step)["config"]))
        variables = checkpoints.restore_variables(
            step, program.abstract_variables(run), sharding.replicated(sharding.make_mesh())
        )
    predict = program.predictor(run, variables)
    batches = [{"image": run.dataset.validation[i]["image"][None]} for i in SCENES]
    found = [predict(batch, batch["image"].shape[1:3]) for batch in batches]
    return run, [{k: np.asarray(v)[0] for k, v in answer.items()} for answer in found]


def main() -> None:
    run, classified = predictions("runs/quickstart")
    segmenter, segmented = predictions("runs/quickstart_segmentation")
    colors = pictures.palette(len(segmenter.dataset.classes), None)
    tiles = []
    for index, answer, masks in zip(SCENES, classified, segmented, strict=True):
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
    half = len(tiles) // 2
    rows = [left + right for left, right in zip(tiles[:half], tiles[half:], strict=True)]
    sheet = pictures.sheet(rows, ["scene", "class map", "segmented", "truth"] * 2)
    (Path(__file__).parent / "quickstart.png").write_bytes(pictures.png(sheet))


if __name__ == "__main__":
    main()
