"""Turning about the centre, for a window of the result alone.

An image shows its reflection around it, a mask 255. Images are turned tile by tile on a fixed grid,
each tile in coordinates of its own: PIL computes in floating point, and the same tiles give the
same bits whichever window asks for them. For masks it computes in fixed point, where any window
can start anywhere without rounding.
"""

import math

import numpy as np
from PIL import Image

from drn_jax.data.dataset import IGNORED

Span = tuple[int, int]
"""First and past-last row or column."""

TILE = 96
"""Pixels a side. Larger ones waste more around a window, smaller ones more calls (tried: 64 to
192)."""

_ONE = 1 << 16
"""1 in PIL's fixed point."""


def turned_image(image: np.ndarray, degrees: int, rows: Span, columns: Span) -> np.ndarray:
    """A window of the image turned counter-clockwise about its centre, bilinear.

    Args:
      image: uint8 [H, W, 3].
      rows, columns: the window, within the image.

    Returns:
      uint8 [rows, columns, 3].
    """
    height, width = image.shape[:2]
    a, b, c, d, e, f = matrix(degrees, height, width)
    source, top, left = surroundings(image, degrees, rows, columns)
    source = Image.fromarray(source)
    out = Image.new("RGB", (columns[1] - columns[0], rows[1] - rows[0]))
    for y in range(rows[0] - rows[0] % TILE, rows[1], TILE):
        for x in range(columns[0] - columns[0] % TILE, columns[1], TILE):
            # Cut at the window's end, but not at its start: that would move the origin.
            tall, wide = min(TILE, rows[1] - y), min(TILE, columns[1] - x)
            (y1, y2), (x1, x2) = _reach(degrees, height, width, (y, y + TILE), (x, x + TILE))
            tile = source.crop((x1 - left, y1 - top, x2 - left, y2 - top)).transform(
                (wide, tall),
                Image.Transform.AFFINE,
                (a, b, a * x + b * y + c - x1, d, e, d * x + e * y + f - y1),
                Image.Resampling.BILINEAR,
            )
            before = max(0, columns[0] - x), max(0, rows[0] - y)
            if any(before):
                tile = tile.crop((*before, wide, tall))
            out.paste(tile, (max(x, columns[0]) - columns[0], max(y, rows[0]) - rows[0]))
    return np.asarray(out)


def turned_mask(mask: np.ndarray, degrees: int, rows: Span, columns: Span) -> np.ndarray:
    """Likewise of a mask, uint8 [H, W]: nearest neighbour, 255 from outside.

    The same as PIL's `rotate` of the whole.
    """
    height, width = mask.shape
    a, b, c, d, e, f = matrix(degrees, height, width)
    (y1, y2), (x1, x2) = _reach(degrees, height, width, rows, columns)
    y1, y2, x1, x2 = max(0, y1), min(height, y2), max(0, x1), min(width, x2)
    if y1 >= y2 or x1 >= x2:
        return np.full((rows[1] - rows[0], columns[1] - columns[0]), IGNORED, np.uint8)
    # As PIL rounds them for the whole; from here on whole numbers, moved to the window's origin.
    a, b, c, d, e, f = map(_fixed, (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5))
    c += a * columns[0] + b * rows[0] - x1 * _ONE
    f += d * columns[0] + e * rows[0] - y1 * _ONE
    # PIL adds half a pixel's step to the third and sixth.
    moved = (a, b, c - a / 2 - b / 2, d, e, f - d / 2 - e / 2)
    turned = Image.fromarray(mask[y1:y2, x1:x2]).transform(
        (columns[1] - columns[0], rows[1] - rows[0]),
        Image.Transform.AFFINE,
        tuple(number / _ONE for number in moved),
        Image.Resampling.NEAREST,
        fillcolor=IGNORED,
    )
    return np.asarray(turned)


def turned_boxes(boxes: np.ndarray, degrees: int, height: int, width: int) -> np.ndarray:
    """The upright hull of each box's turned corners, float [n, 4]; it may reach outside."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = boxes[:, [0, 2, 2, 0]] - width / 2
    y = boxes[:, [1, 1, 3, 3]] - height / 2
    x, y = x * cos + y * sin + width / 2, y * cos - x * sin + height / 2
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)


def matrix(degrees: int, height: int, width: int) -> tuple[float, ...]:
    """Where a place (x, y) of the result comes from: (ax + by + c, dx + ey + f); as PIL rounds."""
    angle = -math.radians(degrees % 360)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, -x * cos - y * sin + x, -sin, cos, x * sin - y * cos + y


def surroundings(
    image: np.ndarray, degrees: int, rows: Span, columns: Span
) -> tuple[np.ndarray, int, int]:
    """What the window comes from, reflected where it reaches outside; its top and left."""
    height, width = image.shape[:2]
    (y1, y2), (x1, x2) = _reach(degrees, height, width, rows, columns)
    inside = image[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)]
    if inside.shape[:2] == (y2 - y1, x2 - x1):
        return inside, y1, x1
    # By what the angle takes for the whole: what shows far outside depends on how far it goes on.
    (top, bottom), (left, right) = _reach(degrees, height, width, (0, height), (0, width))
    above, before = max(0, -top), max(0, -left)
    down = reflected(height, above, max(0, bottom - height))[y1 + above : y2 + above]
    across = reflected(width, before, max(0, right - width))[x1 + before : x2 + before]
    return image.take(down, axis=0).take(across, axis=1), y1, x1


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


def _reach(degrees: int, height: int, width: int, rows: Span, columns: Span) -> tuple[Span, Span]:
    """The rows and columns that a window comes from, those for interpolating included."""
    a, b, c, d, e, f = matrix(degrees, height, width)
    corners = [(x, y) for x in columns for y in rows]
    across, down = [a * x + b * y + c for x, y in corners], [d * x + e * y + f for x, y in corners]
    return (
        (math.floor(min(down)) - 1, math.ceil(max(down)) + 1),
        (math.floor(min(across)) - 1, math.ceil(max(across)) + 1),
    )


def _fixed(number: float) -> int:
    return math.floor(number * _ONE + 0.5)
