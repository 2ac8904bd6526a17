"""The answer at every pixel of an image of any size: at one scale or several, mirrored or not.

The published evaluation at several scales (fyu/drn, `--ms`) resizes the image by Pillow's bicubic,
takes the network's log-probabilities at the pixels of the resized image, resizes each class's map
back by Pillow's bilinear, which averages where it reduces, and adds the scales up; here likewise,
but that cells beyond a resized image's edge, where its size is no multiple of the stride, are cut
off before the map is resized, where the published code squeezes them into the image.

The result is computed in blocks of one size, from pieces of the class maps and a table of weights
as data, so that one program serves all images, and no [H, W, classes] need exist.
"""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from drn_jax.errors import UserError
from drn_jax.evaluation import resizing
from drn_jax.evaluation.dense import ClassMaps
from drn_jax.evaluation.resizing import Taps
from drn_jax.models.dilation import UPSAMPLING, ContextNetwork, FixedUpsampling
from drn_jax.tasks import Segmentation

Combine = Literal["log_probabilities", "probabilities"]

Array: TypeAlias = Any
"""NumPy's on the host, JAX's in a program."""

LARGEST = 1 << 28
"""Pixels that an image may be enlarged to."""

BLOCK = 256
"""Pixels a side that are computed at a time."""


@dataclass(frozen=True)
class Scales:
    """At which sizes an image is seen, and how the answers are made one."""

    scales: tuple[float, ...] = (1.0,)
    """Factors of both sides; a size is rounded down."""
    flip: bool = False
    """Also the mirror image at every scale, its answer mirrored back."""
    combine: Combine = "log_probabilities"
    """The mean of log-probabilities, normalised again (the published sum has the same order), or of
    probabilities."""

    def check(self) -> None:
        """Raise UserError for no scale, or one that is no positive number."""
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise UserError(f"scales {self.scales}: give one or more numbers above 0")


PUBLISHED = Scales((1.0, 0.5, 0.75, 1.25, 1.5, 1.75))
"""fyu/drn's `--ms`."""


def factors(text: str) -> tuple[float, ...]:
    """The scales that a command line names: numbers with commas, or "published"; "" is one.

    Raises: UserError for anything else.
    """
    if text == "published":
        return PUBLISHED.scales
    try:
        found = tuple(float(part) for part in text.split(",")) if text else (1.0,)
    except ValueError:
        found = ()
    if not found or not all(0 < scale < math.inf for scale in found):
        raise UserError(
            f"--scales={text}: must be numbers above 0 with commas, as 0.5,1,1.5, or published"
        )
    return found


class View(NamedTuple):
    """One answer to be combined: a class map and how its pixels become those of the image."""

    cells: np.ndarray
    """Float32 [h, w, classes], on the host."""
    rows: Taps
    columns: Taps
    scale: float


class Part(NamedTuple):
    """What a block needs of a view, or of both at a scale, stacked: arrays whose shapes depend on
    the scale alone."""

    cells: Array
    """Float32 [m, n, classes]: those around the block, and more cells where the map ends."""
    row_index: Array
    row_weight: Array
    column_index: Array
    column_weight: Array


class PixelScores:
    """Log-probabilities and classes of every pixel of an image, uint8 [H, W, 3].

    Attributes:
      class_maps, task, scales: the network, the geometry of its cells, and the sizes.
      block: pixels a side that are computed at a time, which bounds the memory that is not the
        network's.
    """

    def __init__(
        self,
        class_maps: ClassMaps,
        task: Segmentation,
        scales: Scales = Scales(),
        block: int = BLOCK,
    ):
        """Raises: UserError for scales that are none; ValueError for a task of another stride."""
        scales.check()
        if task.output_stride != class_maps.stride:
            raise ValueError(
                f"task of stride {task.output_stride}, class maps of {class_maps.stride}"
            )
        self.class_maps, self.task, self.scales, self.block = class_maps, task, scales, block
        model, kernel = class_maps.model, None
        if isinstance(model, ContextNetwork) and model.upsampling:
            if model.upsampling != class_maps.stride:
                raise ValueError(f"upsampling by {model.upsampling} at stride {class_maps.stride}")
            kernel = class_maps.variables["params"][UPSAMPLING]["kernel"]
        self._kernel = kernel
        self._traces = 0
        self._combine = jax.jit(self._combined)
        self._decide = jax.jit(self._decided)

    @property
    def compiled(self) -> int:
        """Programs compiled until now, the network's included: at most one a window of it, one for
        `scores`, and one for masks."""
        return self.class_maps.compiled + self._traces

    def scores(self, image: np.ndarray) -> np.ndarray:
        """Log-probabilities, float32 [H, W, classes]; they sum to 1 at every pixel.

        Raises: as `ClassMaps`, and at every scale.
        """
        out = np.empty((*image.shape[:2], self.task.num_classes), np.float32)
        for place, scores in self._computed(self._combine, image):
            target = out[place]
            target[:] = scores[: target.shape[0], : target.shape[1]]
        return out

    def mask(self, image: np.ndarray) -> np.ndarray:
        """The likeliest class of every pixel, uint8 [H, W], or uint16 for more than 255 classes."""
        mask, probability = self.answer(image)
        if not np.isfinite(probability).all():
            raise UserError("the network's answer is not a number; choose another --checkpoint")
        return mask

    def answer(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`mask`, and the probability of its class, float32 [H, W], NaN where scores are: both
        without `scores`' memory."""
        size = image.shape[:2]
        mask = np.empty(size, np.uint8 if self.task.num_classes <= 255 else np.uint16)
        probability = np.empty(size, np.float32)
        for place, (best, sure) in self._computed(self._decide, image):
            height, width = mask[place].shape
            mask[place], probability[place] = best[:height, :width], sure[:height, :width]
        return mask, probability

    def _computed(
        self, program: Callable[..., Any], image: np.ndarray
    ) -> Iterator[tuple[Any, Any]]:
        """Every block's place, and what the program makes of it, on the host; the device computes
        the next while the host takes one."""
        before = None
        for place, parts in self._blocks(image):
            found = place, program(self._kernel, parts)
            if before is not None:
                yield before[0], jax.device_get(before[1])
            before = found
        if before is not None:
            yield before[0], jax.device_get(before[1])

    def _blocks(self, image: np.ndarray) -> Iterator[tuple[Any, tuple[Part, ...]]]:
        """Every block of the image: its place, and what it is computed from."""
        views = self._views(image)
        height, width = image.shape[:2]
        for top in range(0, height, self.block):
            for left in range(0, width, self.block):
                place = np.s_[top : top + self.block, left : left + self.block]
                parts = ([self._part(view, top, left) for view in both] for both in views)
                yield place, tuple(Part(*map(np.stack, zip(*both, strict=True))) for both in parts)

    def _views(self, image: np.ndarray) -> list[list[View]]:
        """At every scale the class map, and the mirror image's."""
        height, width = image.shape[:2]
        views = []
        for scale in self.scales.scales:
            seen = resized(image, scale)
            taps = resizing.width(scale)
            rows = resizing.bilinear(seen.shape[0], height, taps)
            columns = resizing.bilinear(seen.shape[1], width, taps)
            views.append([View(self.class_maps(seen), rows, columns, scale)])
            if self.scales.flip:
                mirrored = np.ascontiguousarray(seen[:, ::-1])
                views[-1].append(View(self.class_maps(mirrored), rows, columns.mirrored, scale))
        return views

    def _part(self, view: View, top: int, left: int) -> Part:
        """What the block at (top, left) needs of a view."""
        stride, found, cells = self.task.output_stride, [], view.cells
        # Pixels that the taps of a block span at most, in cells; one more on either side, since a
        # pixel lies between two cells; and one because the first need not begin a cell.
        span = math.ceil(self.block * view.scale + 2 * max(1.0, view.scale)) + 1
        count = -(-span // stride) + 3
        inside = []
        for axis, (taps, start) in enumerate(((view.rows, top), (view.columns, left))):
            part = taps.part(start, self.block)
            first = part.first // stride - 1
            assert part.last // stride + 1 < first + count
            place = np.arange(first, first + count)
            inside.append((place >= 0) & (place < view.cells.shape[axis]))
            cells = cells.take(place.clip(0, view.cells.shape[axis] - 1), axis)
            found += [part.index - np.int32(first * stride), part.weight]
        if self._faded:
            cells = np.where((inside[0][:, None] & inside[1][None, :])[..., None], cells, 0)
        return Part(cells, *found)

    @property
    def _faded(self) -> bool:
        """0 lies beyond a map, not its edge again. Where probabilities are interpolated the two are
        one, once normalised: between an edge cell and 0 all of them shrink alike."""
        grid = self.task.grid
        return self._kernel is not None or (grid.border == "zero" and grid.interpolate == "logits")

    def _combined(self, kernel: jax.Array | None, parts: tuple[Part, ...]) -> jax.Array:
        """Log-probabilities of a block, float32 [block, block, classes]."""
        self._traces += 1
        return self._total(kernel, parts)

    def _decided(
        self, kernel: jax.Array | None, parts: tuple[Part, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """The likeliest class of a block's pixels, and its probability: [block, block]."""
        self._traces += 1
        total = self._total(kernel, parts)
        return total.argmax(-1), jnp.exp(total.max(-1))

    def _total(self, kernel: jax.Array | None, parts: tuple[Part, ...]) -> jax.Array:
        seen = jax.vmap(functools.partial(self._seen, kernel))
        mean = sum(seen(part).mean(0) for part in parts) / len(parts)
        if self.scales.combine == "probabilities":
            mean = jnp.log(jnp.maximum(mean, jnp.finfo(jnp.float32).tiny))
        return jax.nn.log_softmax(mean)

    def _seen(self, kernel: jax.Array | None, part: Part) -> jax.Array:
        """What one view says of a block: (log-)probabilities [block, block, classes]."""
        features = {"logits_2d": part.cells[None]}
        height, width = (n * self.task.output_stride for n in part.cells.shape[:2])
        if kernel is not None:
            layer = FixedUpsampling(self.task.output_stride)
            full: Any = layer.apply({"params": {"kernel": kernel}}, features["logits_2d"])
            features["pixel_logits"] = full
        pixels = self.task.pixel_scores(features, height, width)[0]
        normal = jax.nn.softmax if self.scales.combine == "probabilities" else jax.nn.log_softmax
        # As Pillow: along the rows first.
        x = resizing.mixed(normal(pixels), part.column_index, part.column_weight, 1)
        return resizing.mixed(x, part.row_index, part.row_weight, 0)


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) times `scale`, rounded down, at least 1."""
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    """uint8 [H, W, 3] by Pillow's bicubic to the size `scaled`.

    Raises: UserError for a size beyond all reason.
    """
    if scale == 1:
        return image
    height, width = scaled((image.shape[0], image.shape[1]), scale)
    if height * width > LARGEST:
        raise UserError(
            f"scale {scale:g} makes {height}x{width} pixels of an image of {image.shape[0]}x"
            f"{image.shape[1]}, more than {LARGEST:,}; use a smaller one"
        )
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
