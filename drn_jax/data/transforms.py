"""Augmentation: pure functions of an example and an explicit random generator.

Every transform is a frozen dataclass called as `transform(example, rng)`, so that it can be pickled
to worker processes and gives the same example for the same generator. What an example holds of
`image`, `mask` and `boxes` is treated alike, the rest passes through; the input is never written
to. Coordinates are pixel edges (dataset.py). Boxes are clipped to what remains of the image: a box
that a crop loses altogether becomes degenerate (no area, on the border) and stays.

Classification follows torchvision, as fyu/drn's `classify.py` does; segmentation follows fyu/drn's
`data_transforms.py`, whose order is rotate, scale, crop, flip.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from drn_jax.data.dataset import IGNORED, Example
from drn_jax.data.rotation import pad_reflection, turned_boxes, turned_image, turned_mask

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
        return _resize(crop(example, *window), self.size, self.size, Resampling.BILINEAR)


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
        return crop(example, top, left, self.size, self.size)


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
        return rotate(example, self.draw(rng))

    def draw(self, rng: np.random.Generator) -> int:
        """The degrees, counter-clockwise."""
        return int(rng.integers(-self.angle, self.angle + 1))


@dataclass(frozen=True)
class RandomScale:
    """Resize by a ratio uniform in [1 / scale, scale] (uniform as such, not its logarithm).

    As fyu/drn: image by LANCZOS below ratio 1 and BICUBIC above, mask by nearest neighbour, sides
    round down. PIL's pass along rows comes first, as it did in every PIL of fyu/drn's time.
    """

    scale: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        height, width, kernel = self.draw(*size_of(example), rng)
        return _resize(example, height, width, kernel, rows_first=True)

    def draw(
        self, height: int, width: int, rng: np.random.Generator
    ) -> tuple[int, int, Resampling]:
        """The new height and width, and the kernel for the image."""
        ratio = rng.uniform(1 / self.scale, self.scale)
        kernel = Resampling.LANCZOS if ratio < 1 else Resampling.BICUBIC
        return max(1, int(ratio * height)), max(1, int(ratio * width)), kernel


@dataclass(frozen=True)
class RandomCrop:
    """A window of `size` = (height, width), uniform over all its places.

    Where the example is smaller it is first padded to `size`, evenly, the odd pixel at bottom and
    right: image by `reflection`, mask by 255 (fyu/drn, whose order is (width, height)).
    """

    size: tuple[int, int]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        top, left = self.draw(*size_of(example), rng)
        return crop(self.pad(example), top, left, *self.size)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        """The window's top and left, within the padded example."""
        top = int(rng.integers(max(0, height - self.size[0]) + 1))
        left = int(rng.integers(max(0, width - self.size[1]) + 1))
        return top, left

    def margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """What an example of that size lacks at the top, bottom, left and right."""
        tall, wide = max(0, self.size[0] - height), max(0, self.size[1] - width)
        return tall // 2, tall - tall // 2, wide // 2, wide - wide // 2

    def pad(self, example: Example) -> Example:
        """The example, at least as large as `size`."""
        margins = self.margins(*size_of(example))
        if not any(margins):
            return example
        padded = _pad_constant(example, *margins)
        if "image" in example:
            padded["image"] = pad_reflection(example["image"], *margins)
        return padded


# The deterministic halves


def flip(example: Example) -> Example:
    """The example mirrored left and right."""
    out = dict(example)
    for key in _pixels(example):
        out[key] = flipped(example[key])
    if "boxes" in example:
        width = size_of(example)[1]
        x1, y1, x2, y2 = example["boxes"].T
        out["boxes"] = np.stack([width - x2, y1, width - x1, y2], axis=1).astype(np.float32)
    return out


def flipped(array: np.ndarray) -> np.ndarray:
    """An image [H, W, C] or a mask [H, W] mirrored left and right."""
    if array.ndim == 2:
        return np.ascontiguousarray(array[:, ::-1])
    out = np.empty_like(array)
    for channel in range(array.shape[2]):  # At once, NumPy takes five times as long.
        out[..., channel] = array[:, ::-1, channel]
    return out


def rotate(example: Example, degrees: int) -> Example:
    """The example turned counter-clockwise about its centre: see `RandomRotate`."""
    if degrees == 0:
        return example
    height, width = size_of(example)
    out = dict(example)
    if "image" in example:
        out["image"] = turned_image(example["image"], degrees, (0, height), (0, width))
    if "mask" in example:
        out["mask"] = turned_mask(example["mask"], degrees, (0, height), (0, width))
    if "boxes" in example:
        out["boxes"] = clip(turned_boxes(example["boxes"], degrees, height, width), height, width)
    return out


def _pixels(example: Example) -> list[str]:
    """The keys of what lies on the pixel grid."""
    return [key for key in ("image", "mask") if key in example]


def size_of(example: Example) -> tuple[int, int]:
    """(height, width) of the image or the mask."""
    height, width = example[_pixels(example)[0]].shape[:2]
    return height, width


def clip(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """What of each box, [n, 4], lies within an image of that size; float32."""
    return np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)


def cropped_boxes(boxes: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """What of each box the window shows, in the window's coordinates."""
    return clip(boxes - [left, top, left, top], height, width)


def resized_boxes(boxes: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """The boxes of an image resized from (height, width) `old` to `new`."""
    y, x = new[0] / old[0], new[1] / old[1]
    return (boxes * [x, y, x, y]).astype(np.float32)


def padded_boxes(boxes: np.ndarray, top: int, left: int) -> np.ndarray:
    """The boxes of an image with margins above and before it."""
    return (boxes + np.array([left, top, left, top])).astype(np.float32)


def crop(example: Example, top: int, left: int, height: int, width: int) -> Example:
    """The window, which lies within the example; copied, so that the rest can be freed."""
    out = dict(example)
    for key in _pixels(example):
        out[key] = example[key][top : top + height, left : left + width].copy()
    if "boxes" in example:
        out["boxes"] = cropped_boxes(example["boxes"], top, left, height, width)
    return out


def _resize(
    example: Example, height: int, width: int, kernel: Resampling, rows_first: bool = False
) -> Example:
    """Image by `kernel`, antialiased (PIL widens the kernel when it shrinks); mask by nearest.

    PIL rounds to uint8 between its pass along rows and that along columns. Rows used to come first
    always; Pillow 13.0 takes columns first for some images, mostly tall ones made smaller.
    """
    out = dict(example)
    if "image" in example:
        picture = Image.fromarray(example["image"])
        if rows_first:
            picture = picture.resize((width, picture.height), kernel)
        out["image"] = np.array(picture.resize((width, height), kernel))
    if "mask" in example:
        mask = Image.fromarray(example["mask"])
        out["mask"] = np.array(mask.resize((width, height), Resampling.NEAREST))
    if "boxes" in example:
        out["boxes"] = resized_boxes(example["boxes"], size_of(example), (height, width))
    return out


def _pad_constant(example: Example, top: int, bottom: int, left: int, right: int) -> Example:
    """Image padded by 0, mask by 255."""
    out = dict(example)
    for key in _pixels(example):
        array = example[key]
        margins = [(top, bottom), (left, right)] + [(0, 0)] * (array.ndim - 2)
        out[key] = np.pad(array, margins, constant_values=0 if key == "image" else IGNORED)
    if "boxes" in example:
        out["boxes"] = padded_boxes(example["boxes"], top, left)
    return out
