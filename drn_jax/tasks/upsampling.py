"""Bilinear upsampling of a class map to the image: parameter-free, by shifted copies.

Two conventions say where cell k of a map with stride s lies on an axis of pixels:
  "centre"  at s*k + (s - 1)/2, the middle of the s pixels that it covers and of its receptive
            field: fyu/drn's and Dilation10's transposed convolution (kernel 2s, stride s, pad s/2)
  "corner"  at s*k: where fyu/dilation samples labels, and where its zoom puts the cells
Every pixel is a weighted mean of two neighbouring cells along each axis. Written as three shifted
copies and small constant weights, each axis partitions over devices with a halo of one cell.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Border = Literal["clamp", "zero"]
Alignment = Literal["centre", "corner"]


def upsample(
    x: jax.Array, factor: int, border: Border = "clamp", alignment: Alignment = "centre"
) -> jax.Array:
    """Enlarge [N, h, w, C] to [N, h*factor, w*factor, C].

    `border` says what lies beyond the map: "clamp", its edge cells again, as bilinear resizing
    does, or "zero", as in the published transposed convolution, which fades the logits towards 0
    over the outer factor/2 pixels. `alignment`: see the module.
    """
    for axis in (1, 2):
        x = _along(x, axis, factor, border, alignment)
    return x


def sampled(
    mask: jax.Array, cells: tuple[int, int], stride: int, alignment: Alignment
) -> jax.Array:
    """The label under every cell: [N, H, W] -> [N, *cells].

    "corner" takes pixel stride*k; "centre" stride*k + stride//2, the lower right one of the four
    that touch the cell's middle. A cell beyond the edge takes the last pixel.
    """
    first = stride // 2 if alignment == "centre" else 0
    for axis, count in zip((1, 2), cells, strict=True):
        end = first + stride * (count - 1) + 1
        mask = _extended(mask, axis, 0, max(0, end - mask.shape[axis]), "clamp")
        # `jnp.take` would gather over devices.
        mask = jax.lax.slice_in_dim(mask, first, end, stride, axis)
    return mask


def _along(x: jax.Array, axis: int, factor: int, border: Border, alignment: Alignment) -> jax.Array:
    size = x.shape[axis]
    padded = _extended(x, axis, 1, 1, border)
    before, here, after = (
        jnp.expand_dims(jax.lax.slice_in_dim(padded, k, k + size, axis=axis), axis + 1)
        for k in range(3)
    )
    # How far pixel j of a cell lies behind the cell's place, in cells.
    offset = np.arange(factor) / factor
    if alignment == "centre":
        offset = (np.arange(factor) + 0.5) / factor - 0.5
    shape = [factor if a == axis + 1 else 1 for a in range(x.ndim + 1)]

    def weight(values: np.ndarray) -> jax.Array:
        return jnp.asarray(values.reshape(shape), x.dtype)

    mixed = (
        before * weight(np.maximum(-offset, 0))
        + here * weight(1 - np.abs(offset))
        + after * weight(np.maximum(offset, 0))
    )
    return mixed.reshape((*x.shape[:axis], size * factor, *x.shape[axis + 1 :]))


def _extended(x: jax.Array, axis: int, before: int, after: int, border: Border) -> jax.Array:
    """`x` with so many more cells at both ends of an axis.

    What `jnp.pad` does for "clamp" by concatenation, of which the gradient exchanges more between
    devices, even those that hold examples of their own.
    """
    if not before + after:
        return x
    size = x.shape[axis]
    pads = [(before, after, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), pads)
    if border == "zero":
        return padded
    shape = [padded.shape[axis] if a == axis else 1 for a in range(x.ndim)]
    place = jax.lax.broadcasted_iota(jnp.int32, shape, axis) - before
    first, last = (jax.lax.slice_in_dim(x, k, k + 1, axis=axis) for k in (0, size - 1))
    return jnp.where(place < 0, first, jnp.where(place < size, padded, last))
