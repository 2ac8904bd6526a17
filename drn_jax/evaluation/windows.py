"""Exact windows: how an image of any size is computed in pieces of one size, without a seam.

A cell depends on the pixels of its receptive field and on nothing else. A window that cuts the
image spoils the cells whose field crosses the cut, and they are dropped; the window beside it has
them whole. At the image's own edges nothing is spoilt: windows begin at multiples of the output
stride, so that every map of a window is a piece of the image's map, and what a window has beyond
the lower or right edge is filler that the network ignores (`valid` of `network.Network`).

An axis is that of the network's input: where the network takes surroundings (`Preprocess.margin`),
the image's pixels and as many mirrored ones on each side.
"""

from dataclasses import dataclass

from drn_jax.errors import UserError
from drn_jax.models.stages import Conv, Stage, cells, layers, pool_padding


@dataclass(frozen=True)
class Reach:
    """Which pixels a cell depends on: cell k on `stride * k - before` to `stride * k + after`."""

    before: int
    after: int
    stride: int

    @property
    def dropped(self) -> int:
        """Cells that a cut spoils behind it."""
        return -(-self.before // self.stride)

    def kept(self, side: int) -> int:
        """Cells of a window of `side` pixels that a cut at its end does not spoil."""
        return max(0, (side - 1 - self.after) // self.stride + 1)

    def core(self, side: int) -> int:
        """Cells that a window between two cuts gives; 0 or less: none."""
        return self.kept(side) - self.dropped

    @property
    def least_side(self) -> int:
        """Pixels of the smallest window that gives a cell between two cuts."""
        return self.dropped * self.stride + self.after + 1


@dataclass(frozen=True)
class Window:
    """A piece of an axis, and the cells for which it is there."""

    start: int
    """Its first pixel, a multiple of the stride."""
    valid: int
    """How many pixels of the axis it holds; filler follows."""
    first: int
    """Of the whole map's cells it gives those from here..."""
    stop: int
    """...to before here."""

    def local(self, stride: int) -> slice:
        """The same cells in the window's own map."""
        return slice(self.first - self.start // stride, self.stop - self.start // stride)


def reach(table: tuple[Stage, ...]) -> Reach:
    """How far a cell of the last map sees.

    From the last layer back: if the cells a to b of a layer's output matter, then of its input
    `stride * a - padding` to `stride * b - padding + dilation * (kernel - 1)`; shortcuts lie
    within.
    """
    before = after = 0
    stride = 1
    for layer in reversed(tuple(layers(*table))):
        if isinstance(layer, Conv):
            padding, width = layer.padding, layer.dilation * (layer.kernel - 1)
        else:
            padding, width = pool_padding(layer), layer.kernel - 1
        before = layer.stride * before + padding
        after = layer.stride * after - padding + width
        stride *= layer.stride
    return Reach(before, after, stride)


def least_side(table: tuple[Stage, ...], margin: int = 0) -> int:
    """Pixels of image in the smallest window that can tile; `margin`: the surroundings on each side
    that the network takes, not counted."""
    return max(1, reach(table).least_side - 2 * margin)


def along(table: tuple[Stage, ...], length: int, side: int, margin: int = 0) -> tuple[Window, ...]:
    """Windows that together give every cell of an axis once; a single one that holds it whole.

    Args:
      length, side: of the image and of a window, pixels, without the `margin` on each side. That is
        counted in the windows' places.

    Raises: UserError where the image must be cut and the window gives no cell between two cuts.
    """
    least = least_side(table, margin)
    if side < min(length, least):
        raise UserError(
            f"an image of {length} pixels is cut into windows of {side}, too small for this "
            f"network, of which a cell sees more: give a side of at least {least}"
        )
    length, side = length + 2 * margin, side + 2 * margin
    count, seen = cells(table, length), reach(table)
    if length <= side:
        return (Window(0, length, 0, count),)
    windows = []
    first = start = 0
    while first < count:
        whole = length - start <= side
        stop = count if whole else min(count, start // seen.stride + seen.kept(side))
        windows.append(Window(start, min(side, length - start), first, stop))
        first, start = stop, (stop - seen.dropped) * seen.stride
    return tuple(windows)
