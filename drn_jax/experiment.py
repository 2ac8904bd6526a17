"""What a configuration describes, built: the data set, the task, the network, the batches."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from drn_jax import augmentation, data, front_end_maps, models, parts, places
from drn_jax.analysis import cost, price, receptive_field
from drn_jax.analysis.cost import StageCost
from drn_jax.analysis.price import Price
from drn_jax.analysis.receptive_field import Row
from drn_jax.config import ClassificationData, Config, MapData, SegmentationData, parse
from drn_jax.data import loader, transforms
from drn_jax.data.dataset import Dataset, Example, Source, evenly, without
from drn_jax.errors import UserError
from drn_jax.models import AnyNetwork
from drn_jax.models.dilation import PUBLISHED
from drn_jax.models.inputs import Preprocess
from drn_jax.models.network import Network
from drn_jax.models.stages import output_stride
from drn_jax.tasks import Segmentation, Task
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.sharding import WHOLE, Share, placed
from drn_jax.training.steps import Batch


@dataclass(frozen=True)
class Experiment:
    """All that train.py and eval.py share."""

    config: Config
    dataset: Dataset
    task: Task
    model: AnyNetwork
    augment: loader.Augment
    """Of training examples."""
    preprocess: Preprocess
    """From images to the network's input; a context module takes maps as they are."""
    stride: int
    """Pixels of the image between neighbouring cells of the class map."""
    crop: tuple[int, int]
    """(height, width) of a training image, pixels, without margin."""
    input_shape: tuple[int, int, int]
    """(height, width, channels) of what the network receives in training."""
    keys: tuple[str, str]
    """What a batch holds: the image or the map, and the task's labels."""
    pictures: Source
    """The validation images, to be shown."""

    @property
    def title(self) -> str:
        """The network in words."""
        settings = self.config.model
        context = settings.context
        module = f"context module of {context.layers} layers, {context.size}, from {context.init}"
        if not models.table(settings.name):
            return module
        alone = f"{settings.name}, width {settings.width:g}"
        return f"{alone}, with a {module}" if context.layers else alone

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training set."""
        return len(self.dataset.train) // self.config.batch_size

    @property
    def total_steps(self) -> int:
        """Updates in the whole run."""
        return self.config.steps or self.config.epochs * self.steps_per_epoch

    @property
    def costs(self) -> tuple[StageCost, ...]:
        """Of every row of the network, for one training input."""
        height, width, channels = self.input_shape
        pooled = self.config.task == "classification" and isinstance(self.model, Network)
        itemsize = jnp.dtype(self.config.model.dtype).itemsize
        rows = models.rows_of(self.model)
        return cost.of(rows, height, width, pooled=pooled, inputs=channels, itemsize=itemsize)

    @property
    def fields(self) -> tuple[Row, ...]:
        """The receptive field of every row of the network."""
        return receptive_field.of_stages(models.rows_of(self.model))

    @property
    def price(self) -> Price:
        """Of the whole network, for one training input."""
        return price.of(self.costs, self.fields, *self.input_shape[:2])

    @property
    def places(self) -> str:
        """What the network's input has, in words."""
        return "cells" if isinstance(self.config.data, MapData) else "pixels"

    def training_inputs(self, batch: Batch) -> jax.Array:
        """The network's input: a crop for segmentation brings its surroundings."""
        return self._inputs(batch, surrounded=isinstance(self.config.data, SegmentationData))

    def inputs(self, batch: Batch) -> jax.Array:
        """The network's input for whole images, or maps."""
        return self._inputs(batch, surrounded=False)

    def _inputs(self, batch: Batch, surrounded: bool) -> jax.Array:
        if "map" in batch:
            return batch["map"].astype(jnp.float32)
        return self.preprocess(batch["image"], surrounded)

    @property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a whole training batch."""
        count, (height, width) = self.config.batch_size, self.crop
        if isinstance(self.config.data, MapData):
            inputs = np.dtype(self.config.data.dtype)
        else:
            inputs = np.dtype(np.uint8)
        shapes = {
            self.keys[0]: ((count, *self.input_shape), inputs),
            "mask": ((count, height, width), np.dtype(np.uint8)),
            "label": ((count,), np.dtype(np.int32)),
        }
        return {key: jax.ShapeDtypeStruct(*shapes[key]) for key in self.keys}

    def training_batches(
        self, start_step: int, share: Share = WHOLE
    ) -> Iterator[dict[str, np.ndarray]]:
        """Endless augmented batches from a step on, this process's share of them; see
        `loader.training_batches`."""
        return loader.training_batches(
            self.dataset.train,
            self.keys,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            augment=self.augment,
            start_step=start_step,
            host=share.host,
            hosts=share.hosts,
            reading=self.config.reading,
        )

    def validation_batches(
        self, batch_size: int, share: Share = WHOLE
    ) -> Iterator[dict[str, np.ndarray]]:
        """Every validation example once, this process's share of them; see
        `loader.evaluation_batches`."""
        whole = not isinstance(self.config.data, ClassificationData)
        return loader.evaluation_batches(
            self.dataset.validation,
            self.keys,
            batch_size=batch_size,
            transform=self.prepare,
            sizes=self.dataset.validation_sizes() if whole else None,
            host=share.host,
            hosts=share.hosts,
            reading=self.config.reading,
        )

    def prepare(self, example: Example) -> Example:
        """A validation example as the network sees it: whole, or resized and cropped."""
        settings = self.config.data
        if not isinstance(settings, ClassificationData):
            return example
        example = transforms.ResizeShorterSide(settings.resize)(example)
        return transforms.CentreCrop(settings.crop)(example)


def build(config: Config, boxes: bool = False) -> Experiment:
    """Read the data set, with its boxes if asked for, and describe the network. Nothing is written
    but what is kept beside data: embedded sets when they are first used, a front end's maps.

    Raises: UserError for whatever the configuration asks that can't be.
    """
    _check_context(config)
    if isinstance(config.data, MapData):
        return _build_context(config, config.data)
    crop, stride = _crop(config.data), parts.stride(config.model)
    if min(crop) < stride:
        raise UserError(
            f"config.data.crop = {config.data.crop}: {config.model.name} needs at least {stride} "
            "pixels a side, one cell of its class map"
        )
    dataset = data.load(config.data.name, config.data.dir, config.task, boxes)
    if isinstance(config.data, ClassificationData):
        dataset = _hold_out(dataset, config.data.held_out)
    _check_batch_size(config, dataset)
    built = parts.build(config, len(dataset.classes), dataset.mean, dataset.std)
    margin = built.preprocess.margin
    height, width = (side + 2 * margin for side in crop)
    return Experiment(
        config=config,
        dataset=dataset,
        task=built.task,
        model=built.model,
        augment=augmentation.build(config.data, margin, stride),
        preprocess=built.preprocess,
        stride=stride,
        crop=crop,
        input_shape=(height, width, 3),
        keys=("image", "mask" if isinstance(config.data, SegmentationData) else "label"),
        pictures=dataset.validation,
    )


def _hold_out(dataset: Dataset, count: int) -> Dataset:
    """The set with so many fewer training examples."""
    if not count:
        return dataset
    if not 0 < count < len(dataset.train):
        raise UserError(
            f"config.data.held_out = {count}: must be at least 0 and below the "
            f"{len(dataset.train)} training examples of {dataset.name}"
        )
    part = evenly(dataset.train, count)
    return replace(dataset, train=without(dataset.train, part), held_out=part)


def _build_context(config: Config, settings: MapData) -> Experiment:
    """The experiment of a context module on the maps of a trained front end."""
    if min(settings.crop) < 0:
        raise UserError(f"config.data.crop = {settings.crop}: cells can't be negative")
    front, variables = _front_end(settings)
    stride = output_stride(front.model.stages)
    network = dataclasses.asdict(front.config.model)
    trained_only = ("norm", "remat", "convolution")  # But for rounding no map depends on them.
    described = {
        "model": {name: value for name, value in network.items() if name not in trained_only},
        "preprocess": dataclasses.asdict(front.preprocess),
    }
    _check_batch_size(config, front.dataset)
    model = parts.network(config.model, len(front.dataset.classes), config.mesh)
    if models.table(config.model.name):
        raise UserError(
            f"config.model.name = {config.model.name}: config.task = context trains a context "
            "module alone; use the name context"
        )
    whole = not all(settings.crop)
    if whole and front.dataset.train_sizes():
        raise UserError(
            'the training images differ in size: give --config.data.crop="(HEIGHT, WIDTH)", '
            f"in cells of {stride} pixels"
        )
    maps = front_end_maps.cached(
        front_end_maps.FrontEnd(front.model, variables, front.inputs, described),
        front.dataset,
        places.join(settings.front_end, "maps"),
        settings.dtype,
        front.config.eval_batch_size or front.config.batch_size,
    )
    height, width = settings.crop
    if whole:
        height, width = maps.train[0]["map"].shape[:2]
    return Experiment(
        config=config,
        dataset=maps,
        task=Segmentation(len(maps.classes), stride, settings.grid),
        model=model,
        augment=augmentation.build(settings, 0, stride),
        preprocess=Preprocess(maps.mean, maps.std),
        stride=stride,
        crop=(height * stride, width * stride),
        input_shape=(height, width, len(maps.classes)),
        keys=("map", "mask"),
        pictures=front.dataset.validation,
    )


def _check_context(config: Config) -> None:
    """Raise UserError for what no context module can do here."""
    both = config.model.context.layers or config.model.name in PUBLISHED
    if config.init_context_from and (isinstance(config.data, MapData) or not both):
        raise UserError(
            "config.init_context_from is for a network with a context module behind a front end: "
            "a module alone starts from --config.init_from"
        )
    if config.model.context.layers and config.model.context.padding == "none":
        raise UserError(
            "config.model.context.padding = none: the refined map would no longer cover the image; "
            "use layer, once or mirror"
        )


def _front_end(settings: MapData) -> tuple[Experiment, dict[str, Any]]:
    """The front end's experiment, and its best weights."""
    if not settings.front_end:
        raise UserError("give --config.data.front_end=WORKDIR, the run of a trained front end")
    try:
        checkpoints = Checkpoints(settings.front_end, must_exist=True)
    except UserError as error:
        raise UserError(f"config.data.front_end: {error}") from None
    with checkpoints:
        best = checkpoints.choose("best")
        config = parse(checkpoints.meta(best.step)["config"])
        if not isinstance(config.data, SegmentationData):
            raise UserError(
                f"config.data.front_end: {settings.front_end} is no segmentation run of images but "
                f"one of {config.task}"
            )
        if settings.dir:
            config = replace(config, data=replace(config.data, dir=settings.dir))
        front = build(config)
        shape = jax.ShapeDtypeStruct((1, *front.input_shape), jnp.float32)
        abstract = jax.eval_shape(front.model.init, jax.random.key(0), shape)
        where = SingleDeviceSharding(jax.local_devices()[0])
        return front, checkpoints.restore_variables(best.step, placed(abstract, where))


def _check_batch_size(config: Config, dataset: Dataset) -> None:
    if len(dataset.train) < config.batch_size:
        raise UserError(
            f"config.batch_size = {config.batch_size} exceeds the {len(dataset.train)} training "
            f"examples of {dataset.name}"
        )


def _crop(settings: ClassificationData | SegmentationData) -> tuple[int, int]:
    if isinstance(settings, SegmentationData):
        return settings.crop
    if settings.resize < settings.crop:
        raise UserError(
            f"config.data.crop = {settings.crop} is larger than a validation image, whose "
            f"shorter side becomes config.data.resize = {settings.resize}"
        )
    return settings.crop, settings.crop
