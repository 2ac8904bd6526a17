"""Crops for the nets of Yu & Koltun (2016): images with their surroundings, for a network without
padding; and front-end maps with their masks, for a context module."""

from dataclasses import dataclass

import numpy as np

from drn_jax.data.dataset import IGNORED, Example
from drn_jax.data.transforms import cropped_boxes, size_of


@dataclass(frozen=True)
class SurroundedCrop:
    """As `transforms.RandomCrop`, but the image brings `margin` pixels of its surroundings on every
    side, for a network without padding (crops sampled from the reflection-padded image).

    Beyond the image lies its mirror image, without repeating the edge. A `size` larger than the
    example takes it whole; beyond it the mask is 255.
    """

    size: tuple[int, int]
    margin: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        top, left = (
            int(rng.integers(max(0, there - wanted) + 1))
            for there, wanted in zip(size_of(example), self.size, strict=True)
        )
        return surrounded(example, top, left, *self.size, self.margin)


@dataclass(frozen=True)
class MapCrop:
    """A window of a `map` [h, w, C] of `size` = (height, width), cells, and of its mask; cell k
    belongs to the pixels from stride*k on.

    Where the map is smaller, 0 follows it, and in the mask 255.
    """

    size: tuple[int, int]
    stride: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        maps, mask = example["map"], example["mask"]
        tall, wide = (max(0, a - b) for a, b in zip(self.size, maps.shape[:2], strict=True))
        maps = np.pad(maps, ((0, tall), (0, wide), (0, 0)))
        short = [n * self.stride - m for n, m in zip(maps.shape[:2], mask.shape, strict=True)]
        mask = np.pad(mask, [(0, max(0, n)) for n in short], constant_values=IGNORED)
        top, left = (
            int(rng.integers(n - size + 1))
            for n, size in zip(maps.shape[:2], self.size, strict=True)
        )
        height, width = self.size
        return {
            **example,
            "map": maps[top : top + height, left : left + width].copy(),
            "mask": mask[
                top * self.stride : (top + height) * self.stride,
                left * self.stride : (left + width) * self.stride,
            ].copy(),
        }


def surrounded(
    example: Example, top: int, left: int, height: int, width: int, margin: int
) -> Example:
    """The mask's window at (top, left), and the image's with `margin` pixels around: see
    `SurroundedCrop`."""
    out = dict(example)
    size = size_of(example)
    windows = [(top, height), (left, width)]
    if "image" in example:
        rows, columns = (
            mirrored(np.arange(first - margin, first + count + margin), length)
            for (first, count), length in zip(windows, size, strict=True)
        )
        out["image"] = example["image"].take(rows, axis=0).take(columns, axis=1)
    if "mask" in example:
        below, right = (max(0, f + c - n) for (f, c), n in zip(windows, size, strict=True))
        mask = np.pad(example["mask"], ((0, below), (0, right)), constant_values=IGNORED)
        out["mask"] = mask[top : top + height, left : left + width].copy()
    if "boxes" in example:
        out["boxes"] = cropped_boxes(example["boxes"], top, left, height, width)
    return out


def mirrored(places: np.ndarray, length: int) -> np.ndarray:
    """Which pixel of an axis shows at places beyond it, int: 2 1 0 1 2 1 0 for 0 1 2 (OpenCV's
    BORDER_REFLECT_101)."""
    period = max(1, 2 * (length - 1))
    folded = places % period
    return np.minimum(folded, period - folded) if length > 1 else np.zeros_like(places)
