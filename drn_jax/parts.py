"""What a configuration says of the network: built without its data set, of which only the classes'
number and the images' statistics matter."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from drn_jax import models
from drn_jax.config import Config, Model, SegmentationData
from drn_jax.errors import UserError
from drn_jax.models import AnyNetwork, OfImages
from drn_jax.models.context import ContextModule
from drn_jax.models.dilation import PUBLISHED
from drn_jax.models.inputs import Channels, Preprocess
from drn_jax.models.stages import output_stride
from drn_jax.tasks import Classification, Segmentation, Task
from drn_jax.training.sharding import MeshShape


@dataclass(frozen=True)
class Parts:
    """A network for images, and what goes before and behind it."""

    model: OfImages
    preprocess: Preprocess
    """From images to the network's input."""
    task: Task
    stride: int
    """Pixels of the image between neighbouring cells of the class map."""


def build(config: Config, classes: int, mean: Channels, std: Channels) -> Parts:
    """The parts of a run on images.

    Args:
      mean, std: of the training images, RGB in [0, 1]; the published dilated nets have a mean of
        their own.

    Raises: UserError for a network that takes maps, and as `models.create`.
    """
    settings = config.model
    cells = stride(settings)
    preprocess = models.preprocessing(
        settings.name,
        None if settings.name in PUBLISHED else mean,
        std,
        space=settings.space or None,
        **_family_options(settings),
    )
    if isinstance(config.data, SegmentationData):
        task = Segmentation(classes, cells, config.data.grid)
    else:
        task = Classification(classes)
    model = network(settings, classes, config.mesh)
    assert not isinstance(model, ContextModule), "`stride` refuses it"
    return Parts(model, preprocess, task, cells)


def stride(settings: Model) -> int:
    """Pixels of the image between neighbouring cells of the class map. Raises as `build`."""
    stages = models.table(settings.name, settings.width, **_family_options(settings))
    if not stages:
        raise UserError(
            f"config.model.name = {settings.name} takes maps: config.task must be context"
        )
    return output_stride(stages)


def network(settings: Model, classes: int, mesh: MeshShape = MeshShape()) -> AnyNetwork:
    """The network alone, or the context module, for devices that share the work so.

    Raises: UserError as `models.create`, and for Winograd's tiles where devices split rows.
    """
    convolution = settings.convolution
    if mesh.spatial != 1:  # -1: as many as are left.
        # Tiles begin at other rows than the devices' shares do.
        if convolution not in ("auto", "native"):
            raise UserError(
                f"config.model.convolution = {convolution} does not split rows over devices "
                f"(config.mesh.spatial = {mesh.spatial}): use auto or native"
            )
        convolution = "native"
    options = _family_options(settings)
    if any(stage.kind != "plain" for stage in models.table(settings.name, settings.width)):
        options["running_variance"] = settings.running_variance
    return models.create(
        settings.name,
        num_classes=classes,
        width=settings.width,
        dtype=jnp.dtype(settings.dtype),
        context=settings.context if settings.context.layers else None,
        head_std=settings.head_std or None,
        norm=settings.norm,
        remat=settings.remat,
        convolution=convolution,
        **options,
    )


def _family_options(model: Model) -> dict[str, Any]:
    """The options that only some networks have, where they are set."""
    options: dict[str, Any] = {"output_stride": model.output_stride, "variant": model.variant}
    options["padding"] = model.padding
    found = {name: value for name, value in options.items() if value}
    if model.dropout != Model.dropout:
        found["dropout"] = model.dropout
    if model.fc_channels != Model.fc_channels:
        found["fc_channels"] = model.fc_channels
    return found
