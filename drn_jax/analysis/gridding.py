"""How much of a feature map is a grid: what a dilated convolution leaves where its input changes
within fewer cells than its taps lie apart (DRN paper, section 4 and Fig. 4). Cells d apart then
agree, and those between them do not.

The paper shows gridding and has no number for it. The one here is local: on a photograph a grid
changes its phase and strength from place to place, so means over all cells of a phase miss it.

For a map f [H, W] and the period d

    s = f smoothed, along both axes, by the symmetric box that removes all of period d: the mean of
        d cells for odd d, of d + 1 whose two outer ones count half for even d; no padding
    r = f - s, where s is defined: all of a grid of period d, nothing of a ramp
    C(T) = sum r(x) r(x + t) / sum (r(x)^2 + r(x + t)^2) / 2, over the lags t of T and all x where
        x and x + t are on the map: 1 where all cells agree with those t away, 0 for white noise
    agreement = min C(T) over three T: t = (0, jd), t = (id, 0) and t = (id, jd), i, j = ±1, ±2
    share = sum r^2 / sum (r^2 + (s - mean s)^2)
    score = max(0, agreement) * share

The sums run over all channels and images before they are divided, so that the noise of single
channels averages out.

A grid agrees along the rows, along the columns and across both. What is no grid fails one of them:
stripes agree along themselves alone, stripes of both directions not across, oblique waves along
neither axis. With lags of d and 2d a wave passes only within 1/(6d) of a multiple of 1/d; those of
d alone would let pass half of all.

It is meant for maps behind a ReLU, as those of the stages are. Before one, taps of both signs make
copies of both signs, which agree and disagree alike.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from drn_jax.models.convolution import dilated_conv
from drn_jax.models.stages import Stage, output_stride

REACH = 2
"""The longest lag, periods."""

_NOTHING = 1e-24
"""The share of a map's squares that may be rounding: of a constant nothing else is left."""


def least_size(period: int) -> int:
    """The fewest cells along either axis that a map must have: four periods."""
    return (REACH + 2) * period


def score(maps: ArrayLike, period: int) -> float:
    """How much of the energy of feature maps is a grid, in [0, 1]: see above.

    1 for maps of which every cell equals those `period` away along either axis, stripes along one
    axis among them; 0 for constants and ramps, and about 0.001 for white noise. Scale, added
    constants and transposition change nothing.

    Args:
      maps: [H, W], [H, W, C] or [N, H, W, C].
      period: d, cells; 2 or more.

    Raises: ValueError for maps of another rank, smaller than `least_size`, or with values that are
      not finite, and for a period below 2.
    """
    f = np.asarray(maps, np.float64)
    if f.ndim not in (2, 3, 4):
        raise ValueError(f"maps of shape {f.shape} are none of [H, W], [H, W, C], [N, H, W, C]")
    f = f.reshape(1, *f.shape, *[1] * (3 - f.ndim)) if f.ndim < 4 else f
    if period < 2:
        raise ValueError(f"a grid of period {period}: it must be 2 or more")
    if 0 in f.shape or min(f.shape[1:3]) < least_size(period):
        raise ValueError(
            f"maps of shape {f.shape} are too small: a grid of period {period} is told from "
            f"{least_size(period)} cells a side"
        )
    if not np.isfinite(f).all():
        raise ValueError("maps must be finite")
    squares = np.square(f).sum()
    s, r = _split(f - f.mean((1, 2), keepdims=True), period)
    rest, rough = np.square(s - s.mean((1, 2), keepdims=True)).sum(), np.square(r).sum()
    if rest + rough <= _NOTHING * squares:
        return 0.0
    return max(0.0, _agreement(r, period)) * float(rough / (rest + rough))


def _split(f: np.ndarray, period: int) -> tuple[np.ndarray, np.ndarray]:
    """The smooth part of [N, H, W, C] and what is left, both of the cells away from the edges."""
    weights = np.ones(2 * (period // 2) + 1)
    if period % 2 == 0:
        weights[[0, -1]] = 0.5
    weights /= period
    s = f
    for axis in (1, 2):
        windows = np.lib.stride_tricks.sliding_window_view(s, len(weights), axis)
        s = windows @ weights
    edge = period // 2
    return s, f[:, edge : f.shape[1] - edge, edge : f.shape[2] - edge] - s


def _agreement(r: np.ndarray, period: int) -> float:
    """The least C(T) of the three, of [N, H, W, C]."""
    steps = [period * step for step in range(1, REACH + 1)]
    along = ([(0, j) for j in steps], [(i, 0) for i in steps])
    across = [(i, j) for i in steps for k in steps for j in (k, -k)]
    squares = np.einsum("nhwc,nhwc->nhw", r, r)

    def coherence(lags: list[tuple[int, int]]) -> float:
        products = energy = 0.0
        for lag in lags:
            products += np.einsum("nhwc,nhwc->", *_pairs(r, *lag))
            energy += sum(part.sum() for part in _pairs(squares, *lag)) / 2
        return float(products / energy) if energy else 0.0

    return min(coherence(lags) for lags in (*along, across))


def _pairs(maps: np.ndarray, down: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells x and x + t of [N, H, W, ...], for t = (down, right), down no less than 0."""
    height, width = maps.shape[1:3]
    first, second = slice(0, width - abs(right)), slice(abs(right), width)
    if right < 0:
        first, second = second, first
    return maps[:, : height - down, first], maps[:, down:, second]


@dataclass(frozen=True)
class Level:
    """The gridding of a stage's maps over images."""

    stage: str
    dilation: int
    """Of the stage's convolutions."""
    period: int
    """Of the grid, cells."""
    mean: float
    """Of the images' scores, each over all channels."""
    deviation: float
    """Of the same, over images - 1; NaN for a single image."""
    images: int


def of_levels(
    features: Callable[[Any], Mapping[str, ArrayLike]],
    table: Sequence[Stage],
    images: Iterable[Any],
    periods: Sequence[int] | None = None,
) -> tuple[Level, ...]:
    """The gridding of stages over a set of images, by stage and period in the order of the table.

    By default those stages at the table's output stride from the first that dilates, each at every
    dilation of its own and before: levels 7 and 8 of DRN-C show what is left of level 6's grid.
    With `periods` all stages at the output stride, each at those: also such as a grid can't be in,
    for comparison. A table that is cut off ends at another stride.

    Args:
      features: the maps [N, h, w, C] of prepared images by the names of the stages, others too.
      table: the network's, `network.stages`.
      images: prepared, in batches of any sizes, of which one at a time is kept.

    Returns: nothing for a table that dilates nowhere, if no periods are given.
    Raises: ValueError where there is no image, and as `score`.
    """
    looked_at = list(_looked_at(table, periods))
    scores: dict[tuple[str, int], list[float]] = {(s.name, period): [] for s, period in looked_at}
    if not scores:
        return ()
    for batch in images:
        found = features(batch)
        for (name, period), of_images in scores.items():
            of_images += [score(one, period) for one in np.asarray(found[name])]
    levels = []
    for stage, period in looked_at:
        values = scores[stage.name, period]
        if not values:
            raise ValueError("no images")
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        mean = float(np.mean(values))
        levels.append(Level(stage.name, stage.dilation, period, mean, deviation, len(values)))
    return tuple(levels)


def _looked_at(
    table: Sequence[Stage], periods: Sequence[int] | None
) -> Iterator[tuple[Stage, int]]:
    last, stride, dilations = output_stride(tuple(table)), 1, {1}
    for stage in table:
        stride *= stage.stride
        dilations |= {stage.dilation, *(stage.first_dilation or ())}
        if stride == last:
            for period in sorted(dilations - {1}) if periods is None else periods:
                yield stage, period


def impulse_response(dilation: int, kernel: int = 3, size: int = 15) -> np.ndarray:
    """What one dilated convolution makes of a single active cell in the middle of a map: a grid
    (DRN paper, Fig. 4). All taps weigh 1.

    Args:
      size: cells a side.

    Returns: float32 [size, size].
    Raises: ValueError for an even kernel or size, which have no middle.
    """
    if kernel % 2 == 0 or size % 2 == 0:
        raise ValueError(f"a kernel of {kernel} and a map of {size} cells: both must be odd")
    cell = jnp.zeros((1, size, size, 1)).at[0, size // 2, size // 2, 0].set(1)
    taps = jnp.ones((kernel, kernel, 1, 1))
    padding = dilation * (kernel // 2)
    response = dilated_conv(cell, taps, dilation=dilation, padding=padding, method="native")
    return np.asarray(response)[0, :, :, 0]
