"""Classification as published: one centre crop of the resized image, or ten (DRN paper, 5.1).

Ten crops are the corners and the centre of the image and of its mirror image, in the order of
torchvision's TenCrop. The paper averages predictions over them and does not say of which kind: the
mean is over probabilities, or over logits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from drn_jax.config import ClassificationData
from drn_jax.data import loader
from drn_jax.data.dataset import Example, Source
from drn_jax.data.transforms import CentreCrop, ResizeShorterSide, flipped
from drn_jax.errors import UserError
from drn_jax.experiment import Experiment
from drn_jax.training import evaluate as training
from drn_jax.training import sharding
from drn_jax.training.steps import Variables

Average = Literal["softmax", "logits"]


@dataclass(frozen=True)
class Crops:
    """What of an image a classifier sees."""

    resize: int = 256
    """The shorter side that the image is resized to, pixels."""
    crop: int = 224
    """Side of the square crops, pixels."""
    count: Literal[1, 10] = 1
    average: Average = "softmax"
    """What is averaged over the crops."""

    @property
    def centre(self) -> int:
        """Which of the crops is the centre of the image that is not mirrored."""
        return 0 if self.count == 1 else 4

    def check(self) -> None:
        """Raise UserError for crops that can't be."""
        if self.count not in (1, 10):
            raise UserError(f"crops: count = {self.count} must be 1 or 10")
        if self.average not in get_args(Average):
            raise UserError(f"crops: average = {self.average!r} must be softmax or logits")
        if self.crop < 1:
            raise UserError(f"crops: crop = {self.crop} pixels; it must be 1 or more")
        if self.resize < self.crop:
            raise UserError(
                f"crops: crop = {self.crop} is larger than the resized image, whose shorter side "
                f"is resize = {self.resize}; use a crop of at most that"
            )


class Geometry(NamedTuple):
    """Where crops lie in their images: arrays of a number or pair each, [N] and [N, 2].

    Pairs are (height, width) or (top, left), float32.
    """

    offset: Any
    """[N, 2]: of the crop's upper left, pixels of the resized image as it was cropped: mirrored."""
    mirrored: Any
    """bool [N]: whether the resized image was mirrored left and right before."""
    size: Any
    """[N, 2]: of the crop, pixels."""
    resized: Any
    """[N, 2]: of the resized image, pixels."""
    original: Any
    """[N, 2]: of the image, pixels."""

    def to_image(self, boxes: jax.Array) -> jax.Array:
        """Boxes [N, ..., 4] in pixel edges of the crops -> of the original images."""

        def of_each(values: Any) -> jax.Array:
            return jnp.reshape(values, (len(boxes),) + (1,) * (boxes.ndim - 2))

        (top, left), (tall, wide) = (
            (of_each(pair[:, 0]), of_each(pair[:, 1]))
            for pair in (self.offset, self.original / self.resized)
        )
        x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
        width, mirrored = of_each(self.resized[:, 1]), of_each(self.mirrored)
        x1, x2 = left + x1, left + x2
        x1, x2 = jnp.where(mirrored, width - x2, x1), jnp.where(mirrored, width - x1, x2)
        return jnp.stack([x1 * wide, (top + y1) * tall, x2 * wide, (top + y2) * tall], -1)


def ten_crops(image: np.ndarray, size: int) -> np.ndarray:
    """Ten squares of an image uint8 [H, W, 3]: uint8 [10, size, size, 3].

    Upper left, upper right, lower left, lower right, centre; then the same of the mirror image, as
    torchvision's TenCrop. The centre is `transforms.CentreCrop`.

    Raises: UserError for an image smaller than a crop.
    """
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise UserError(f"an image of {height}x{width} has no crops of {size}x{size}: resize it")
    places = _offsets(height, width, size)[:4]
    crops = []
    for view in (image, flipped(image)):
        crops += [view[top : top + size, left : left + size] for top, left in places]
        crops.append(CentreCrop(size)({"image": view})["image"])
    return np.stack(crops)


def _offsets(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """(top, left) of the four corners and the centre, which rounds half to even as `CentreCrop`."""
    below, right = height - size, width - size
    return [(0, 0), (0, right), (below, 0), (below, right), (round(below / 2), round(right / 2))]


def cropped(image: np.ndarray, crops: Crops) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """An image uint8 [H, W, 3] resized, its crops uint8 [count, crop, crop, 3], and where they lie,
    an entry of `Geometry` each."""
    resized = ResizeShorterSide(crops.resize)({"image": image})["image"]
    height, width = resized.shape[:2]
    offsets = _offsets(height, width, crops.crop)
    if crops.count == 1:
        views = CentreCrop(crops.crop)({"image": resized})["image"][None]
        offsets = offsets[4:]
    else:
        views = ten_crops(resized, crops.crop)
        offsets = 2 * offsets
    mirrored = np.arange(crops.count) >= 5
    return resized, views, located(image, resized, (crops.crop, crops.crop), offsets, mirrored)


def located(
    image: np.ndarray,
    resized: np.ndarray,
    size: tuple[int, int],
    offsets: list[tuple[int, int]],
    mirrored: np.ndarray,
) -> Geometry:
    """The geometry of crops of one size at `offsets`; `mirrored` bool [N]."""

    def of_all(pair: tuple[int, ...]) -> np.ndarray:
        return np.tile(np.array(pair, np.float32), (len(offsets), 1))

    return Geometry(
        np.array(offsets, np.float32),
        mirrored,
        of_all(size),
        of_all(resized.shape[:2]),
        of_all(image.shape[:2]),
    )


def averaged(logits: jax.Array, average: Average) -> jax.Array:
    """What all crops of an image say together: logits [N, K, C] -> [N, C].

    The logarithm of the mean probability, or the mean logit: either way its softmax is the
    prediction. One crop's logits stay as they are.
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    if average == "logits":
        return logits.mean(1)
    log_p = jax.nn.log_softmax(logits)
    return jax.nn.logsumexp(log_p, axis=1) - jnp.log(float(logits.shape[1]))


def outputs(
    run: Experiment, mesh: Mesh, variables: Variables, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Of crops uint8 [N, K, H, W, 3] the logits [N, K, C] and the class maps [N, K, h, w, C].

    For use under jit. Crops count as examples, of which every device takes some.
    """
    count, views = images.shape[:2]
    folded = images.reshape(-1, *images.shape[2:])
    where = sharding.of_batch(mesh, folded.shape, run.stride)
    folded = jax.lax.with_sharding_constraint(folded, where)
    # As in training: parameters that are split are gathered before they are used.
    whole = jax.lax.with_sharding_constraint(variables, sharding.replicated(mesh))
    found: Any = run.model.apply(whole, run.inputs({"image": folded}), train=False)
    logits, features = found

    def unfold(values: jax.Array) -> jax.Array:
        return values.reshape(count, views, *values.shape[1:])

    return unfold(logits), unfold(features["logits_2d"])


def evaluate(
    run: Experiment,
    variables: Variables,
    mesh: Mesh,
    crops: Crops,
    source: Source | None = None,
) -> training.Totals:
    """The task's totals over the validation images, or over another source's; those of
    `program.validator` for one crop as in training.

    Raises: UserError if the run is no classification, or for crops that can't be.
    """
    check(run, crops)

    def eval_step(variables: Variables, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        logits, _ = outputs(run, mesh, variables, batch["image"])
        return run.task.sums(averaged(logits, crops.average), {}, batch)

    return training.evaluate(
        jax.jit(eval_step, out_shardings=sharding.replicated(mesh)),
        variables,
        batches(
            run,
            mesh,
            crops,
            run.dataset.validation if source is None else source,
            ("image", "label"),
            partial(_example, crops),
        ),
        to_devices(run, mesh),
    )


def check(run: Experiment, crops: Crops) -> None:
    """Raise UserError if the run is no classification, or for crops that can't be."""
    if not isinstance(run.config.data, ClassificationData):
        raise UserError(
            f"config.task = {run.config.task}: crops are for classification; use eval.py for this"
        )
    crops.check()


def batches(
    run: Experiment,
    mesh: Mesh,
    crops: Crops,
    source: Source,
    keys: tuple[str, ...],
    transform: loader.Transform,
    sizes: tuple[tuple[int, int], ...] | None = None,
) -> Any:
    """Every example once, this process's share of them; see `loader.evaluation_batches`. Ten crops
    are as many images for the network, so a batch has a tenth of the examples."""
    share = sharding.share(mesh)
    size = (run.config.eval_batch_size or run.config.batch_size) // crops.count
    return loader.evaluation_batches(
        source,
        keys,
        batch_size=sharding.round_up(size, mesh),
        transform=transform,
        sizes=sizes,
        host=share.host,
        hosts=share.hosts,
        reading=run.config.reading,
    )


def to_devices(
    run: Experiment, mesh: Mesh
) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]:
    """Puts a batch onto the mesh."""
    return partial(sharding.to_devices, mesh=mesh, stride=run.stride)


def _example(crops: Crops, example: Example) -> Example:
    _, views, _ = cropped(example["image"], crops)
    return {"image": views, "label": example["label"]}
