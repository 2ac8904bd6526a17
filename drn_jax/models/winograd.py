"""Winograd's minimal filtering for 3x3 convolutions of any dilation, and its gradients.

F(m x m, 3 x 3) computes m x m outputs of a convolution from a window d of (m + 2) x (m + 2) inputs
with that many products instead of 9 m^2 (Winograd 1980; Lavin & Gray 2016, Eq. 8):

    y = A^T [(G g G^T) * (B^T d B)] A

Summed over channels, each of the (m + 2)^2 products is a matrix product over all windows. A
dilation of r is r x r undilated convolutions of every r-th row and column (its polyphase
components), whose windows lie side by side here, so that it costs what an undilated one does. A
tile of m = 2 takes 4/9 of the multiplications and rounds little more than the definition does; a
tile of 4 takes 1/4, and rounds some ten times as coarsely.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache, partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TAPS = 3

POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    # With 1 and 2 the largest error is 2e-5 of the largest output, with these 4e-6.
    4: (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2)),
}
"""By tile, where the polynomials are evaluated, beside infinity."""


class Matrices(NamedTuple):
    """A^T [m, n], G [n, 3] and B^T [n, n] for tiles of m and n = m + 2, float64."""

    output: np.ndarray
    kernel: np.ndarray
    input: np.ndarray


@cache
def matrices(tile: int) -> Matrices:
    """The transforms along one axis, by Toom's and Cook's construction.

    Row j of G evaluates the kernel's polynomial at point p_j, over prod_k (p_j - p_k); row j of B^T
    holds the coefficients of prod_k (x - p_k), k other than j; the last of each is for infinity.
    """
    points = POINTS[tile]
    output = [[p**i for p in points] + [Fraction(i == tile - 1)] for i in range(tile)]
    kernel, inputs = [], []
    for point in points:
        others = [p for p in points if p != point]
        scale = prod(point - p for p in others)
        kernel.append([point**i / scale for i in range(TAPS)])
        inputs.append([*_with_roots(others), Fraction(0)])
    kernel.append([Fraction(i == TAPS - 1) for i in range(TAPS)])
    inputs.append(_with_roots(points))
    return Matrices(*(np.array(rows, np.float64) for rows in (output, kernel, inputs)))


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of prod (x - root), that of 1 first."""
    found = [Fraction(1)]
    for root in roots:
        pairs = zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)
        found = [above - root * same for above, same in pairs]
    return found


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def winograd_conv(
    x: jax.Array, kernel: jax.Array, dilation: int, padding: int, tile: int
) -> jax.Array:
    """What `convolution.dilated_conv` computes at stride 1 for a 3x3 kernel.

    Args:
      x: [N, H, W, C].
      kernel: [3, 3, C, O], same dtype as `x`.
      dilation, padding: pixels.
      tile: 2 or 4, outputs of a tile along an axis.

    Returns: [N, H', W', O] with H' = H + 2*padding - 2*dilation.

    Differentiable in reverse, as often as wanted, but not forward (`jax.jvp`). The gradients are
    Winograd's too: by `x` another such convolution, by `kernel` the transposed transforms around
    products over the windows. (Devices that share the examples sum these products, 16/9 of the
    kernel's bytes or four times as many.)
    """
    return _convolved(x, _of_kernel(kernel, tile), 1, dilation, padding, tile)


def _forward(
    x: jax.Array, kernel: jax.Array, dilation: int, padding: int, tile: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    # The transformed input is 2.25 or 4 times as large as `x`: it is computed again, not kept.
    return winograd_conv(x, kernel, dilation, padding, tile), (x, kernel)


def _backward(
    dilation: int, padding: int, tile: int, kept: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    turned = _of_kernel(kernel[::-1, ::-1], tile)
    dx = _convolved(dy, turned, 2, dilation, 2 * dilation - padding, tile)
    inputs = _of_input(x, dilation, padding, tile)
    products = lax.dot_general(inputs, _of_slope(dy, dilation, tile), (((1,), (1,)), ((0,), (0,))))
    slopes = _transformed(products, matrices(tile).kernel.T)
    return dx, slopes.reshape(kernel.shape)


winograd_conv.defvjp(_forward, _backward)


def _convolved(
    x: jax.Array, kernel: jax.Array, inner: int, dilation: int, padding: int, tile: int
) -> jax.Array:
    """The convolution with a transformed kernel, whose axis `inner` is summed over."""
    size = [side + 2 * padding - dilation * (TAPS - 1) for side in x.shape[1:3]]
    inputs = _of_input(x, dilation, padding, tile)
    products = lax.dot_general(inputs, kernel, (((2,), (inner,)), ((0,), (0,))))
    rows, columns = (_tiles(side, dilation, tile) for side in size)
    channels = products.shape[-1]
    y = _transformed(products, matrices(tile).output)
    y = y.reshape(tile, tile, x.shape[0], rows, dilation, columns, dilation, channels)
    y = y.transpose(2, 3, 0, 4, 5, 1, 6, 7)
    y = y.reshape(x.shape[0], rows * tile * dilation, columns * tile * dilation, channels)
    return y[:, : size[0], : size[1]]


def _transformed(planes: jax.Array, matrix: np.ndarray) -> jax.Array:
    """The matrix along both axes of tiles, windows or kernels, of which `planes` [k * k, ...] are
    the elements, row by row."""
    both = jnp.asarray(np.kron(matrix, matrix), planes.dtype)
    # A GPU's or TPU's default would round the transforms to fewer bits than the products.
    flat = planes.reshape(len(planes), -1)
    return jnp.matmul(both, flat, precision="highest").reshape(-1, *planes.shape[1:])


def multiplications(height: int, width: int, dilation: int, tile: int) -> int:
    """For a map of so many outputs, per input and output channel; the definition takes 9 each."""
    rows, columns = (_tiles(size, dilation, tile) for size in (height, width))
    return (tile + TAPS - 1) ** 2 * dilation**2 * rows * columns


def _tiles(cells: int, dilation: int, tile: int) -> int:
    """Tiles along an axis of `cells` outputs, in each of its polyphase components."""
    return -(-cells // (dilation * tile))


# Along an axis of a map lie the tiles, in each its cells, of each its `dilation` phases: cell i of
# tile t has index (t * tile + i) * dilation + phase. In planes of tiles, of windows and of their
# products the order is [N, row of tiles, phase, column of tiles, phase], all as one axis.


def _of_input(x: jax.Array, dilation: int, padding: int, tile: int) -> jax.Array:
    """B^T d B of all windows, [(tile + 2)^2, windows, C]."""
    n, _, _, channels = x.shape
    reach = TAPS - 1
    sizes = [side + 2 * padding for side in x.shape[1:3]]
    rows, columns = (_tiles(size - dilation * reach, dilation, tile) for size in sizes)
    sides = [
        (padding, dilation * (count * tile + reach) - size + padding, 0)
        for size, count in zip(sizes, (rows, columns), strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))

    def windows(x: jax.Array, count: int) -> jax.Array:
        """Of [..., count * tile + 2, L] every window's i-th cell: [tile + 2, ..., count, L]."""
        last = tile * (count - 1) + 1
        return jnp.stack([x[..., i : i + last : tile, :] for i in range(tile + reach)])

    # Phases and all later axes lie behind one another, and count as one axis.
    x = windows(x.reshape(n, x.shape[1], columns * tile + reach, -1), columns)
    x = windows(x.reshape(tile + reach, n, rows * tile + reach, -1), rows)
    return _transformed(x.reshape((tile + reach) ** 2, -1, channels), matrices(tile).input)


def _of_slope(dy: jax.Array, dilation: int, tile: int) -> jax.Array:
    """A dy A^T of all tiles, the transpose of the last step: [(tile + 2)^2, tiles, O]."""
    n, height, width, channels = dy.shape
    rows, columns = (_tiles(size, dilation, tile) for size in (height, width))
    step = dilation * tile
    sides = ((0, rows * step - height, 0), (0, columns * step - width, 0))
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    dy = dy.reshape(n, rows, tile, dilation, columns, tile, dilation, channels)
    dy = dy.transpose(2, 5, 0, 1, 3, 4, 6, 7).reshape(tile * tile, -1, channels)
    return _transformed(dy, matrices(tile).output.T)


def _of_kernel(kernel: jax.Array, tile: int) -> jax.Array:
    """G g G^T: [(tile + 2)^2, C, O]."""
    return _transformed(kernel.reshape(-1, *kernel.shape[2:]), matrices(tile).kernel)
