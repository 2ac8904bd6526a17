"""Rotate, scale and crop at once, computing only what the crop shows; to the bit what the three do.

What they draw depends on sizes alone, so everything is drawn first. Then from the crop backwards:
the window of the scaled image, the rows and columns that its kernel reads, and those alone turned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from drn_jax.data.dataset import Example
from drn_jax.data.rotation import Span, turned_boxes, turned_image, turned_mask
from drn_jax.data.transforms import (
    RandomCrop,
    RandomRotate,
    RandomScale,
    Resampling,
    clip,
    cropped_boxes,
    padded_boxes,
    resized_boxes,
    size_of,
)

_SUPPORT = {Resampling.LANCZOS: 3, Resampling.BICUBIC: 2}
"""Half the width of PIL's kernels, in pixels of the smaller image."""


@dataclass(frozen=True)
class Drawn:
    """What `RandomRotate`, `RandomScale` and `RandomCrop` drew for an example of a known size."""

    degrees: int
    height: int
    width: int
    kernel: Resampling
    """The scaled image's size and its kernel."""
    top: int
    left: int
    """The crop's place in the scaled image, padded to the crop's size if it is smaller."""
    crop: RandomCrop

    @property
    def window(self) -> tuple[Span, Span]:
        """The rows and columns of the scaled image that the crop shows."""
        rows, columns = (
            (0, length) if length <= wanted else (first, first + wanted)
            for first, wanted, length in zip(
                (self.top, self.left), self.crop.size, (self.height, self.width), strict=True
            )
        )
        return rows, columns

    def boxes(self, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
        """Boxes of the example, float32 [n, 4], as they lie in the crop."""
        if self.degrees:
            boxes = clip(turned_boxes(boxes, self.degrees, height, width), height, width)
        boxes = resized_boxes(boxes, (height, width), (self.height, self.width))
        above, _, before, _ = self.crop.margins(self.height, self.width)
        boxes = padded_boxes(boxes, above, before)
        return cropped_boxes(boxes, self.top, self.left, *self.crop.size)


@dataclass(frozen=True)
class RotateScaleCrop:
    """`RandomRotate(angle)`, `RandomScale(scale)` and `RandomCrop(size)`, in one.

    An angle of 0 and a scale of 1 leave theirs out, as if it were not in the chain.
    """

    size: tuple[int, int]
    scale: float = 1.0
    angle: int = 0

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        return apply(self.draw(*size_of(example), rng), example, windowed_image)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Drawn:
        """As the three draw for an example of that size, in their order."""
        degrees = RandomRotate(self.angle).draw(rng) if self.angle else 0
        kernel = Resampling.BICUBIC
        if self.scale != 1:
            height, width, kernel = RandomScale(self.scale).draw(height, width, rng)
        crop = RandomCrop(self.size)
        return Drawn(degrees, height, width, kernel, *crop.draw(height, width, rng), crop)


def apply(
    drawn: Drawn, example: Example, render: Callable[[np.ndarray, Drawn], np.ndarray]
) -> Example:
    """The crop that was drawn; `render` makes the image's window of it."""
    height, width = size_of(example)
    out = dict(example)
    if "image" in example:
        out["image"] = render(example["image"], drawn)
    if "mask" in example:
        out["mask"] = windowed_mask(example["mask"], drawn)
    # Along an axis where the window is smaller than the crop, it shows the whole: pad that.
    out = drawn.crop.pad(out)
    if "boxes" in example:
        out["boxes"] = drawn.boxes(example["boxes"], height, width)
    return out


def windowed_image(image: np.ndarray, drawn: Drawn) -> np.ndarray:
    """The window of the image, turned and scaled; uint8 [rows, columns, 3]."""
    (height, width), (rows, columns) = image.shape[:2], drawn.window
    (y1, y2), (x1, x2) = (
        needed(span, old, new, drawn.kernel)
        for span, old, new in ((rows, height, drawn.height), (columns, width, drawn.width))
    )
    if drawn.degrees:
        part = turned_image(image, drawn.degrees, (y1, y2), (x1, x2))
    else:
        part = image[y1:y2, x1:x2]
    # PIL resizes along rows and then, from uint8, along columns, each as if the other did not
    # exist. Of either the whole length is computed, for the place of a part of it does not round
    # as the whole's: what lies beside the part does not matter.
    picture = Image.fromarray(part)
    if drawn.width != width:
        picture = _on_canvas(picture, (width, y2 - y1), (x1, 0))
        picture = picture.resize((drawn.width, y2 - y1), drawn.kernel)
        picture = picture.crop((columns[0], 0, columns[1], y2 - y1))
    if drawn.height != height:
        across = columns[1] - columns[0]
        picture = _on_canvas(picture, (across, height), (0, y1))
        picture = picture.resize((across, drawn.height), drawn.kernel)
        picture = picture.crop((0, rows[0], across, rows[1]))
    return np.array(picture)


def windowed_mask(mask: np.ndarray, drawn: Drawn) -> np.ndarray:
    """The window of the mask, turned and scaled; uint8 [rows, columns]."""
    (height, width), (rows, columns) = mask.shape, drawn.window
    down = nearest(height, drawn.height)[slice(*rows)]
    across = nearest(width, drawn.width)[slice(*columns)]
    if drawn.degrees:
        y, x = int(down[0]), int(across[0])
        mask = turned_mask(mask, drawn.degrees, (y, int(down[-1]) + 1), (x, int(across[-1]) + 1))
        down, across = down - y, across - x
    return mask.take(down, axis=0).take(across, axis=1)


def needed(span: Span, old: int, new: int, kernel: Resampling) -> Span:
    """What a resize of an axis from `old` to `new` reads for a span of the result."""
    if old == new:
        return span
    step = old / new
    reach = _SUPPORT[kernel] * max(1, step) + 1
    first, last = (span[0] + 0.5) * step, (span[1] - 0.5) * step
    return max(0, math.floor(first - reach)), min(old, math.ceil(last + reach))


def nearest(old: int, new: int) -> np.ndarray:
    """Which pixel PIL shows at each place of an axis resized by nearest neighbour, int32 [new]."""
    ramp = Image.fromarray(np.arange(old, dtype=np.int32)[None])
    return np.asarray(ramp.resize((new, 1), Resampling.NEAREST))[0]


def _on_canvas(picture: Image.Image, size: tuple[int, int], place: tuple[int, int]) -> Image.Image:
    if picture.size == size:
        return picture
    canvas = Image.new("RGB", size)
    canvas.paste(picture, place)
    return canvas
