"""The embedded data set: real handwritten digits on made-up scenes, with label, box and mask.

The digits are the 1,797 8x8 scans that scikit-learn ships (UCI, Alpaydin & Kaynak 1998), so nothing
is downloaded. Each scene is 64x64: coloured texture, clutter that includes torn-off pieces of other
digits, and one digit whose size, tilt, place and colour vary. Validation scenes show digits whose
scans are in no training scene: the last fifth of the set, which other people wrote. Semi-real: the
handwriting is genuine, the scenes are not.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from drn_jax.data.dataset import Dataset, Example
from drn_jax.data.image import decode_mask, decode_rgb
from drn_jax.data.sets import drawing

SIZE = 64
TRAIN, VALIDATION = 6000, 1000
DIGITS = tuple("0123456789")
MASKS = ("background", *DIGITS)
MEAN, STD = (0.50, 0.50, 0.50), (0.22, 0.22, 0.22)
SMALLEST, LARGEST = 36, 52
"""Height of the square that holds the scan and one empty pixel around it, pixels."""


class DigitScenes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder: `image` and `mask` as PNG, `label` 0 to 9, `box` relative to the image.

    The mask holds 0 for the background and label + 1 for the digit.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                "mask": tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(DIGITS)),
                "box": tfds.features.BBoxFeature(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, description=__doc__, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # Nothing to download.
        scans = drawing.scans()
        return {
            "train": _scenes("train", TRAIN, *scans["train"]),
            "validation": _scenes("validation", VALIDATION, *scans["validation"]),
        }

    def _generate_examples(self) -> Iterator:
        raise AssertionError("the splits bring their own generators")


def _scenes(
    split: str, count: int, scans: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[int, dict[str, Any]]]:
    """`count` scenes, each drawn from a random stream of its own: (split, index)."""
    for index in range(count):
        rng = np.random.default_rng([len(split), index])
        which = index % len(scans)
        image, mask, box = scene(rng, scans[which], int(labels[which]), scans)
        x1, y1, x2, y2 = (float(edge) / SIZE for edge in box)
        yield (
            index,
            {
                "image": drawing.png(image),
                "mask": drawing.png(mask),
                "label": int(labels[which]),
                "box": tfds.features.BBox(ymin=y1, xmin=x1, ymax=y2, xmax=x2),
            },
        )


def scene(
    rng: np.random.Generator, scan: np.ndarray, label: int, pieces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """One scene around the digit `scan` [8, 8], with clutter torn from `pieces` [n, 8, 8].

    Returns: image uint8 [64, 64, 3], mask uint8 [64, 64], box (x1, y1, x2, y2) in pixel edges.
    """
    canvas = drawing.texture(rng, SIZE)
    for _ in range(rng.integers(2, 6)):
        piece = pieces[rng.integers(len(pieces))]
        row, column = rng.integers(0, 6, 2)
        side = int(rng.integers(6, 15))
        piece = piece[row : row + 3, column : column + 3]
        ink = drawing.place(rng, piece, (side, side), tilt=90, size=SIZE)
        canvas = drawing.paint(canvas, ink, rng.uniform(0, 255, 3))
    side = int(rng.integers(SMALLEST, LARGEST + 1))
    width = round(side * drawing.STRETCH ** rng.uniform(-1, 1))
    shape = (side, min(width, LARGEST))
    ink = drawing.place(rng, np.pad(scan, 1), shape, drawing.TILT, SIZE)
    inside = ink >= drawing.INK
    canvas = drawing.paint(canvas, ink, drawing.contrasting(rng, canvas[inside].mean(0)))
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    mask = np.where(inside, label + 1, 0).astype(np.uint8)
    return drawing.finish(canvas), mask, box


def _example(record: Any, where: str) -> Example:
    """A record as an example with `image`, `mask`, `label` and `boxes`."""
    y1, x1, y2, x2 = record["box"]
    return {
        "image": decode_rgb(record["image"], where),
        "mask": decode_mask(record["mask"], where),
        "label": np.array(record["label"], np.int32),
        "boxes": np.array([[x1, y1, x2, y2]], np.float32) * SIZE,
    }


def load(data_dir: str | None, classes: tuple[str, ...]) -> Dataset:
    """The set, prepared on first use (about 15 s) under `data_dir` (None: TFDS's own default).

    `classes` names the labels (`DIGITS`) or the mask's values (`MASKS`).
    """
    train, validation = drawing.prepared(DigitScenes, data_dir, _example)
    return Dataset("digit_scenes", classes, train, validation, MEAN, STD)
