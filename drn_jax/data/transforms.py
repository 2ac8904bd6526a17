"""Augmentation: pure functions of an example and an explicit random generator.

Every transform is a frozen dataclass called as `transform(example, rng)`, so that it can be pickled
to worker processes and gives the same example for the same generator. What an example holds of
`image`, `mask` and `box` is treated alike, the rest passes through; the input is never written to.
Coordinates are pixel edges (dataset.py). Boxes are clipped to what remains of the image: a box that
a crop loses altogether becomes degenerate (no area, on the border) and stays.

Classification follows torchvision, as fyu/drn's `classify.py` does; segmentation follows fyu/drn's
`data_transforms.py`, whose order is rotate, scale, crop, flip.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from drn_jax.data.dataset import IGNORED, Example

Resampling = Image.Resampling


class Transform(Protocol):
    """What `Compose` chains."""

    def __call__(self, example: Example, rng: np.random.Generator, /) -> Example: ...


@dataclass(frozen=True)
class Compose:
    """The transforms, one after the other, drawing from one generator."""

    transforms: tuple[Transform, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for transform in self.transforms:
            example = transform(example, rng)
        return example


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right with probability one half (torchvision and fyu/drn alike)."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return flip(example) if rng.random() < 0.5 else example


# Classification


@dataclass(frozen=True)
class RandomResizedCrop:
    """Scale and aspect-ratio augmentation (Szegedy et al. 2015) by torchvision's present rule.

    `scale` bounds the crop's share of the area, `ratio` its width / height. The crop is cut out
    first and then resized to [size, size] (bilinear, antialiased; masks by nearest neighbour), so
    that nothing outside of it bleeds in.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        window = resized_crop_window(*size_of(example), self.scale, self.ratio, rng)
        return _resize(_crop(example, *window), self.size, self.size, Resampling.BILINEAR)


def resized_crop_window(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the crop that torchvision's `RandomResizedCrop` would draw.

    Area uniform in `scale`, ratio log-uniform in `ratio`, ten tries to fit; failing all, the
    largest central crop whose ratio is in bounds. (The torchvision of 2017, which fyu/drn ran, drew
    the ratio uniformly and exchanged the sides by a coin: nearly the same distribution.)
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return int(top), int(left), h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class ResizeShorterSide:
    """Resize so that the shorter side is `size`, bilinear; the longer one rounds down.

    With `CentreCrop` the evaluation protocol: 256, then 224. Rounding is torchvision's `Resize`.
    """

    size: int

    def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
        height, width = size_of(example)
        longer = int(self.size * max(height, width) / min(height, width))
        height, width = (self.size, longer) if height <= width else (longer, self.size)
        return _resize(example, height, width, Resampling.BILINEAR)


@dataclass(frozen=True)
class CentreCrop:
    """The central [size, size], placed as torchvision's `CenterCrop` rounds it.

    Where the image is smaller it is padded: image by 0, as torchvision does, mask by 255.
    """

    size: int

    def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
        height, width = size_of(example)
        tall, wide = max(0, self.size - height), max(0, self.size - width)
        example = _pad_constant(example, tall // 2, tall - tall // 2, wide // 2, wide - wide // 2)
        height, width = height + tall, width + wide
        # Half to even, on purpose: an odd remainder of 5 starts at 2, one of 7 at 4.
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return _crop(example, top, left, self.size, self.size)


# Segmentation


@dataclass(frozen=True)
class RandomRotate:
    """Turn by a whole number of degrees, uniform in [-angle, angle], about the centre.

    The size stays. Image bilinear, with `reflection` around it; mask by nearest neighbour, with 255
    around it; of a box the upright hull of its turned corners.

    fyu/drn first pads both to three times their size. Here the image is padded by what the angle
    needs, which gives the same image to float rounding, and the mask not at all. Masks differ from
    fyu/drn's only where the nearest pixel is a toss-up: PIL computes its place in fixed point, and
    the larger the picture, the coarser.
    """

    angle: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return rotate(example, int(rng.integers(-self.angle, self.angle + 1)))


@dataclass(frozen=True)
class RandomScale:
    """Resize by a ratio uniform in [1 / scale, scale] (uniform as such, not its logarithm).

    As fyu/drn: image by LANCZOS below ratio 1 and BICUBIC above, mask by nearest neighbour, sides
    round down.
    """

    scale: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        ratio = rng.uniform(1 / self.scale, self.scale)
        if ratio == 1:
            return example
        height, width = (max(1, int(ratio * side)) for side in size_of(example))
        kernel = Resampling.LANCZOS if ratio < 1 else Resampling.BICUBIC
        return _resize(example, height, width, kernel)


@dataclass(frozen=True)
class RandomCrop:
    """A window of `size` = (height, width), uniform over all its places.

    Where the example is smaller it is first padded to `size`, evenly, the odd pixel at bottom and
    right: image by `reflection`, mask by 255 (fyu/drn, whose order is (width, height)).
    """

    size: tuple[int, int]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        tall, wide = (max(0, a - b) for a, b in zip(self.size, size_of(example), strict=True))
        if tall or wide:
            sides = tall // 2, tall - tall // 2, wide // 2, wide - wide // 2
            padded = _pad_constant(example, *sides)
            if "image" in example:
                padded["image"] = pad_reflection(example["image"], *sides)
            example = padded
        height, width = size_of(example)
        top = int(rng.integers(height - self.size[0] + 1))
        left = int(rng.integers(width - self.size[1] + 1))
        return _crop(example, top, left, *self.size)


# The deterministic halves


def flip(example: Example) -> Example:
    """The example mirrored left and right."""
    out = dict(example)
    for key in _pixels(example):
        out[key] = np.ascontiguousarray(example[key][:, ::-1])
    if "box" in example:
        width = size_of(example)[1]
        x1, y1, x2, y2 = example["box"]
        out["box"] = np.array([width - x2, y1, width - x1, y2], np.float32)
    return out


def rotate(example: Example, degrees: int) -> Example:
    """The example turned counter-clockwise about its centre: see `RandomRotate`."""
    if degrees == 0:
        return example
    height, width = size_of(example)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    out = dict(example)
    if "image" in example:
        # How far the window's turned corners reach past it, and one pixel for the interpolation.
        y = max(0, math.ceil((height * abs(cos) + width * abs(sin) - height) / 2)) + 1
        x = max(0, math.ceil((width * abs(cos) + height * abs(sin) - width) / 2)) + 1
        padded = Image.fromarray(pad_reflection(example["image"], y, y, x, x))
        turned = padded.rotate(degrees, Resampling.BILINEAR)
        out["image"] = np.array(turned.crop((x, y, x + width, y + height)))
    if "mask" in example:
        mask = Image.fromarray(example["mask"])
        out["mask"] = np.array(mask.rotate(degrees, Resampling.NEAREST, fillcolor=IGNORED))
    if "box" in example:
        x1, y1, x2, y2 = example["box"]
        x = np.array([x1, x2, x2, x1]) - width / 2
        y = np.array([y1, y1, y2, y2]) - height / 2
        x, y = x * cos + y * sin + width / 2, y * cos - x * sin + height / 2
        out["box"] = clip(np.array([x.min(), y.min(), x.max(), y.max()]), height, width)
    return out


def pad_reflection(image: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """fyu/drn's `reflection`, asymmetric: see `reflected` for one axis.

    Args:
      image: uint8 [H, W, 3].

    Returns:
      uint8 [top + H + bottom, left + W + right, 3].
    """
    rows = reflected(image.shape[0], top, bottom)
    columns = reflected(image.shape[1], left, right)
    return image.take(rows, axis=0).take(columns, axis=1)


def reflected(length: int, before: int, after: int) -> np.ndarray:
    """Which pixel each place of a padded axis shows, int [before + length + after].

    Before the axis the edge pixel is not repeated, after it it is: padding 0 1 2 by two on either
    side gives 2 1 0 1 2 2 1. A pad wider than the axis reflects the padded axis again, as often as
    it takes.
    """
    index = np.arange(length)
    if length == 1:
        return np.zeros(before + 1 + after, index.dtype)
    while before or after:
        head, tail = min(before, len(index) - 1), min(after, len(index) - 1)
        index = np.concatenate([index[head:0:-1], index, index[::-1][:tail]])
        before, after = before - head, after - tail
    return index


def _pixels(example: Example) -> list[str]:
    """The keys of what lies on the pixel grid."""
    return [key for key in ("image", "mask") if key in example]


def size_of(example: Example) -> tuple[int, int]:
    """(height, width) of the image or the mask."""
    height, width = example[_pixels(example)[0]].shape[:2]
    return height, width


def clip(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """What of a box lies within an image of that size; float32."""
    return np.clip(box, 0, [width, height, width, height]).astype(np.float32)


def _crop(example: Example, top: int, left: int, height: int, width: int) -> Example:
    """The window, which lies within the example; copied, so that the rest can be freed."""
    out = dict(example)
    for key in _pixels(example):
        out[key] = example[key][top : top + height, left : left + width].copy()
    if "box" in example:
        out["box"] = clip(example["box"] - [left, top, left, top], height, width)
    return out


def _resize(example: Example, height: int, width: int, kernel: Resampling) -> Example:
    """Image by `kernel`, antialiased (PIL widens the kernel when it shrinks); mask by nearest."""
    out = dict(example)
    for key in _pixels(example):
        way = kernel if key == "image" else Resampling.NEAREST
        out[key] = np.array(Image.fromarray(example[key]).resize((width, height), way))
    if "box" in example:
        old_height, old_width = size_of(example)
        x, y = width / old_width, height / old_height
        out["box"] = (example["box"] * [x, y, x, y]).astype(np.float32)
    return out


def _pad_constant(example: Example, top: int, bottom: int, left: int, right: int) -> Example:
    """Image padded by 0, mask by 255."""
    out = dict(example)
    for key in _pixels(example):
        array = example[key]
        margins = [(top, bottom), (left, right)] + [(0, 0)] * (array.ndim - 2)
        out[key] = np.pad(array, margins, constant_values=0 if key == "image" else IGNORED)
    if "box" in example:
        out["box"] = (example["box"] + [left, top, left, top]).astype(np.float32)
    return out
