"""What a configuration describes, built: the data set, the task, the network, the batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drn_jax import data, models
from drn_jax.config import ClassificationData, Config, Model, SegmentationData
from drn_jax.data import loader, transforms
from drn_jax.data.dataset import Dataset, Example
from drn_jax.errors import UserError
from drn_jax.models.resnet import ResidualNetwork
from drn_jax.models.stages import output_stride
from drn_jax.tasks import Classification, Segmentation, Task


@dataclass(frozen=True)
class Experiment:
    """All that train.py and eval.py share."""

    config: Config
    dataset: Dataset
    task: Task
    model: ResidualNetwork
    crop: tuple[int, int]
    """(height, width) of a training image."""
    keys: tuple[str, str]
    """What a batch holds: the image, and the task's labels."""

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set."""
        return len(self.dataset.train) // self.config.batch_size

    def training_batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Endless augmented batches from a step on; see `loader.training_batches`."""
        return loader.training_batches(
            self.dataset.train,
            self.keys,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            augment=_augment(self.config.data),
            start_step=start_step,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )

    def validation_batches(self, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        """Every validation example once; see `loader.evaluation_batches`."""
        whole = isinstance(self.config.data, SegmentationData)
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
        settings = self.config.data
        if isinstance(settings, SegmentationData):
            return example
        example = transforms.ResizeShorterSide(settings.resize)(example)
        return transforms.CentreCrop(settings.crop)(example)


def build(config: Config) -> Experiment:
    """Read the data set and describe the network; nothing is written.

    Raises: UserError for whatever the configuration asks that can't be.
    """
    crop = _crop(config.data)
    family = _family_options(config.model)
    stride = output_stride(models.table(config.model.name, config.model.width, **family))
    if min(crop) < stride:
        raise UserError(
            f"config.data.crop = {config.data.crop}: {config.model.name} needs at least {stride} "
            "pixels a side, one cell of its class map"
        )
    dataset = data.load(config.data.name, config.data.dir, config.task)
    if len(dataset.train) < config.batch_size:
        raise UserError(
            f"config.batch_size = {config.batch_size} exceeds the {len(dataset.train)} training "
            f"examples of {dataset.name}"
        )
    classes = len(dataset.classes)
    model = models.create(
        config.model.name,
        num_classes=classes,
        width=config.model.width,
        dtype=jnp.dtype(config.model.dtype),
        running_variance=config.model.running_variance,
        **family,
    )
    if isinstance(config.data, SegmentationData):
        task, label = Segmentation(classes, stride, config.data.border), "mask"
    else:
        task, label = Classification(classes), "label"
    return Experiment(config, dataset, task, model, crop, ("image", label))


def _family_options(model: Model) -> dict[str, Any]:
    """The options that only some networks have, where they are set."""
    options = {"output_stride": model.output_stride, "variant": model.variant}
    return {name: value for name, value in options.items() if value}


def _crop(settings: ClassificationData | SegmentationData) -> tuple[int, int]:
    if isinstance(settings, SegmentationData):
        return settings.crop
    if settings.resize < settings.crop:
        raise UserError(
            f"config.data.crop = {settings.crop} is larger than a validation image, whose "
            f"shorter side becomes config.data.resize = {settings.resize}"
        )
    return settings.crop, settings.crop


def _augment(settings: ClassificationData | SegmentationData) -> loader.Augment:
    steps: list[transforms.Transform] = []
    if isinstance(settings, SegmentationData):
        if settings.rotate:
            steps.append(transforms.RandomRotate(settings.rotate))
        if settings.scale != 1:
            steps.append(transforms.RandomScale(settings.scale))
        steps.append(transforms.RandomCrop(settings.crop))
    elif settings.random_crop:
        steps.append(transforms.RandomResizedCrop(settings.crop, scale=settings.crop_area))
    else:
        steps.append(transforms.ResizeShorterSide(settings.resize))
        steps.append(transforms.CentreCrop(settings.crop))
    if settings.flip:
        steps.append(transforms.RandomFlip())
    return transforms.Compose(tuple(steps))
