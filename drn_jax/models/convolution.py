"""Dilated convolution, the operation of both papers; and, in one place, by which program it is
computed."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from drn_jax.models import winograd

Method = Literal["auto", "native", "winograd2", "winograd4"]
"""What a user may ask for, see `choose`."""

Program = Literal["native", "dot", "winograd2", "winograd4"]
"""XLA's convolution; a matrix product over channels; `winograd_conv` with tiles of 2 or 4."""

WINOGRAD_CHANNELS = 64
"""With fewer inputs or outputs the matrix products do not pay for the transforms."""

WINOGRAD_CELLS = 512
"""With fewer outputs, over all images, these do not pay for the transforms of the kernel."""

WINOGRAD_SHARE = 0.6
"""With more of the definition's multiplications, because few cells of many tiles lie on the map, as
behind a dilation near its size, they do not pay for the transforms of the map."""

_TILES: dict[Method, tuple[int, ...]] = {"winograd2": (2,), "winograd4": (4,)}


def choose(
    method: Method,
    backend: str,
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    dtype: Any,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int = 0,
) -> Program:
    """The program for a convolution of these shapes on "cpu", "gpu" or "tpu".

    "auto" takes what is fastest: on CPUs a matrix product for 1x1 kernels, and for wide 3x3 ones in
    float32 Winograd's, mostly with tiles of 4, which keep logits within 1e-5 of the
    published ones' largest (docs/parity.md); on GPUs and TPUs, where nothing else has
    been measured, XLA's convolution. "native" always takes that. "winograd2" and "winograd4" take
    Winograd's on every backend, where it pays on CPUs; tiles of 2 are slower and round more finely.

    Networks ask for this process's backend. For a program compiled for another device, and for
    maps whose rows devices share, only "native" is right.
    """
    size, _, inputs, outputs = kernel
    on_cpu = backend == "cpu" and method != "native"
    if on_cpu and size == 1 and padding == 0:
        return "dot"
    tiles = (4, 2) if method == "auto" and on_cpu else _TILES.get(method, ())
    if not tiles or size != winograd.TAPS or stride != 1 or jnp.dtype(dtype) != jnp.float32:
        return "native"
    height, width = (max(0, side + 2 * padding - dilation * (size - 1)) for side in x[1:3])
    cells = height * width
    if min(inputs, outputs) < WINOGRAD_CHANNELS or x[0] * cells < WINOGRAD_CELLS:
        return "native"
    taken = {tile: winograd.multiplications(height, width, dilation, tile) for tile in tiles}
    tile = min(taken, key=lambda tile: taken[tile])
    if taken[tile] > WINOGRAD_SHARE * size * size * cells:
        return "native"
    return "winograd4" if tile == 4 else "winograd2"


def dilated_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int = 0,
    method: Method = "auto",
) -> jax.Array:
    """Dilated convolution, as deep learning has it: y[n, i, j, o] is the sum over u, v, c of
    x[n, i*stride + u*dilation - padding, j*stride + v*dilation - padding, c] * kernel[u, v, c, o].

    Yu & Koltun 2016, Eq. 2, up to the sign of the offset.

    Args:
      x: [N, H, W, C].
      kernel: [K, K, C, O], same dtype as `x`.
      stride, dilation: steps of the output grid and of the kernel's taps, pixels of `x`.
      padding: zeros on each of the four sides, pixels. Explicit, because 'SAME' would put the
        odd pixel of a strided convolution on the other side than PyTorch does.
      method: by which program, see `choose`. But for rounding no result depends on it; Winograd's
        has no forward-mode derivative.

    Returns: [N, H', W', O] with H' = (H + 2*padding - dilation*(K-1) - 1) // stride + 1.
    """
    program = choose(
        method,
        jax.default_backend(),
        x.shape,
        kernel.shape,
        x.dtype,
        stride=stride,
        dilation=dilation,
        padding=padding,
    )
    if program == "dot":
        x = x[:, ::stride, ::stride]
        return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
    if program == "winograd2" or program == "winograd4":
        tile = 2 if program == "winograd2" else 4
        return winograd.winograd_conv(x, kernel, dilation, padding, tile)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
