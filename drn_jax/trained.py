"""A trained or converted network, ready to use without the data set that it learned from.

Beside the weights of a checkpoint stands what is known of the set: names and colours of the
classes, mean and deviation of the images (`known`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from drn_jax import experiment, parts
from drn_jax.config import Config, MapData, parse
from drn_jax.data.dataset import Dataset
from drn_jax.errors import UserError
from drn_jax.experiment import Experiment
from drn_jax.models import AnyNetwork, OfImages
from drn_jax.models.context import ContextModule
from drn_jax.models.dilation import ContextNetwork
from drn_jax.models.inputs import Channels, Preprocess
from drn_jax.models.network import Network
from drn_jax.report import pictures
from drn_jax.tasks import Segmentation, Task
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.sharding import placed
from drn_jax.training.steps import Variables
from drn_jax.trees import shapes

Colors = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Trained:
    """A network for images, and its weights."""

    config: Config
    """As it was trained."""
    step: int
    model: OfImages
    variables: Variables
    """What `model.apply` takes, whole on the first device of this process."""
    preprocess: Preprocess
    """From images to the network's input."""
    task: Task
    stride: int
    """Pixels of the image between neighbouring cells of the class map."""
    classes: tuple[str, ...]
    colors: np.ndarray
    """One colour a class, uint8 [classes, 3]."""
    digest: str
    """See `digest`."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By its checkpoint, on the validation images of training; none: it does not tell."""
    front_end: "Trained | None" = None
    """The front end that a context module was trained behind; `model` holds both."""


def load(
    workdir: str, checkpoint: str = "best", data_dir: str = "", config: Config | None = None
) -> Trained:
    """The network of a working directory, of train.py or converted.

    Args:
      checkpoint: best, latest, or a step.
      data_dir: where the data set lies now, for checkpoints of a version that did not save what is
        known of it, and of converted ones of unknown classes.
      config: in place of that which was trained with: of the same network, elsewhere changed.

    Raises: UserError if there is no such checkpoint, or a data set is needed and not there.
    """
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        step, scores = checkpoints.choose(checkpoint)
        meta = checkpoints.meta(step)
        config = config or parse(meta["config"])
        if isinstance(config.data, MapData):
            return _behind_front_end(config, config.data, checkpoints, step, data_dir, scores)
        if "mean" not in meta or data_dir:
            meta = known(_dataset(config, data_dir))
        classes, colors = tuple(meta["classes"]), meta["colors"]
        built = parts.build(config, len(classes), _channels(meta["mean"]), _channels(meta["std"]))
        variables = _variables(checkpoints, step, built.model, built.preprocess.margin)
    return Trained(
        config=config,
        step=step,
        model=built.model,
        variables=variables,
        preprocess=built.preprocess,
        task=built.task,
        stride=built.stride,
        classes=classes,
        colors=pictures.palette(len(classes), colors),
        digest=digest(variables),
        scores=scores or {},
    )


def of_run(run: Experiment, variables: Variables, step: int) -> Trained:
    """The network of a run on images. `variables`: whole on one device (`program.here`)."""
    classes = run.dataset.classes
    assert not isinstance(run.model, ContextModule), "of maps: see `load`"
    return Trained(
        config=run.config,
        step=step,
        model=run.model,
        variables=variables,
        preprocess=run.preprocess,
        task=run.task,
        stride=run.stride,
        classes=classes,
        colors=pictures.palette(len(classes), run.dataset.colors),
        digest=digest(variables),
    )


def known(dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint's metadata tell of a set, as JSON: `classes`, `colors` (RGB, or null),
    `mean` and `std`."""
    return described(dataset.classes, dataset.colors, dataset.mean, dataset.std)


def described(
    classes: tuple[str, ...], colors: Colors | None, mean: Channels, std: Channels
) -> dict[str, Any]:
    """As `known`, of its parts."""
    return {
        "classes": list(classes),
        "colors": None if colors is None else [list(color) for color in colors],
        "mean": list(mean),
        "std": list(std),
    }


def digest(variables: Variables) -> str:
    """SHA-256 over names, shapes and bytes of parameters and batch statistics: the same for the
    same network, wherever it is saved."""
    found = hashlib.sha256()
    trees = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    arrays = dict(zip(shapes(trees), jax.tree.leaves(trees), strict=True))
    for name in sorted(arrays):
        array = np.ascontiguousarray(jax.device_get(arrays[name]), "<f4")
        found.update(f"{name} {array.shape}\n".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _channels(values: Any) -> Channels:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _dataset(config: Config, data_dir: str) -> Dataset:
    """The set, read for what is known of it."""
    if data_dir:
        config = replace(config, data=replace(config.data, dir=data_dir))
    try:
        return experiment.build(config).dataset
    except UserError as error:
        raise UserError(
            f"this checkpoint does not tell its classes, so its data set is needed: {error}"
        ) from None


def _variables(checkpoints: Checkpoints, step: int, model: AnyNetwork, margin: int) -> Variables:
    """The weights, on the first device."""
    if isinstance(model, ContextModule):
        side = 1 + 2 * sum(stage.dilation for stage in model.table)
        inputs = jax.ShapeDtypeStruct((1, side, side, model.channels), jnp.float32)
    else:
        side = 2 * margin + _SIDE
        inputs = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    abstract = jax.eval_shape(model.init, jax.random.key(0), inputs)
    where = SingleDeviceSharding(jax.local_devices()[0])
    found = checkpoints.restore_variables(step, placed(abstract, where))
    return {name: found[name] for name in abstract}


_SIDE = 256
"""Of an image that every network takes, pixels."""


def _behind_front_end(
    config: Config,
    settings: MapData,
    checkpoints: Checkpoints,
    step: int,
    data_dir: str,
    scores: Mapping[str, float] | None,
) -> Trained:
    """A context module and the front end whose maps it was trained on, as one network."""
    if not settings.front_end:
        raise UserError(
            f"{checkpoints.directory.parent} holds a context module alone, for the maps of a front "
            "end that it does not name: predict with a network of both"
        )
    front = load(settings.front_end, data_dir=data_dir or settings.dir)
    module = parts.network(config.model, len(front.classes), config.mesh)
    if not isinstance(front.model, Network) or not isinstance(module, ContextModule):
        raise UserError(f"{settings.front_end}: is no front end, but has a context module itself")
    of_module = _variables(checkpoints, step, module, 0)
    variables: Mapping[str, Any] = {
        name: {
            part: of_part[name]
            for part, of_part in (("front_end", front.variables), ("context", of_module))
            if name in of_part
        }
        for name in front.variables
    }
    return replace(
        front,
        config=config,
        step=step,
        model=ContextNetwork(front.model, module),
        variables=variables,
        task=Segmentation(len(front.classes), front.stride, settings.grid),
        digest=digest(variables),
        scores=scores or {},
        front_end=front,
    )
