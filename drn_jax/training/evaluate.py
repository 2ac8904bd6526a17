"""A whole validation set under one task: exact totals over all batches."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from drn_jax.training.steps import EvalStep, Variables

Totals = dict[str, np.ndarray]


class Stopped(Exception):
    """The validation was asked to stop before its end."""


def evaluate(
    eval_step: EvalStep,
    variables: Variables,
    batches: Iterable[Mapping[str, np.ndarray]],
    to_devices: Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]],
    stop: Callable[[], bool] = lambda: False,
) -> Totals:
    """The task's sums over all batches: counts in int64, losses in float64.

    A batch's sums are fetched while the next batch runs.

    Raises: Stopped as soon as `stop()` is true, asked before every batch.
    """
    totals: Totals = {}
    pending = None
    for batch in batches:
        if stop():
            raise Stopped
        sums = eval_step(variables, to_devices(batch))
        _add(totals, pending)
        pending = sums
    _add(totals, pending)
    return totals


def _add(totals: Totals, sums: Mapping[str, jax.Array] | None) -> None:
    for name, value in jax.device_get(sums or {}).items():
        wide = np.float64 if np.issubdtype(value.dtype, np.floating) else np.int64
        totals[name] = totals.get(name, wide(0)) + value.astype(wide)
