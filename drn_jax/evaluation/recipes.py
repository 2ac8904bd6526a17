"""The recipes behind published numbers, as far as papers and code state them, by the fields of a
configuration: what a run of ours differs in is said beside its scores."""

from collections.abc import Mapping
from typing import Any

from drn_jax.config import Config

_IMAGENET = {
    "epochs": 120,
    "batch_size": 256,
    "crop": 224,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "step",
}
"""DRN paper, section 5.1, and fyu/drn's classify.py."""

_CITYSCAPES = {
    "epochs": 250,
    "batch_size": 32,
    "crop": (896, 896),
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "step",
}
"""fyu/drn's README, for DRN-D-22; until June 2018 it said batch 16, momentum 0.99."""

_CITYSCAPES_LARGEST = _CITYSCAPES | {
    "epochs": 500,
    "batch_size": 16,
    "crop": (840, 840),
    "schedule": "poly",
}
"""The same, for DRN-D-105."""


def recipe(model: str, data: str) -> Mapping[str, Any]:
    """What is published of how a network was trained on a set; empty where nothing is. The dilated
    nets were trained in stages, see configs/dilation.py."""
    if not model.startswith(("drn_", "resnet_")):
        return {}
    if data == "imagenet":
        return _IMAGENET
    if data == "cityscapes":
        return _CITYSCAPES_LARGEST if model == "drn_d_105" else _CITYSCAPES
    return {}


def differences(config: Config, data: str) -> list[str]:
    """Each setting of a run that is not the published one, in words."""
    found = []
    for name, theirs in recipe(config.model.name, data).items():
        ours = _setting(config, name)
        if ours != theirs:
            found.append(f"{name.replace('_', ' ')} {ours}, published {theirs}")
    return found


def _setting(config: Config, name: str) -> Any:
    if name == "epochs":
        return config.epochs or f"(in all {config.steps} steps)"
    if name == "schedule":
        return config.schedule.kind
    if name == "crop":
        return getattr(config.data, "crop", None)
    return getattr(config if hasattr(config, name) else config.optimizer, name)
