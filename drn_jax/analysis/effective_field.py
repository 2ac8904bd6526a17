"""How much of its receptive field a trained network uses: the effective field (Luo et al. 2016),
from the gradients of one cell over real images."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drn_jax.analysis import receptive_field
from drn_jax.models.stages import Stage

SHARE = 0.95
"""Of the map, that `EffectiveField.side` holds."""


@dataclass(frozen=True)
class EffectiveField:
    """What the cell in the middle of a stage's map makes use of."""

    stage: str
    map: np.ndarray
    """float64 [H, W]: the share of every pixel; sums to 1. Of prepared images: with the margin that
    some networks need around theirs."""
    radius: float
    """Pixels: sqrt(sum of map * squared distance from `centre`). A field of S x S pixels that uses
    all of them alike has sqrt((S^2 - 1) / 6), nearly S / sqrt(6): so `radius` * sqrt(6) is the side
    of the even field that is as wide as this one. What a field has beyond the image counts nothing:
    compare on images that hold it, or of one size."""
    side: float
    """Pixels of the smallest square around `centre` that holds `SHARE` of the map."""
    size: int
    """Side of the theoretical field, pixels; it may reach beyond the image."""
    centre: tuple[float, float]
    """Row and column of its middle, pixels; pixel i lies at i."""
    images: int


def of(
    features: Callable[[Any, jax.Array], Mapping[str, jax.Array]],
    variables: Any,
    table: Sequence[Stage],
    stage: str,
    images: Iterable[jax.Array],
    key: jax.Array,
) -> EffectiveField:
    """The effective field of a stage's cell nearest to the middle of the image.

    The map is the mean over images of |d (sum_c w_c f_c) / d pixel|, summed over the colours, less
    its scale: f_c are the channels of the cell, w_c random signs, drawn for every image anew, so
    that no channels cancel on all of them. One program is compiled, and one batch kept at a time.

    Args:
      features: what `network.apply` gives second, of variables and a batch of images: the maps
        [N, h, w, C] by the names of the stages, others too.
      variables: of the network.
      table: `network.stages`, up to `stage` or beyond.
      images: prepared, float [N, H, W, 3], in batches of one shape.
      key: of the signs.

    Raises: ValueError for an unknown stage, for no images or images of several shapes, and where no
      gradient, or one that is not finite, reaches them.
    """

    @partial(jax.jit, static_argnums=3)
    def sensitivity(
        images: jax.Array, variables: Any, key: jax.Array, cell: tuple[int, int]
    ) -> jax.Array:
        def weighed(images: jax.Array) -> jax.Array:
            values = features(variables, images)[stage][:, *cell].astype(jnp.float32)
            return (values * jax.random.rademacher(key, values.shape, jnp.float32)).sum()

        return jnp.abs(jax.grad(weighed)(images)).sum((0, 3))

    total, shape, cell, count = np.zeros(()), None, (0, 0), 0
    for step, batch in enumerate(images):
        if shape is None:
            shape = batch.shape
            cell = _place(table, stage, shape[1])[0], _place(table, stage, shape[2])[0]
        if batch.shape != shape:
            raise ValueError(f"images of {shape} and {batch.shape}: batches must be of one shape")
        found = sensitivity(batch, variables, jax.random.fold_in(key, step), cell)
        total = total + np.asarray(found, np.float64)
        count += len(batch)
    if shape is None:
        raise ValueError("no images")
    if not 0 < total.sum() < math.inf:
        raise ValueError(f"the gradients of {stage} by the images sum to {total.sum()}")
    share = total / total.sum()
    (_, down, size), (_, right, _) = (_place(table, stage, pixels) for pixels in shape[1:3])
    rows, columns = np.arange(shape[1])[:, None] - down, np.arange(shape[2]) - right
    return EffectiveField(
        stage=stage,
        map=share,
        radius=math.sqrt((share * (rows**2 + columns**2)).sum()),
        side=_side(share, np.maximum(np.abs(rows), np.abs(columns))),
        size=size,
        centre=(down, right),
        images=count,
    )


def _place(table: Sequence[Stage], stage: str, pixels: int) -> tuple[int, float, int]:
    """Of the cell nearest to the middle of an axis its number, the middle of its field, and the
    size of that."""
    for row in receptive_field.of_stages(table, pixels):
        if row.stage == stage and row.output:
            nearest = round(((pixels - 1) / 2 - row.offset) / row.stride)
            cell = min(max(nearest, 0), row.output - 1)
            return cell, row.offset + row.stride * cell, row.size
    raise ValueError(f"the table has no stage {stage!r}, or that no cell for {pixels} pixels")


def _side(share: np.ndarray, away: np.ndarray) -> float:
    """Of the smallest square whose pixels, `away` from its middle, hold `SHARE`."""
    order = np.argsort(away, axis=None, kind="stable")
    held = np.cumsum(share.ravel()[order])
    # Of pixels that are as far, all count.
    last = min(int(np.searchsorted(held, SHARE * (1 - 1e-12))), held.size - 1)
    return 2 * float(away.ravel()[order][last]) + 1
