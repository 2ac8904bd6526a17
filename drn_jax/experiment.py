"""What a configuration describes, built: the data set, the task, the network, the batches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from drn_jax import config as fields
from drn_jax import data, models
from drn_jax.data import loader, transforms
from drn_jax.data.dataset import Dataset, Example
from drn_jax.errors import UserError
from drn_jax.models.resnet import ResidualNetwork
from drn_jax.models.stages import output_stride
from drn_jax.tasks import Classification, Segmentation, Task


@dataclass(frozen=True)
class Experiment:
    """All that train.py and eval.py share."""

    config: ConfigDict
    dataset: Dataset
    task: Task
    model: ResidualNetwork
    crop: tuple[int, int]
    """(height, width) of a training image."""
    keys: tuple[str, str]
    """What a batch holds: the image, and the task's labels."""

    @property
    def steps_per_epoch(self) -> int:
        return len(self.dataset.train) // self.config.batch_size

    def training_batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Endless augmented batches from a step on; see `loader.training_batches`."""
        return loader.training_batches(
            self.dataset.train,
            self.keys,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            augment=_augment(self.config),
            start_step=start_step,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )

    def validation_batches(self, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        """Every validation example once; see `loader.evaluation_batches`."""
        whole = self.config.task == "segmentation"
        return loader.evaluation_batches(
            self.dataset.validation,
            self.keys,
            batch_size=batch_size,
            transform=self.prepare,
            sizes=self.dataset.validation_sizes if whole else None,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )

    def prepare(self, example: Example) -> Example:
        """A validation example as the network sees it: whole, or resized and cropped."""
        if self.config.task == "segmentation":
            return example
        example = transforms.ResizeShorterSide(self.config.data.resize)(example)
        return transforms.CentreCrop(self.config.data.crop)(example)


def build(config: ConfigDict) -> Experiment:
    """Read the data set and make the network; nothing is written.

    Raises: UserError for whatever the configuration asks that can't be.
    """
    fields.check(config)
    crop = _crop(config)
    dataset = data.load(config.data.name, config.data.dir, config.task)
    if len(dataset.train) < config.batch_size:
        raise UserError(
            f"config.batch_size = {config.batch_size} exceeds the {len(dataset.train)} training "
            f"examples of {dataset.name}"
        )
    options = dict(config.model)
    model = models.create(
        options.pop("name"),
        num_classes=len(dataset.classes),
        width=options.pop("width"),
        dtype=jnp.dtype(options.pop("dtype")),
        **options,
    )
    stride = output_stride(model.stages)
    if min(crop) < stride:
        raise UserError(
            f"config.data.crop = {config.data.crop}: {config.model.name} needs at least {stride} "
            "pixels a side, one cell of its class map"
        )
    task: Task
    if config.task == "classification":
        task = Classification(len(dataset.classes))
    else:
        task = Segmentation(len(dataset.classes), stride, config.data.border)
    label = "label" if config.task == "classification" else "mask"
    return Experiment(config, dataset, task, model, crop, ("image", label))


def _crop(config: ConfigDict) -> tuple[int, int]:
    if config.task == "classification":
        side = config.data.crop
        if config.data.resize < side:
            raise UserError(
                f"config.data.crop = {side} is larger than the resized validation image: raise "
                f"config.data.resize = {config.data.resize}"
            )
        return side, side
    crop = tuple(config.data.crop)
    if len(crop) != 2:
        raise UserError(f"config.data.crop = {crop} must be (height, width)")
    return crop


def _augment(config: ConfigDict) -> loader.Augment:
    settings = config.data
    flip = (transforms.RandomFlip(),) if settings.flip else ()
    if config.task == "segmentation":
        steps = (
            *((transforms.RandomRotate(settings.rotate),) if settings.rotate else ()),
            *((transforms.RandomScale(settings.scale),) if settings.scale != 1 else ()),
            transforms.RandomCrop(tuple(settings.crop)),
        )
    elif settings.crop_area:
        steps = (transforms.RandomResizedCrop(settings.crop, scale=tuple(settings.crop_area)),)
    else:
        steps = (
            transforms.ResizeShorterSide(settings.resize),
            transforms.CentreCrop(settings.crop),
        )
    return transforms.Compose((*steps, *flip))


def changes(before: Mapping[str, Any], now: ConfigDict, prefix: str = "config") -> list[str]:
    """Each field that differs between a saved configuration and this one, in words."""
    found = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping | ConfigDict):
            found += changes(old, new, f"{prefix}.{name}")
        elif old != (list(new) if isinstance(new, tuple) else new):
            found.append(f"{prefix}.{name} was {old!r}, is {new!r}")
    return found
