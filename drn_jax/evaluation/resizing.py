"""Pillow's bilinear resizing of float maps, as weights that a compiled program can take as data."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Taps:
    """How the places of an axis are mixed from those of another.

    Place i of the result is the sum over t of `weight[i, t]` times place `index[i, t]`.
    """

    index: np.ndarray
    """int32 [out, taps]."""
    weight: np.ndarray
    """float32 [out, taps]; each row sums to 1."""

    def part(self, start: int, count: int) -> "Taps":
        """`count` places of the result from `start` on; beyond its end the last again."""
        places = np.minimum(np.arange(start, start + count), len(self.index) - 1)
        return Taps(self.index[places], self.weight[places])

    @property
    def mirrored(self) -> "Taps":
        """To the mirror image of the result."""
        return Taps(self.index[::-1], self.weight[::-1])

    @property
    def first(self) -> int:
        """The least place that is read."""
        return int(self.index.min())

    @property
    def last(self) -> int:
        """The greatest."""
        return int(self.index.max())


def width(scale: float) -> int:
    """Taps that are enough for `scale` places of the input to one of the result."""
    return 2 * math.ceil(max(1.0, scale)) + 1


def bilinear(size: int, out: int, taps: int | None = None) -> Taps:
    """From `size` places to `out`, as `PIL.Image.resize(..., BILINEAR)`.

    Output place i has its centre at (i + 1/2) * size / out. A tent around it, as wide on either
    side as one output place where that is more than one input place, weighs the input places whose
    centres it covers; the weights are then divided by their sum: reducing averages (antialiasing).

    Args:
      taps: columns of the result, at least `width(size / out)`; the spare ones weigh 0.
    """
    scale = size / out
    support = max(1.0, scale)
    centre = (np.arange(out) + 0.5) * scale
    first = np.maximum(np.floor(centre - support + 0.5), 0).astype(np.int64)
    stop = np.minimum(np.floor(centre + support + 0.5), size).astype(np.int64)
    count = width(scale) if taps is None else taps
    place = first[:, None] + np.arange(count)[None, :]
    weight = np.maximum(0.0, 1 - np.abs(place + 0.5 - centre[:, None]) / support)
    weight = np.where(place < stop[:, None], weight, 0.0)
    weight /= weight.sum(1, keepdims=True)
    return Taps(np.minimum(place, size - 1).astype(np.int32), weight.astype(np.float32))


def mixed(x: jax.Array, index: jax.Array, weight: jax.Array, axis: int) -> jax.Array:
    """An axis of `x` replaced by what `index` and `weight`, both [out, taps], mix from it."""
    shape = [1] * x.ndim
    shape[axis] = index.shape[0]
    total = None
    for tap in range(index.shape[1]):
        part = jnp.take(x, index[:, tap], axis, mode="clip") * weight[:, tap].reshape(shape)
        total = part if total is None else total + part
    assert total is not None
    return total


def resize(x: jax.Array, height: int, width: int) -> jax.Array:
    """Float [H, W, C] -> [height, width, C]; each channel as Pillow resizes it in its mode "F"."""
    rows, columns = bilinear(x.shape[0], height), bilinear(x.shape[1], width)
    x = mixed(x, jnp.asarray(columns.index), jnp.asarray(columns.weight), 1)
    return mixed(x, jnp.asarray(rows.index), jnp.asarray(rows.weight), 0)
