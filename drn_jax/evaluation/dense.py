"""The class map of an image of any size, by a handful of compiled programs.

A compiled program takes inputs of one shape. Here every image is laid into the smallest of a few
windows that holds it, with filler beyond (`valid` of `network.Network`), or else computed in pieces
of the largest (`windows`). Both are exact: the map is that of the whole image alone.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from drn_jax.analysis import cost
from drn_jax.data.surroundings import mirrored
from drn_jax.errors import UserError
from drn_jax.evaluation import windows
from drn_jax.evaluation.windows import Window
from drn_jax.models import rows_of
from drn_jax.models.dilation import ContextNetwork
from drn_jax.models.inputs import Preprocess
from drn_jax.models.network import Network, check_size
from drn_jax.models.stages import Stage, cells

Side = int | tuple[int, int]
"""Of a window, pixels of image, without the surroundings that the network takes: a square's, or
(height, width)."""

Piece = tuple[Window, Window]
"""Its rows and its columns."""

SMALLEST = 128
"""Pixels of the first of `default_sides`."""

_STEP = 32
"""Chosen sides are multiples of it: the largest output stride."""


class ClassMaps:
    """`features["logits_2d"]` of whole images, before any upsampling.

    Attributes:
      model, preprocess, variables: the network, what makes its input, and its weights.
      sides: the windows (height, width), by area. An image is computed in the first that holds it
        whole, or else in pieces of the last that can tile. A program is compiled when a window is
        first used.
      batch: windows computed at a time; one image's are, never several images'.
      stride: pixels between the cells of a map.
      compiled: how many programs have been compiled until now.
    """

    def __init__(
        self,
        model: Network | ContextNetwork,
        preprocess: Preprocess,
        variables: Mapping[str, Any],
        sides: Sequence[Side] | None = None,
        batch: int = 1,
        all_devices: bool = False,
    ):
        """Nothing is computed yet.

        Args:
          sides: by default `default_sides`; `for_memory` gives such as a device can hold.
          all_devices: those of this process share the windows of a batch, else all runs where the
            variables are.

        Raises: UserError for no windows, and for a batch that the devices cannot share evenly.
        """
        self.model, self.preprocess, self.variables = model, preprocess, variables
        self.table = rows_of(model)
        if sides is None:
            sides = default_sides(self.table, preprocess.margin)
        pairs = {(side, side) if isinstance(side, int) else side for side in sides}
        if not pairs:
            raise UserError("sides is empty: give the side of one window or more")
        self.sides = tuple(sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair)))
        devices = jax.local_devices() if all_devices else [None]
        if batch < 1 or batch % len(devices):
            raise UserError(f"batch = {batch}: give a multiple of the {len(devices)} devices")
        self.batch = batch
        self.stride = windows.reach(self.table).stride
        self.compiled = 0
        self._compute = jax.jit(self._traced)
        self._spread = None
        if all_devices:
            mesh = Mesh(np.array(devices), ("window",))
            self._spread = NamedSharding(mesh, PartitionSpec("window"))
            self.variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))

    def _traced(
        self, variables: Mapping[str, Any], images: jax.Array, valid: jax.Array
    ) -> jax.Array:
        self.compiled += 1  # Python comes here only when a program is made.
        inputs = self.preprocess(images, surrounded=True)
        found: Any = self.model.apply(variables, inputs, valid=valid)
        return found[1]["logits_2d"]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The class map of an image, uint8 [H, W, 3] -> float32 [h, w, classes].

        As if the image were computed whole: h and w are H and W over the stride, rounded up, for
        every network that keeps its borders.

        Raises: UserError for images too small for the network, and for such as no window holds
          where none can tile (`windows.along`); ValueError for what is no image.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"image: expected uint8 [H, W, 3], got {image.dtype} {image.shape}")
        pieces = self.pieces(image.shape[0], image.shape[1])
        rows, columns = pieces[-1]
        out = np.empty((rows.stop, columns.stop, self.model.num_classes), np.float32)
        before = None
        for start in range(0, len(pieces), self.batch):
            group = pieces[start : start + self.batch]
            maps = self._maps(image, group)
            # The device computes while the host copies what it has just finished.
            if before is not None:
                self._write(out, *before)
            before = group, maps
        assert before is not None
        self._write(out, *before)
        return out

    def pieces(self, height: int, width: int) -> list[Piece]:
        """The windows in which an image of `height` x `width` is computed, row by row.

        Raises: UserError as for the map.
        """
        margin = self.preprocess.margin
        sizes = height + 2 * margin, width + 2 * margin
        check_size(self.model.stages, *sizes)
        if isinstance(self.model, ContextNetwork):
            tall, wide = (cells(self.model.stages, size) for size in sizes)
            self.model.context.check_size(tall, wide)
        tall, wide = self.side_for(height, width)
        rows = windows.along(self.table, height, tall, margin)
        return list(product(rows, windows.along(self.table, width, wide, margin)))

    def side_for(self, height: int, width: int) -> tuple[int, int]:
        """The window for an image of `height` x `width`: the least that holds it, else the largest
        of those that can tile."""
        holding = [pair for pair in self.sides if height <= pair[0] and width <= pair[1]]
        least = windows.least_side(self.table, self.preprocess.margin)
        tiling = [pair for pair in self.sides if min(pair) >= least]
        return holding[0] if holding else (tiling or self.sides)[-1]

    def _maps(self, image: np.ndarray, group: Sequence[Piece]) -> jax.Array:
        """The maps of windows, started."""
        margin = self.preprocess.margin
        height, width = (n + 2 * margin for n in self.side_for(*image.shape[:2]))
        images = np.zeros((self.batch, height, width, 3), np.uint8)
        valid = np.ones((self.batch, 2), np.int32)  # Filler alone: of it nothing is read.
        for k, piece in enumerate(group):
            part = image
            for axis, window in enumerate(piece):
                places = np.arange(window.start, window.start + window.valid) - margin
                part = part.take(mirrored(places, image.shape[axis]), axis)
            valid[k] = part.shape[:2]
            images[k, : part.shape[0], : part.shape[1]] = part
        if self._spread is not None:
            images, valid = jax.device_put((images, valid), self._spread)
        return self._compute(self.variables, images, valid)

    def _write(self, out: np.ndarray, group: Sequence[Piece], maps: jax.Array) -> None:
        for found, (rows, columns) in zip(np.asarray(maps), group, strict=False):
            out[rows.first : rows.stop, columns.first : columns.stop] = found[
                rows.local(self.stride), columns.local(self.stride)
            ]


def default_sides(table: tuple[Stage, ...], margin: int = 0) -> tuple[int, ...]:
    """Square windows for images of all sizes: 128 pixels, twice that and so on; the last is the
    least, but 512 or more, of which at least half of each side is new when it tiles."""
    seen, largest = windows.reach(table), 4 * SMALLEST
    while 2 * seen.stride * seen.core(largest + 2 * margin) < largest:
        largest += _STEP
    sides = [SMALLEST]
    while 2.5 * sides[-1] < largest:  # None that would save less than a fifth of the last.
        sides.append(2 * sides[-1])
    return (*sides, largest)


def for_memory(
    table: tuple[Stage, ...], gigabytes: float, margin: int = 0, batch: int = 1
) -> tuple[int, ...]:
    """`default_sides`, as far as the network's activations fit in `gigabytes` of 1e9 bytes, and in
    place of what doesn't the largest square that does; see `activation_gb`.

    Raises: UserError where not even the smallest window that can tile fits.
    """

    if not 0 < gigabytes < float("inf"):
        raise UserError(f"memory of {gigabytes:g} GB: must be a number above 0")

    def fits(side: int) -> bool:
        return batch * activation_gb(table, side + 2 * margin) <= gigabytes

    sides = default_sides(table, margin)
    if fits(sides[-1]):
        return sides
    least = -(-windows.least_side(table, margin) // _STEP) * _STEP
    if not fits(least):
        needed = batch * activation_gb(table, least + 2 * margin)
        raise UserError(
            f"{gigabytes:g} GB are not enough for a window of this network: give {needed:.2f} GB "
            "or more" + (", or a smaller batch" if batch > 1 else "")
        )
    largest = max(side for side in range(least, sides[-1], _STEP) if fits(side))
    return (*(side for side in sides if side < largest), largest)


def activation_gb(table: tuple[Stage, ...], side: int) -> float:
    """Estimate of the activations that one square input of `side` pixels, margin included, keeps
    at the same time, in float32, in 1e9 bytes.

    Of the widest row: its input and its output; for a row of residual blocks four maps, the block's
    input, two of its branch, and the sum. What the device's libraries take besides, the windows of
    Winograd's convolutions (on CPUs half as much again, in a small network), and the weights are
    not in it.
    """
    most, before = 0, 3 * side * side
    for stage, row in zip(table, cost.of(table, side, side, pooled=False), strict=True):
        after = row.height * row.width * row.channels
        residual = stage.kind in ("basic", "bottleneck")
        most = max(most, max(before, after) + 3 * after if residual else before + after)
        before = after
    return 4 * most / 1e9
