"""The two heavy augmentations by OpenCV: opt-in, faster, and not the same pixels.

Draws, boxes and masks are those of `windowed.RotateScaleCrop` and `transforms.RandomResizedCrop`,
to the bit. Images are not, for OpenCV's kernels are others; how far they are from PIL's, in grey
levels of 255, on six CamVid photographs of 480x360, 40 draws (2026-11-21, OpenCV 5.0, Pillow 13.0):
  rotate 10, scale 2, crop 270    mean 1.8 (0.7 to 3.8 an image), 1% differ by more than 15, max 84
  scale 2, crop 270               mean 1.1, max 81
  random resized crop 224         mean 0.6, 1% by more than 6, max 47
"""

import functools
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from PIL import Image

from drn_jax.data.dataset import Example
from drn_jax.data.rotation import Span, matrix, surroundings
from drn_jax.data.transforms import (
    Resampling,
    crop,
    resized_boxes,
    resized_crop_window,
    size_of,
)
from drn_jax.data.windowed import Drawn, RotateScaleCrop, apply
from drn_jax.errors import UserError


@dataclass(frozen=True)
class FastRotateScaleCrop:
    """As `windowed.RotateScaleCrop`, but turned and scaled at once; made smaller by averaging."""

    size: tuple[int, int]
    scale: float = 1.0
    angle: int = 0

    def __post_init__(self) -> None:
        opencv()

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        exact = RotateScaleCrop(self.size, self.scale, self.angle)
        return apply(exact.draw(*size_of(example), rng), example, _warped)


@dataclass(frozen=True)
class FastRandomResizedCrop:
    """As `transforms.RandomResizedCrop`, but made smaller by averaging, larger bilinearly."""

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        opencv()

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        window = resized_crop_window(*size_of(example), self.scale, self.ratio, rng)
        out = crop(example, *window)
        if "image" in out:
            out["image"] = _resized(out["image"], self.size, self.size)
        if "mask" in out:
            mask = Image.fromarray(out["mask"])
            out["mask"] = np.array(mask.resize((self.size, self.size), Resampling.NEAREST))
        if "boxes" in out:
            out["boxes"] = resized_boxes(out["boxes"], window[2:], (self.size, self.size))
        return out


@functools.cache
def opencv() -> ModuleType:
    """The module `cv2`, kept from starting threads: the loader has its own."""
    try:
        import cv2
    except ImportError as error:
        raise UserError("config.data.fast needs OpenCV: pip install -e '.[fast]'") from error
    cv2.setNumThreads(0)
    return cv2


def _warped(image: np.ndarray, drawn: Drawn) -> np.ndarray:
    """The window of the image, turned and scaled; uint8 [rows, columns, 3]."""
    cv2 = opencv()
    height, width = image.shape[:2]
    (top, bottom), (left, right) = drawn.window
    y, x = height / drawn.height, width / drawn.width
    # Where the image shrinks, turn it at its own size and average then.
    tall, wide = (
        max(window, round(window * step)) for window, step in ((bottom - top, y), (right - left, x))
    )
    # Pixels of the turned image to a pixel of the warp; 1, or nearly, where it shrinks.
    dy, dx = (bottom - top) * y / tall, (right - left) * x / wide
    rows, columns = _outwards(top * y, bottom * y, height), _outwards(left * x, right * x, width)
    source, above, before = surroundings(image, drawn.degrees, rows, columns)
    a, b, c, d, e, f = matrix(drawn.degrees, height, width)
    # From the middle of the warp's pixel (i, j) to the turned image, to the image, to the source.
    start_x, start_y = left * x + dx / 2, top * y + dy / 2
    place = np.array(
        [
            [a * dx, b * dy, a * start_x + b * start_y + c - before - 0.5],
            [d * dx, e * dy, d * start_x + e * start_y + f - above - 0.5],
        ]
    )
    # Turned images are bilinear in PIL too: there cubic would be the further from it.
    linear = drawn.degrees or max(x, y) >= 1
    out = cv2.warpAffine(
        np.ascontiguousarray(source),
        place,
        (wide, tall),
        flags=(cv2.INTER_LINEAR if linear else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _resized(out, bottom - top, right - left)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Axes that shrink by averaging, axes that grow bilinearly."""
    cv2 = opencv()
    small = min(width, image.shape[1]), min(height, image.shape[0])
    if small != image.shape[1::-1]:
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    if small != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def _outwards(first: float, last: float, length: int) -> Span:
    """The whole pixels around a part of an axis, and two more for the kernel."""
    return max(0, int(first) - 2), min(length, int(last) + 3)
