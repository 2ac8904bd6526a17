"""Stochastic gradient descent by PyTorch's rule and by Caffe's, and the papers' learning-rate
schedules."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from drn_jax.config import ConstantSchedule, Optimizer, PolySchedule, StepSchedule
from drn_jax.models.dilation import UPSAMPLING

CAFFE_BIAS_RATE = 2.0
"""Factor on the learning rate of biases in the nets of fyu/dilation."""


def create(settings: Optimizer, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimiser that a configuration asks for."""
    rule = caffe_sgd if settings.rule == "caffe" else sgd
    return rule(schedule, settings.momentum, settings.weight_decay)


def sgd(
    schedule: optax.Schedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """PyTorch's SGD: v = momentum*v + (g + weight_decay*w); w = w - rate*v.

    The decay takes every parameter, batch norm and biases too, but no fixed upsampling. The
    learning rate lies outside the momentum: when it falls, the whole velocity slows at once.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_trained),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(schedule),
    )


def caffe_sgd(
    schedule: optax.Schedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Caffe's SGD: v = momentum*v + rate*(g + weight_decay*w); w = w - v.

    The learning rate lies inside the momentum: when it falls, only what is new slows. Biases learn
    at twice the rate and do not decay, as in the nets of fyu/dilation.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_trained_and_no_bias),
        optax.scale_by_learning_rate(schedule),
        optax.masked(optax.scale(CAFFE_BIAS_RATE), _biases),
        optax.trace(decay=momentum),
    )


def _trained(params: Any) -> Any:
    """False for what no gradient reaches."""
    return jax.tree_util.tree_map_with_path(lambda path, _: UPSAMPLING not in _keys(path), params)


def _biases(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: _keys(path)[-1] == "bias", params)


def _trained_and_no_bias(params: Any) -> Any:
    return jax.tree.map(lambda a, b: a and not b, _trained(params), _biases(params))


def _keys(path: tuple[Any, ...]) -> list[str]:
    return [key.key for key in path]


def learning_rate(
    optimizer: Optimizer,
    schedule: ConstantSchedule | StepSchedule | PolySchedule,
    *,
    steps: int,
    steps_per_epoch: int,
) -> optax.Schedule:
    """The learning rate of each step of a run of `steps`, counted from 0.

    "constant": the base rate (front ends and context modules of Yu & Koltun).
    "step": the base rate times `factor` after every `epochs` epochs (DRN on ImageNet: 0.1, 30) or
    `steps` updates.
    "poly": the base rate * (1 - step/steps)^power (DRN-D-105 on Cityscapes: 0.9, `per_epoch`).
    The warm-up, in neither paper, starts at base/warmup_steps.
    """

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        if isinstance(schedule, ConstantSchedule):
            value = optimizer.learning_rate
        elif isinstance(schedule, StepSchedule):
            falls = step // (schedule.steps or steps_per_epoch * schedule.epochs)
            value = optimizer.learning_rate * schedule.factor**falls
        else:
            done = step // steps_per_epoch * steps_per_epoch if schedule.per_epoch else step
            left = jnp.maximum(1 - done / steps, 0.0)
            value = optimizer.learning_rate * left**schedule.power
        if optimizer.warmup_steps:
            value = value * jnp.minimum((step + 1) / optimizer.warmup_steps, 1.0)
        return jnp.asarray(value, jnp.float32)

    return rate
