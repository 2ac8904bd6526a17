"""Bilinear upsampling of a class map to the image: parameter-free, by shifted copies.

Cell k of a map with stride s covers pixels s*k to s*k + s - 1, so its centre lies at pixel
s*k + (s - 1)/2: the grid of the transposed convolution in fyu/drn (kernel 2s, stride s, pad s/2).
Every pixel is a weighted mean of two neighbouring cells along each axis. Written as three shifted
copies and small constant weights, each axis partitions over devices with a halo of one cell.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Border = Literal["clamp", "zero"]


def upsample(x: jax.Array, factor: int, border: Border = "clamp") -> jax.Array:
    """Enlarge [N, h, w, C] to [N, h*factor, w*factor, C].

    `border` says what lies beyond the map: "clamp", its edge cells again, as bilinear resizing
    does, or "zero", as in the published transposed convolution, which fades the logits towards 0
    over the outer factor/2 pixels.
    """
    return _along(_along(x, 1, factor, border), 2, factor, border)


def _along(x: jax.Array, axis: int, factor: int, border: Border) -> jax.Array:
    size = x.shape[axis]
    pads = [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)]
    padded = jnp.pad(x, pads, mode="edge" if border == "clamp" else "constant")
    before, here, after = (
        jnp.expand_dims(jax.lax.slice_in_dim(padded, k, k + size, axis=axis), axis + 1)
        for k in range(3)
    )
    # Pixel j of a cell lies at (j + 1/2)/factor - 1/2 cells from the cell's centre.
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
