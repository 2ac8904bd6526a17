"""The embedded data set of context: wide ribbons, and a handwritten digit that says what each is.

Scenes are 256x256: two or three curved ribbons on a textured ground, one digit somewhere along
each, often near an end. The class of a whole ribbon is its digit, and nothing else about it depends
on the class: that a pixel is ribbon can be told on the spot, which ribbon it is only from afar.
Close-ups of digits on ribbons, 72x72 with a label each, are there to train a classifier first.
Semi-real, as `digit_scenes`: validation scenes show digits whose scans are in no training scene.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from drn_jax.data.dataset import Dataset, Example
from drn_jax.data.image import decode_mask, decode_rgb
from drn_jax.data.sets import drawing

SIZE = 256
TRAIN, VALIDATION = 480, 120
CLOSE_UP = 72
"""Side of a close-up, pixels."""
TRAIN_CLOSE_UPS, VALIDATION_CLOSE_UPS = 4000, 500
OFF_CENTRE = 8
"""How far a close-up's digit lies from its middle, at most, pixels along each axis."""
LIGHT, DARK = (130, 225), (0, 60)
"""Range of the colour channels of ribbons, and of digits: ink is always the darker."""
DIGITS = 5
"""How many digits there are, from 0 on. More classes would be harder to read, not farther off."""
CLASSES = ("background", *(str(digit) for digit in range(DIGITS)))
MEAN, STD = (0.51, 0.51, 0.49), (0.22, 0.22, 0.22)
"""What images are normalised by. The scenes' own mean is 0.06 higher, a quarter of a deviation."""
STREAM = 256
"""Begins the key of every scene's random stream; `digit_scenes` has keys without it."""
THINNEST, WIDEST = 50, 60
"""Width of a ribbon, pixels."""
SHORTEST, LONGEST = 180, 280
"""Length of a ribbon along its middle line, round ends included, pixels."""
TIGHTEST = 65
"""Smallest radius to which a middle line bends, pixels: no ribbon of `LONGEST` meets itself."""
POINTS = 40
"""Points of a middle line, at most 6 pixels apart: its ribbon's rim is smooth to 0.2 pixels."""
GAP = 6
"""Least ground between two ribbons, pixels."""
TRIES = 20
"""So many layouts of three ribbons are tried before a scene gets two."""
EDGE = 4
"""Ribbon that is kept free of ink around a digit, pixels; the image may cut this much off."""
SMALLEST, LARGEST = 48, 57
"""Height of the square that holds a scan and one empty pixel around it, pixels: what is drawn,
before it is made smaller where the ink would not fit the ribbon."""
NEAR_AN_END = 0.5
"""Share of the digits that are put on the first or last tenth of the middle line."""
OUTLINE = 2
"""Width of a ribbon's outline, pixels."""


class Scene(NamedTuple):
    """An image and what is to be seen on it."""

    image: np.ndarray
    """uint8 [256, 256, 3]."""
    mask: np.ndarray
    """uint8 [256, 256]: label + 1 on a ribbon, its digit included, 0 on the ground."""
    digits: np.ndarray
    """uint8 [256, 256]: label + 1 on a digit, 0 elsewhere."""


class RibbonCloseUps(tfds.core.GeneratorBasedBuilder):
    """TFDS builder: `image` as PNG and `label`, 0 to 5."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(CLOSE_UP, CLOSE_UP, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(CLASSES)),
            }
        )
        return tfds.core.DatasetInfo(builder=self, description=__doc__, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # Nothing to download.
        return {
            "train": _close_ups("train", TRAIN_CLOSE_UPS),
            "validation": _close_ups("validation", VALIDATION_CLOSE_UPS),
        }

    def _generate_examples(self) -> Iterator:
        raise AssertionError("the splits bring their own generators")


class RibbonScenes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder: `image` and `mask` as PNG."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                "mask": tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png"),
            }
        )
        return tfds.core.DatasetInfo(builder=self, description=__doc__, features=features)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # Nothing to download.
        return {"train": _scenes("train", TRAIN), "validation": _scenes("validation", VALIDATION)}

    def _generate_examples(self) -> Iterator:
        raise AssertionError("the splits bring their own generators")


def _scenes(split: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    scans = scans_by_digit(split)
    for index in range(count):
        made = scene(split, index, scans)
        # zlib's default saves an eighth of the bytes, and the preparation takes a fifth longer.
        image, mask = drawing.png(made.image, level=1), drawing.png(made.mask, level=1)
        yield index, {"image": image, "mask": mask}


def _close_ups(split: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    scans = scans_by_digit(split)
    for index in range(count):
        image, label = close_up(split, index, scans)
        yield index, {"image": drawing.png(image, level=1), "label": label}


def scans_by_digit(split: str) -> list[np.ndarray]:
    """A split's scans of each digit, float32 [n, 8, 8] with ink in [0, 1]."""
    scans, labels = drawing.scans()[split]
    return [scans[labels == digit] for digit in range(DIGITS)]


def scene(split: str, index: int, scans: list[np.ndarray]) -> Scene:
    """The scene `index` of a split, drawn with its `scans_by_digit`."""
    rng = np.random.default_rng([STREAM, len(split), index])
    canvas = drawing.texture(rng, SIZE, least=0.4)
    mask, digits = np.zeros((2, SIZE, SIZE), np.uint8)
    paths, radii = _layout(rng)
    # Nothing of a ribbon is drawn with its label, or its digit's size, in view: it gives none away.
    labels = rng.permutation(DIGITS)[: len(paths)]
    for path, radius, label in zip(paths, radii, labels, strict=True):
        away = _distance(path, SIZE)
        canvas = _ribbon(rng, canvas, radius - away)
        mask[away <= radius] = label + 1
        ink = _digit(rng, scans[label], radius - EDGE, path[_spot(rng, len(path))], SIZE)
        canvas = drawing.paint(canvas, ink, rng.uniform(*DARK, 3))
        digits[ink >= drawing.INK] = label + 1
    return Scene(drawing.finish(canvas), mask, digits)


def close_up(split: str, index: int, scans: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """Close-up `index` of a split: image uint8 [72, 72, 3] and class, 0 to 5.

    A straight piece of ribbon, often with an end in view, and its digit near the middle; or, as
    often as any digit, nothing but ground.
    """
    rng = np.random.default_rng([STREAM + 1, len(split), index])
    canvas = drawing.texture(rng, CLOSE_UP, least=0.4)
    label = int(rng.integers(len(CLASSES)))
    if label == 0:
        return drawing.finish(canvas), label
    radius = rng.uniform(THINNEST, WIDEST) / 2
    spot = CLOSE_UP / 2 + rng.uniform(-OFF_CENTRE, OFF_CENTRE, 2)
    heading = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-rng.uniform(0, CLOSE_UP), rng.uniform(0, CLOSE_UP), POINTS)
    path = spot + along[:, None] * [np.sin(heading), np.cos(heading)]
    canvas = _ribbon(rng, canvas, radius - _distance(path, CLOSE_UP))
    ink = _digit(rng, scans[label - 1], radius - EDGE, spot, CLOSE_UP)
    return drawing.finish(drawing.paint(canvas, ink, rng.uniform(*DARK, 3))), label


def _layout(rng: np.random.Generator) -> tuple[list[np.ndarray], list[float]]:
    """Middle lines [points, 2] as (row, column) and radii of ribbons that keep their distance."""
    wanted = int(rng.integers(2, 4))
    tries = 0
    while True:
        paths: list[np.ndarray] = []
        radii: list[float] = []
        for _ in range(wanted if tries < TRIES else 2):
            radius = rng.uniform(THINNEST, WIDEST) / 2
            fitting = _paths(rng, radius, 128)
            for path, other in zip(paths, radii, strict=True):
                # Every third point, both ends among them, misses less than the pixel of slack.
                apart = np.linalg.norm(fitting[:, ::3, None] - path[::3], axis=-1).min((1, 2))
                fitting = fitting[apart >= radius + other + GAP + 1]
            if not len(fitting):
                break
            paths.append(fitting[0])
            radii.append(radius)
        else:
            return paths, radii
        tries += 1


def _paths(rng: np.random.Generator, radius: float, count: int) -> np.ndarray:
    """`count` random middle lines, less those that fit nowhere: float [n, POINTS, 2].

    A line's curvature changes evenly from one random value to another, so there are arcs and S's.
    """
    points = np.linspace(0, 1, POINTS)
    length = rng.uniform(SHORTEST, LONGEST, (count, 1)) - 2 * radius
    first, last = rng.uniform(-1, 1, (2, count, 1)) / TIGHTEST
    turn = length * (first * points + (last - first) * points**2 / 2)
    heading = rng.uniform(0, 2 * np.pi, (count, 1)) + turn
    steps = np.stack([np.sin(heading), np.cos(heading)], -1) * length[..., None] / (POINTS - 1)
    paths = steps.cumsum(1)
    paths -= paths.min(1, keepdims=True)
    room = SIZE - 2 * (radius - EDGE) - paths.max(1)
    paths += radius - EDGE + rng.uniform(0, 1, room.shape)[:, None] * room[:, None]
    return paths[(room >= 0).all(1)]


def _distance(path: np.ndarray, size: int) -> np.ndarray:
    """Of every pixel from a line, in pixels: float32 [size, size]."""
    middles = np.arange(size, dtype=np.float32) + 0.5
    down, along = (middles - path.astype(np.float32).T[..., None]) ** 2
    return np.sqrt((down[:, :, None] + along[:, None]).min(0))


def _ribbon(rng: np.random.Generator, canvas: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The canvas with a ribbon where `depth` (pixels from the rim) is positive."""
    color = rng.uniform(*LIGHT, 3)
    outline = color + rng.choice([-1, 1]) * rng.uniform(50, 70)
    weave = drawing.noise(rng, len(canvas), len(canvas) // 2, amplitude=rng.uniform(3, 6))
    canvas = drawing.paint(canvas, np.clip(depth + 0.5, 0, 1), outline)
    return drawing.paint(canvas, np.clip(depth - OUTLINE + 0.5, 0, 1), color + weave)


def _spot(rng: np.random.Generator, points: int) -> int:
    """The point of a middle line on which the digit is put."""
    share = rng.uniform(0, 1)
    if rng.uniform() < NEAR_AN_END:
        share = share / 10 if rng.uniform() < 0.5 else 1 - share / 10
    return round(share * (points - 1))


def _digit(
    rng: np.random.Generator, scans: np.ndarray, radius: float, center: np.ndarray, size: int
) -> np.ndarray:
    """One of the scans within a circle: ink float32 [size, size]."""
    patch = np.pad(scans[rng.integers(len(scans))], 1)
    side = int(rng.integers(SMALLEST, LARGEST + 1))
    stretch = drawing.STRETCH ** rng.uniform(-1, 1)
    angle = rng.uniform(-drawing.TILT, drawing.TILT)
    while True:
        ink = drawing.enlarge(patch, (side, round(side * stretch)), angle)
        place = np.argwhere(ink >= drawing.INK)
        middle = (place.min(0) + place.max(0)) / 2
        # Half a pixel for its rounding to a whole one below, and half for the pixel's own extent.
        if np.linalg.norm(place - middle, axis=1).max() + 1 <= radius:
            break
        side -= 1
    top, left = np.rint(center - 0.5 - middle).astype(int)
    whole = np.zeros((size, size), np.float32)
    # Faint ink around the digit may reach beyond the image.
    up, back = max(0, -top), max(0, -left)
    seen = ink[up : size - top, back : size - left]
    whole[top + up : top + up + seen.shape[0], left + back : left + back + seen.shape[1]] = seen
    return whole


def _example(record: Any, where: str) -> Example:
    """A record as an example with `image` and `mask`."""
    return {
        "image": decode_rgb(record["image"], where),
        "mask": decode_mask(record["mask"], where),
    }


def _labelled(record: Any, where: str) -> Example:
    """A close-up as an example with `image` and `label`."""
    label = np.array(record["label"], np.int32)
    return {"image": decode_rgb(record["image"], where), "label": label}


def load_close_ups(data_dir: str | None) -> Dataset:
    """The close-ups, prepared on first use (about 20 s), as `load`."""
    train, validation = drawing.prepared(RibbonCloseUps, data_dir, _labelled)
    return Dataset("ribbon_close_ups", CLASSES, train, validation, MEAN, STD)


def load(data_dir: str | None) -> Dataset:
    """The scenes, prepared on first use (about 30 s) under `data_dir` (None: TFDS's own place)."""
    train, validation = drawing.prepared(RibbonScenes, data_dir, _example)
    return Dataset("ribbon_scenes", CLASSES, train, validation, MEAN, STD)
