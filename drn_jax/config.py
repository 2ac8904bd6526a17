"""The fields of a configuration: what each means, and the check that none is missing or unknown.

A file under `configs/` returns an `ml_collections.ConfigDict` with exactly these fields; those of
`data` and `schedule` depend on the task and on the kind.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from drn_jax.errors import UserError, nearest

Fields = Mapping[str, str]

TOP: Fields = {
    "name": "names the default working directory, runs/NAME",
    "task": "'classification' or 'segmentation'",
    "seed": "of the initial weights, the order of examples and the augmentation",
    "model": "the network",
    "data": "the data set and what is done to its images",
    "batch_size": "examples a step, over all devices",
    "eval_batch_size": "examples a validation step, over all devices; no score depends on it",
    "epochs": "passes over the training examples",
    "eval_epochs": "epochs between two validations, each with a checkpoint",
    "log_steps": "steps between two rows in metrics.jsonl",
    "optimizer": "PyTorch's SGD",
    "schedule": "of the learning rate",
    "init_from": "working directory to take weights from; '' for a fresh start",
}
MODEL: Fields = {
    "name": "see drn_jax.models.MODELS",
    "width": "factor on every channel count but the classifier's",
    "dtype": "of the computation: 'float32' or 'bfloat16'",
    "running_variance": "fed to batch norm's average: 'biased' (Flax) or 'unbiased' (PyTorch)",
}
DATA: Mapping[str, Fields] = {
    "classification": {
        "name": "see drn_jax.data.DATASETS",
        "dir": "folder or zip of the data set; '' where it has a place of its own",
        "crop": "side of the square that the network sees, pixels",
        "resize": "shorter side of a validation image before its central crop, pixels",
        "crop_area": "(least, greatest) share of the image that a training crop covers, as in "
        "RandomResizedCrop; () treats training images like validation images",
        "flip": "mirror half of the training images",
    },
    "segmentation": {
        "name": "see drn_jax.data.DATASETS",
        "dir": "folder of the data set; '' where it has a place of its own",
        "crop": "(height, width) of a training crop, pixels; validation sees whole images",
        "rotate": "greatest rotation of a training image, degrees",
        "scale": "greatest enlargement of a training image, and one over its greatest reduction",
        "flip": "mirror half of the training images",
        "border": "beyond the class map when it is upsampled: 'clamp' or 'zero' (fyu/drn)",
    },
}
OPTIMIZER: Fields = {
    "learning_rate": "before the schedule",
    "momentum": "share of the velocity kept each step",
    "weight_decay": "on every parameter",
    "warmup_steps": "steps of linear warm-up",
}
SCHEDULE: Mapping[str, Fields] = {
    "step": {
        "kind": "'step'",
        "step_epochs": "epochs between two falls",
        "step_factor": "factor at each fall",
    },
    "poly": {
        "kind": "'poly'",
        "power": "rate * (1 - progress)^power",
        "per_epoch": "hold the rate within an epoch, as fyu/drn does",
    },
}


def check(config: ConfigDict) -> None:
    """Raise UserError for a field that is missing or unknown, or a number that can't be."""
    _fields("config", config, TOP)
    _one_of("config.task", config.task, DATA)
    _fields("config.model", config.model, MODEL)
    _fields("config.data", config.data, DATA[config.task])
    _fields("config.optimizer", config.optimizer, OPTIMIZER)
    if "kind" not in config.schedule:
        raise UserError("the configuration lacks config.schedule.kind: 'step' or 'poly'")
    _one_of("config.schedule.kind", config.schedule.kind, SCHEDULE)
    _fields("config.schedule", config.schedule, SCHEDULE[config.schedule.kind])
    _one_of("config.model.dtype", config.model.dtype, ("float32", "bfloat16"))
    _one_of("config.model.running_variance", config.model.running_variance, ("biased", "unbiased"))
    if config.task == "segmentation":
        _one_of("config.data.border", config.data.border, ("clamp", "zero"))
    for name in ("batch_size", "eval_batch_size", "epochs", "eval_epochs", "log_steps"):
        if config[name] < 1:
            raise UserError(f"config.{name} = {config[name]} must be at least 1")


def _fields(where: str, given: Mapping[str, object], known: Fields) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"unknown field {where}.{name}: {nearest(name, known)}")
    for name, meaning in known.items():
        if name not in given:
            raise UserError(f"the configuration lacks {where}.{name}: {meaning}")


def _one_of(where: str, value: str, known: Mapping[str, object] | tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{where} = {value!r} is unknown: {nearest(str(value), known)}")
