"""Stochastic gradient descent by PyTorch's rule, and the papers' learning-rate schedules."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from drn_jax.errors import UserError


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
    kind: Literal["step", "poly"],
    base: float,
    *,
    steps: int,
    steps_per_epoch: int,
    warmup_steps: int = 0,
    step_epochs: int = 30,
    step_factor: float = 0.1,
    power: float = 0.9,
    per_epoch: bool = False,
) -> optax.Schedule:
    """The learning rate of each step.

    "step": `base` times `step_factor` after every `step_epochs` epochs (DRN on ImageNet: 0.1, 30).
    "poly": `base` * (1 - progress)^power, progress = step/steps (DRN-D-105 on Cityscapes: 0.9).
    `per_epoch` counts the progress in finished epochs, as fyu/drn does.
    `warmup_steps` ramps linearly from base/warmup_steps up; 0 in both papers.

    Raises: UserError for another kind.
    """
    if kind not in ("step", "poly"):
        raise UserError(f"unknown learning-rate schedule {kind!r}: use 'step' or 'poly'")

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step)
        if kind == "step":
            rate = base * step_factor ** (step // (steps_per_epoch * step_epochs))
        else:
            done = step // steps_per_epoch * steps_per_epoch if per_epoch else step
            rate = base * jnp.maximum(1 - done / steps, 0.0) ** power
        if warmup_steps:
            rate = rate * jnp.minimum((step + 1) / warmup_steps, 1.0)
        return rate

    return schedule
