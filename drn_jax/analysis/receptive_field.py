"""How far a cell sees: receptive fields, from the stage table alone.

All of it is along one axis, as kernels, strides and dilations are the same along both. Pixel i lies
at i. "Input" is what the network takes, so of a VGG front end the image with its margin.

A layer of kernel K and dilation d on a map whose cells lie s pixels apart widens the field by
(K - 1) * d * s. Where branches meet, the sum sees what the widest of them sees, and the classifier
is applied at every cell: the mean over the whole map, which a classification network takes before
it, is left out. `effective_field` has how much of a field a trained network uses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from drn_jax.models import full_table
from drn_jax.models.stages import Block, Conv, Stage, blocks, pool_padding, strided


@dataclass(frozen=True)
class Row:
    """A layer, or the sum at the end of a residual block."""

    layer: str
    """Where its parameters lie, within its part of a network with a context module:
    "level3/block1/conv1"; of a sum the block."""
    stage: str
    """The row of the table that it belongs to."""
    size: int
    """Side of the square of input pixels that can reach a cell, by the longest path."""
    size_min: int
    """The same by the shortest path, over all shortcuts."""
    stride: int
    """Input pixels between neighbouring cells."""
    offset: float
    """The middle of the first cell's field."""
    dilation: int
    """Of a sum the greatest in its block."""
    output: int | None
    """Cells along an axis, for the given size of the input; None: none was given."""


def of(network: str | Sequence[Stage], size: int | None = None) -> tuple[Row, ...]:
    """The field at every layer, in the order of computation.

    Args:
      network: a name of `models.MODELS`, as `models.create` makes it, or a table.
      size: of the input along an axis, pixels, margin included.

    Raises: UserError for an unknown name; ValueError where branches meet that are not aligned.
    """
    return tuple(_rows(full_table(network), size))


def of_stages(network: str | Sequence[Stage], size: int | None = None) -> tuple[Row, ...]:
    """The field at the end of every stage; arguments as for `of`."""
    return tuple({row.stage: row for row in of(network, size)}.values())


def series(dilations: Sequence[int], kernel: int = 3) -> tuple[Stage, ...]:
    """Convolutions of one channel one behind another, such as 1, 2, 4 (Context paper, Fig. 1)."""
    return tuple(
        Stage(f"layer{i}", "plain", 1, dilation=dilation, kernel=kernel)
        for i, dilation in enumerate(dilations, 1)
    )


def coverage(network: str | Sequence[Stage]) -> np.ndarray:
    """How often every pixel of its field is used by a cell of the last map, away from the borders:
    the number of paths from it through taps and shortcuts.

    3x3 layers of dilations 1, 2, 4, ... use every pixel of a field of 2^(i+2) - 1; a series such as
    2, 2, 2 leaves holes (Context paper, section 2).

    Returns:
      float64 [size, size], `size` as of the last row of `of`. Raises as `of`.
    """
    paths = _Paths(np.ones((1, 1)), 0)
    levels = []
    channels = 3
    for stage in full_table(network):
        levels.append((stage, [*blocks(stage, channels)]))
        channels = stage.outputs
    for stage, chain in reversed(levels):
        if stage.kind == "max_pool":
            paths = paths.before(stage)
        for block in reversed(chain):
            inner = paths
            for conv in reversed(block.path):
                inner = inner.before(conv)
            if isinstance(block.shortcut, Conv):
                inner = inner.joined(paths.before(block.shortcut))
            elif block.shortcut == "identity":
                inner = inner.joined(paths)
            paths = inner
    return paths.counts


class _Paths(NamedTuple):
    """Paths from the cells of a map to one cell behind it."""

    counts: np.ndarray
    """[n, n], of the cells that have any, and those between."""
    first: int
    """Place of the first of them along either axis."""

    def before(self, layer: Conv | Stage) -> "_Paths":
        """From the cells of the map that the layer takes, to the same cell."""
        kernel, stride, dilation, padding = _window(layer)
        counts = self.counts
        for _ in range(2):  # One axis, then the other: taps of a window are a square.
            apart = np.zeros(((len(counts) - 1) * stride + 1, counts.shape[1]))
            apart[::stride] = counts
            reach = dilation * (kernel - 1)
            spread = np.zeros((len(apart) + reach, counts.shape[1]))
            for tap in range(kernel):
                spread[tap * dilation : tap * dilation + len(apart)] += apart
            counts = spread.T
        return _Paths(counts, self.first * stride - padding)

    def joined(self, other: "_Paths") -> "_Paths":
        """Those of both."""
        first = min(self.first, other.first)
        last = max(paths.first + len(paths.counts) for paths in (self, other))
        counts = np.zeros((last - first, last - first))
        for paths in (self, other):
            inside = slice(paths.first - first, paths.first - first + len(paths.counts))
            counts[inside, inside] += paths.counts
        return _Paths(counts, first)


class _Field(NamedTuple):
    """What `Row` tells of a map."""

    size: int
    size_min: int
    stride: int
    offset: float
    output: int | None

    def behind(self, layer: Conv | Stage) -> "_Field":
        """Of the map that a layer gives."""
        kernel, stride, dilation, padding = _window(layer)
        reach = dilation * (kernel - 1)
        return _Field(
            self.size + reach * self.stride,
            self.size_min + reach * self.stride,
            self.stride * stride,
            self.offset + self.stride * (reach / 2 - padding),
            None if self.output is None else strided(self.output, layer) * (self.output > 0),
        )

    def joined(self, other: "_Field", where: str) -> "_Field":
        """Of the sum of two maps."""
        if self[2:] != other[2:]:
            raise ValueError(f"{where}: its branches are not aligned: {self[2:]}, {other[2:]}")
        sizes = max(self.size, other.size), min(self.size_min, other.size_min)
        return _Field(*sizes, *self[2:])


def _rows(table: Sequence[Stage], size: int | None) -> Iterator[Row]:
    field, channels = _Field(1, 1, 1, 0.0, size), 3
    for stage in table:
        if stage.kind == "max_pool":
            field = field.behind(stage)
            yield Row(stage.name, stage.name, *field[:4], 1, field.output)
        for block in blocks(stage, channels):
            rows, field = _of_block(stage, block, field)
            yield from rows
        channels = stage.outputs


def _of_block(stage: Stage, block: Block, field: _Field) -> tuple[list[Row], _Field]:
    """The rows of a block, and what the last of them tells."""
    where = f"{stage.name}/{block.name}" if block.name else ""
    rows = []

    def add(name: str, field: _Field, dilation: int) -> None:
        layer = "/".join(part for part in (where, name) if part)
        rows.append(Row(layer, stage.name, *field[:4], dilation, field.output))

    inner = field
    for conv in block.path:
        inner = inner.behind(conv)
        add(conv.name, inner, conv.dilation)
    if block.shortcut == "none":
        return rows, inner
    if isinstance(block.shortcut, Conv):
        field = field.behind(block.shortcut)
        add(block.shortcut.name, field, block.shortcut.dilation)
    whole = inner.joined(field, where)
    add("", whole, max(conv.dilation for conv in block.path))
    return rows, whole


def _window(layer: Conv | Stage) -> tuple[int, int, int, int]:
    """(kernel, stride, dilation, padding) of a convolution or a pooling row."""
    if isinstance(layer, Conv):
        return layer.kernel, layer.stride, layer.dilation, layer.padding
    return layer.kernel, layer.stride, 1, pool_padding(layer)
