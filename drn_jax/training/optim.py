"""Stochastic gradient descent by PyTorch's rule, and the papers' learning-rate schedules."""

import jax
import jax.numpy as jnp
import optax

from drn_jax.config import Optimizer, PolySchedule, StepSchedule


def sgd(
    schedule: optax.Schedule, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """PyTorch's SGD: v = momentum*v + (g + weight_decay*w); w = w - rate*v.

    The decay takes every parameter, batch norm and biases too. The learning rate lies outside the
    momentum: when it falls, the whole velocity slows at once (in Caffe only new gradients do).
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(decay=momentum),
        optax.scale_by_learning_rate(schedule),
    )


def learning_rate(
    optimizer: Optimizer,
    schedule: StepSchedule | PolySchedule,
    *,
    steps: int,
    steps_per_epoch: int,
) -> optax.Schedule:
    """The learning rate of each step of a run of `steps`, counted from 0.

    "step": the base rate times `factor` after every `epochs` epochs (DRN on ImageNet: 0.1, 30).
    "poly": the base rate * (1 - step/steps)^power (DRN-D-105 on Cityscapes: 0.9, `per_epoch`).
    The warm-up, in neither paper, starts at base/warmup_steps.
    """

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        if isinstance(schedule, StepSchedule):
            falls = step // (steps_per_epoch * schedule.epochs)
            value = optimizer.learning_rate * schedule.factor**falls
        else:
            done = step // steps_per_epoch * steps_per_epoch if schedule.per_epoch else step
            left = jnp.maximum(1 - done / steps, 0.0)
            value = optimizer.learning_rate * left**schedule.power
        if optimizer.warmup_steps:
            value = value * jnp.minimum((step + 1) / optimizer.warmup_steps, 1.0)
        return jnp.asarray(value, jnp.float32)

    return rate
