"""The embedded data set: real handwritten digits on made-up scenes, with label, box and mask.

The digits are the 1,797 8x8 scans that scikit-learn ships (UCI, Alpaydin & Kaynak 1998), so nothing
is downloaded. Each scene is 64x64: coloured texture, clutter that includes torn-off pieces of other
digits, and one digit whose size, tilt, place and colour vary. Validation scenes show digits whose
scans are in no training scene: the last fifth of the set, which other people wrote. Semi-real: the
handwriting is genuine, the scenes are not.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from drn_jax.data.dataset import Dataset, Example
from drn_jax.data.image import decode_mask, decode_rgb

SIZE = 64
TRAIN, VALIDATION = 6000, 1000
DIGITS = tuple("0123456789")
MASKS = ("background", *DIGITS)
MEAN, STD = (0.50, 0.50, 0.50), (0.22, 0.22, 0.22)
SMALLEST, LARGEST = 36, 52
"""Height of the square that holds the scan and one empty pixel around it, pixels."""
STRETCH = 1.2
"""Most that a digit is made wider, and over which it is made narrower."""
TILT = 12
"""Largest rotation of the digit, degrees."""
INK = 0.4
"""A pixel belongs to the digit's mask where the ink covers at least this share of it."""


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
        scans, labels = _scans()
        held_out = len(scans) // 5
        return {
            "train": _scenes("train", TRAIN, scans[:-held_out], labels[:-held_out]),
            "validation": _scenes("validation", VALIDATION, scans[-held_out:], labels[-held_out:]),
        }

    def _generate_examples(self) -> Iterator:
        raise AssertionError("the splits bring their own generators")


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """All scans, float32 [1797, 8, 8] with ink in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    return (scans.reshape(-1, 8, 8) / 16).astype(np.float32), labels


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
                "image": _png(image),
                "mask": _png(mask),
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
    canvas = _texture(rng)
    for _ in range(rng.integers(2, 6)):
        piece = pieces[rng.integers(len(pieces))]
        row, column = rng.integers(0, 6, 2)
        side = int(rng.integers(6, 15))
        ink = _place(rng, piece[row : row + 3, column : column + 3], (side, side), tilt=90)
        canvas = _paint(canvas, ink, rng.uniform(0, 255, 3))
    side = int(rng.integers(SMALLEST, LARGEST + 1))
    width = round(side * STRETCH ** rng.uniform(-1, 1))
    ink = _place(rng, np.pad(scan, 1), (side, min(width, LARGEST)), TILT)
    inside = ink >= INK
    canvas = _paint(canvas, ink, _contrasting(rng, canvas[inside].mean(0)))
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    mask = np.where(inside, label + 1, 0).astype(np.uint8)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8), mask, box


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Coloured noise at four scales over a random ground, float32 [64, 64, 3]."""
    ground = rng.uniform(40, 215, 3)
    canvas = np.broadcast_to(ground, (SIZE, SIZE, 3)).astype(np.float32)
    for cells in (2, 4, 8, 32):
        amplitude = rng.uniform(0, 28 if cells < 32 else 14)
        noise = rng.standard_normal((cells, cells, 3)) * amplitude
        planes = [_resize(noise[..., c], (SIZE, SIZE)) for c in range(3)]
        canvas = canvas + np.stack(planes, -1)
    return canvas


def _place(
    rng: np.random.Generator, patch: np.ndarray, size: tuple[int, int], tilt: float
) -> np.ndarray:
    """The patch enlarged to (height, width), tilted, at a random place: ink float32 [64, 64]."""
    large = Image.fromarray(_resize(patch, size))
    turned = np.asarray(
        large.rotate(rng.uniform(-tilt, tilt), Image.Resampling.BILINEAR, expand=True)
    )
    turned = turned[:SIZE, :SIZE]
    height, width = turned.shape
    top, left = rng.integers(0, SIZE - height + 1), rng.integers(0, SIZE - width + 1)
    ink = np.zeros((SIZE, SIZE), np.float32)
    ink[top : top + height, left : left + width] = turned
    return np.clip(ink, 0, 1)


def _paint(canvas: np.ndarray, ink: np.ndarray, color: np.ndarray) -> np.ndarray:
    return canvas + ink[..., None] * (color.astype(np.float32) - canvas)


def _contrasting(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """A random colour whose mean differs from the ground's by 80 grey levels or more."""
    while True:
        color = rng.uniform(0, 255, 3)
        if abs(color.mean() - ground.mean()) >= 80:
            return color


def _resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(values.astype(np.float32))
    height, width = size
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _png(array: np.ndarray) -> io.BytesIO:
    data = io.BytesIO()
    Image.fromarray(array).save(data, format="png")
    data.seek(0)
    return data


class _Scenes:
    """The prepared scenes as a `dataset.Source` with `image`, `label`, `mask` and `box`."""

    def __init__(self, records: Any) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        record = self._records[index]
        y1, x1, y2, x2 = record["box"]
        return {
            "image": decode_rgb(record["image"], f"digit_scenes, record {index}"),
            "mask": decode_mask(record["mask"], f"digit_scenes, record {index}"),
            "label": np.array(record["label"], np.int32),
            "box": np.array([x1, y1, x2, y2], np.float32) * SIZE,
        }


def load(data_dir: str | None, classes: tuple[str, ...]) -> Dataset:
    """The set, prepared on first use (about 15 s) under `data_dir` (None: TFDS's own default).

    `classes` names the labels (`DIGITS`) or the mask's values (`MASKS`).
    """
    tfds.disable_progress_bar()
    builder: Any = DigitScenes(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    # Bytes come out as they went in: TFDS would decode differently with and without OpenCV.
    raw = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}

    def split(name: str) -> _Scenes:
        return _Scenes(builder.as_data_source(name, decoders=raw))

    return Dataset(
        name="digit_scenes",
        classes=classes,
        train=split("train"),
        validation=split("validation"),
        mean=MEAN,
        std=STD,
    )
