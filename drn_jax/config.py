"""The configuration of a run: every field, its type, its meaning, its default.

A file under `configs/` fills an `ml_collections.ConfigDict` with the fields that it decides and
ends in `return complete(config)`, which adds the defaults and so opens every field to
`--config.FIELD=VALUE`. `parse` turns the result into the typed `Config` that the programs use.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ml_collections import ConfigDict

from drn_jax.data.reading import Reading
from drn_jax.errors import UserError, nearest
from drn_jax.models.context import Context
from drn_jax.models.convolution import Method
from drn_jax.models.layers import Norm
from drn_jax.tasks.segmentation import Grid
from drn_jax.training.sharding import MeshShape


@dataclass(frozen=True)
class Model:
    """The network."""

    name: str
    """See `drn_jax.models.MODELS`."""
    width: float = 1.0
    """Factor on every channel count but the classifier's."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters and batch statistics stay float32."""
    output_stride: int = 0
    """32, 16, 8 or 4 for DRN-A; 0: the network's own."""
    variant: Literal["", "paper", "published_code"] = ""
    """DRN-A's rule of conversion, see `drn.drn_a`; "": the paper's."""
    running_variance: Literal["biased", "unbiased"] = "biased"
    """Fed to batch norm's running average: Flax's estimate or PyTorch's."""
    padding: Literal["", "none", "zero"] = ""
    """Of the VGG front end, see `vgg.front_end`; "": none."""
    dropout: float = 0.5
    """Of VGG's fc6 and fc7."""
    fc_channels: int = 4096
    """Outputs of VGG's fc6 and fc7, before `width`."""
    head_std: float = 0.0
    """Deviation with which the classifier is drawn; 0: the network's own, see `models.create`."""
    space: Literal["", "rgb", "bgr"] = ""
    """Of the network's input, see `inputs.Preprocess`; "": rgb, and bgr for VGG."""
    context: Context = Context(layers=0)
    """The context module behind the class map; of 0 layers, none but what a published net has."""
    norm: Norm = Norm()
    """By which statistics batch norm normalises in training."""
    remat: Literal["none", "level", "block"] = "none"
    """What the backward pass recomputes to save memory on GPUs and TPUs: the inside of every level,
    or of every residual block."""
    convolution: Method = "auto"
    """By which programs convolutions are computed, see `convolution.choose`."""


@dataclass(frozen=True)
class ClassificationData:
    """The data set and what is done to its images, for classification."""

    name: str
    """See `drn_jax.data.DATASETS`."""
    crop: int
    """Side of the square that the network sees, pixels."""
    resize: int
    """Shorter side of a validation image before its central crop, pixels."""
    dir: str = ""
    """Folder or zip of the data set; "" where it has a place of its own."""
    random_crop: bool = True
    """Cut training crops as torchvision's RandomResizedCrop; else treat training images like
    validation images."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """(least, greatest) share of the image's area in a random crop."""
    flip: bool = True
    """Mirror half of the training images."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Greatest change of brightness, contrast, saturation, hue; see `data.color.ColorJitter`."""
    lighting: float = 0.0
    """Deviation of the noise along the principal colours; see `data.color.Lighting`."""
    fast: bool = False
    """Augment with OpenCV, whose pixels differ a little; see `data.fast`."""
    held_out: int = 0
    """Training images that are not trained on, evenly spaced over the set: to choose the threshold
    of a localisation by."""


@dataclass(frozen=True)
class SegmentationData:
    """The data set and what is done to its images, for segmentation. Validation sees them whole."""

    name: str
    """See `drn_jax.data.DATASETS`."""
    crop: tuple[int, int]
    """(height, width) of a training crop, pixels."""
    dir: str = ""
    """Folder of the data set; "" where it has a place of its own."""
    rotate: int = 0
    """Greatest rotation of a training image, degrees."""
    scale: float = 1.0
    """Greatest enlargement of a training image; 1 over it is the greatest reduction."""
    flip: bool = True
    """Mirror half of the training images."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Greatest change of brightness, contrast, saturation, hue; see `data.color.ColorJitter`."""
    lighting: float = 0.0
    """Deviation of the noise along the principal colours; see `data.color.Lighting`."""
    fast: bool = False
    """Augment with OpenCV, whose pixels differ a little; see `data.fast`."""
    grid: Grid = Grid()
    """How the class map lies on the image."""


@dataclass(frozen=True)
class MapData:
    """The class maps that a trained front end makes of its own data set, for a context module. They
    are computed once, from whole images, and kept on disk."""

    front_end: str
    """The front end's working directory; its best checkpoint is taken."""
    crop: tuple[int, int] = (0, 0)
    """(height, width) of a training crop, cells; 0: the whole map, where all are of one size."""
    dir: str = ""
    """Folder of the data set, where it is no longer the one that the front end was trained on."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of the maps on disk."""
    grid: Grid = Grid()
    """How the class map lies on the image."""


@dataclass(frozen=True)
class Optimizer:
    """Stochastic gradient descent."""

    learning_rate: float
    """Before the schedule."""
    rule: Literal["pytorch", "caffe"] = "pytorch"
    """Where rate and decay enter, see `training.optim`."""
    momentum: float = 0.9
    """Share of the velocity that each step keeps."""
    weight_decay: float = 1e-4
    """On every parameter; by Caffe's rule on none called a bias."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""


@dataclass(frozen=True)
class ConstantSchedule:
    """The learning rate stays."""

    kind: Literal["constant"]


@dataclass(frozen=True)
class StepSchedule:
    """The learning rate falls every so many epochs, or updates."""

    kind: Literal["step"]
    epochs: int = 0
    """Between two falls; 0: counted in `steps`."""
    steps: int = 0
    """Updates between two falls; 0: counted in `epochs`."""
    factor: float = 0.1
    """At each fall."""


@dataclass(frozen=True)
class PolySchedule:
    """The learning rate falls as (1 - progress)^power."""

    kind: Literal["poly"]
    power: float = 0.9
    per_epoch: bool = False
    """Count progress in finished epochs, as fyu/drn does."""


@dataclass(frozen=True)
class Config:
    """A run."""

    name: str
    """Names the default working directory, runs/NAME."""
    task: Literal["classification", "segmentation", "context"]
    """The last: segmentation of a front end's maps by a context module alone."""
    model: Model
    data: ClassificationData | SegmentationData | MapData
    batch_size: int
    """Examples a step, over all devices."""
    optimizer: Optimizer
    schedule: ConstantSchedule | StepSchedule | PolySchedule
    epochs: int = 0
    """Passes over the training examples; 0: counted in `steps`."""
    steps: int = 0
    """Updates in all; 0: counted in `epochs`."""
    seed: int = 0
    """Of the initial weights, the order of the examples and the augmentation."""
    eval_batch_size: int = 0
    """Examples a validation step, over all devices; 0 means batch_size. No score depends on it."""
    eval_epochs: int = 1
    """Epochs between two validations, each with a checkpoint."""
    log_steps: int = 20
    """Steps between two rows in metrics.jsonl."""
    reading: Reading = Reading()
    """By whom examples are read, and how far ahead."""
    mesh: MeshShape = MeshShape()
    """How the devices share the work. But for rounding no result depends on it."""
    accumulate: int = 1
    """Parts that a step computes one after the other, so that only one has to fit into memory. Each
    part is normalised by statistics of its own; the gradient is that of the whole batch's loss."""
    ema: float = 0.0
    """Share that running averages of the parameters and batch statistics keep at each step, see
    `steps.averaged`; they are what is scored and what other runs start from. 0: none."""
    save_steps: int = 0
    """Steps between two checkpoints besides those of the validations; 0: none."""
    deterministic: bool = False
    """On GPUs, only operations that give the same bits every time, which may be slower. Others
    always do."""
    init_from: str = ""
    """Working directory of a run to take the weights from, of the front end where the network has a
    context module; "" starts with random ones."""
    init_context_from: str = ""
    """Working directory of a run to take the context module's weights from."""


BESIDE = ("reading", "mesh", "log_steps", "save_steps", "eval_batch_size", "deterministic")
"""Fields of a run on which, but for rounding, no result depends."""

DATA = {
    "classification": ClassificationData,
    "segmentation": SegmentationData,
    "context": MapData,
}
"""The fields of `data`, by task."""

SCHEDULES = {"constant": ConstantSchedule, "step": StepSchedule, "poly": PolySchedule}
"""The fields of `schedule`, by kind."""


def complete(config: ConfigDict) -> ConfigDict:
    """The configuration with a value for every field. Raises: UserError as `parse`."""
    return ConfigDict(dataclasses.asdict(parse(config)))


def check_variant(variant: str, known: Sequence[str]) -> None:
    """Raise UserError unless a configuration file has the variant."""
    if variant not in known:
        raise UserError(f"--config: unknown variant {variant!r}: {nearest(variant, known)}")


def parse(config: Mapping[str, Any] | ConfigDict) -> Config:
    """The typed configuration, checked.

    Raises: UserError, naming the field, for one that is missing, unknown, or of the wrong type, and
      for a number that can't be.
    """
    given = config.to_dict() if isinstance(config, ConfigDict) else config
    hints = typing.get_type_hints(Config)
    hints["data"] = _pick("config", given, "task", DATA)
    hints["schedule"] = _pick("config.schedule", given.get("schedule"), "kind", SCHEDULES)
    parsed = _fields(Config, "config", given, hints)
    for name in ("batch_size", "eval_epochs", "log_steps", "accumulate"):
        if getattr(parsed, name) < 1:
            raise UserError(f"config.{name} = {getattr(parsed, name)} must be at least 1")
    if parsed.save_steps < 0:
        raise UserError(f"config.save_steps = {parsed.save_steps} can't be negative")
    if not 0 <= parsed.ema < 1:
        raise UserError(f"config.ema = {parsed.ema} must be at least 0 and below 1")
    _one_of_two("config", parsed)
    _check_reading(parsed.reading)
    if not isinstance(parsed.data, MapData):
        _check_colors(parsed.data)
    if isinstance(parsed.schedule, StepSchedule):
        _one_of_two("config.schedule", parsed.schedule)
    return parsed


def _one_of_two(where: str, counted: Config | StepSchedule) -> None:
    """Raise UserError unless `epochs` or `steps` is given, and not both."""
    given = counted.epochs, counted.steps
    if min(given) < 0 or (given[0] > 0) == (given[1] > 0):
        raise UserError(
            f"{where}.epochs = {given[0]} and {where}.steps = {given[1]}: one must be at least 1, "
            "the other 0"
        )


def _check_reading(reading: Reading) -> None:
    for name, least in (("threads", 0), ("workers", 0), ("prefetch", 1)):
        if getattr(reading, name) < least:
            raise UserError(
                f"config.reading.{name} = {getattr(reading, name)} must be at least {least}"
            )


def _check_colors(data: ClassificationData | SegmentationData) -> None:
    if min(data.jitter) < 0 or data.jitter[3] > 0.5:
        raise UserError(
            f"config.data.jitter = {data.jitter}: none may be negative, nor the last, hue, above "
            "0.5, half the colour circle"
        )
    if data.lighting < 0:
        raise UserError(f"config.data.lighting = {data.lighting} can't be negative")


def changes(before: Any, now: Any, where: str = "config") -> list[str]:
    """Each field that differs between two configurations, in words."""
    if type(before) is not type(now) or not dataclasses.is_dataclass(now):
        return [] if before == now else [f"{where} was {before!r}, is {now!r}"]
    found = []
    for field in dataclasses.fields(now):
        values = getattr(before, field.name), getattr(now, field.name)
        found += changes(*values, f"{where}.{field.name}")
    return found


def _pick(where: str, group: Any, field: str, kinds: Mapping[str, Any]) -> Any:
    """The dataclass that the value of a field decides on."""
    if not isinstance(group, Mapping) or field not in group:
        raise UserError(f"the configuration lacks {where}.{field}")
    if group[field] not in kinds:
        raise UserError(
            f"{where}.{field} = {group[field]!r} is unknown: {nearest(str(group[field]), kinds)}"
        )
    return kinds[group[field]]


def _fields(kind: Any, where: str, given: Any, hints: Mapping[str, Any]) -> Any:
    """The dataclass `kind` filled from `given`, by the types in `hints`."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where} = {given!r} must be a group of fields: {', '.join(hints)}")
    for name in given:
        if name not in hints:
            raise UserError(f"unknown field {where}.{name}: {nearest(name, hints)}")
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in given:
            values[field.name] = _value(
                hints[field.name], f"{where}.{field.name}", given[field.name]
            )
        elif field.default is dataclasses.MISSING:
            raise UserError(f"the configuration lacks {where}.{field.name}")
    return kind(**values)


def _value(kind: Any, where: str, given: Any) -> Any:
    """`given` as a value of the type `kind`; whole numbers pass as floats, lists as tuples."""
    if dataclasses.is_dataclass(kind):
        return _fields(kind, where, given, typing.get_type_hints(kind))
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if given in parts:
            return given
        raise UserError(f"{where} = {given!r} is unknown: {nearest(str(given), parts)}")
    listed = typing.get_origin(kind) is tuple and isinstance(given, tuple | list)
    if listed and len(given) == len(parts):
        return tuple(_value(k, where, g) for k, g in zip(parts, given, strict=True))
    if kind is float and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    if type(given) is kind:
        return given
    wanted = str(kind) if parts else kind.__name__
    raise UserError(f"{where} = {given!r} must be {wanted}")
