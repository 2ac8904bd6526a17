"""Training metrics, fetched one step late so that the device never waits for the host."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from drn_jax.errors import UserError


class Meter:
    """Collects each step's `loss` and `grad_norm` and averages them between two rows of the log.

    Steps count from 1; `learning_rate(step - 1)`, the rate that made step, goes into the rows, and
    into the error of a run that diverged.
    """

    def __init__(self, batch_size: int, learning_rate: Callable[[int], Any]) -> None:
        self._batch_size = batch_size
        self._learning_rate = learning_rate
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._since: float | None = None
        self._images = 0
        self.images_per_second = math.nan
        self.loss = math.nan
        """Of the last step fetched."""

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Take the metrics of a step, and fetch those of the step before.

        Raises: UserError if that one's loss or gradient is no finite number.
        """
        self.fetch()
        self._pending = (step, metrics)

    def fetch(self) -> None:
        """Wait for the metrics still on the device. Raises as `add`."""
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        loss, norm = float(metrics["loss"]), float(metrics["grad_norm"])
        for name, value in (("loss", loss), ("gradient", norm)):
            if not math.isfinite(value):
                raise UserError(
                    f"the {name} became {value} at step {step}, at learning rate "
                    f"{float(self._learning_rate(step - 1)):.4g}: lower "
                    "config.optimizer.learning_rate or lengthen its warm-up"
                )
        self.loss = loss
        self._losses.append(loss)
        self._norms.append(norm)
        if self._since is None:  # The first step after a pause paid for compiling or validating.
            self._since = time.perf_counter()
        else:
            self._images += self._batch_size

    def row(self, step: int) -> dict[str, float]:
        """The means since the last row, as they go into `metrics.jsonl`."""
        self.fetch()
        if self._images and self._since is not None:
            self.images_per_second = self._images / (time.perf_counter() - self._since)
        row = {
            "train_loss": math.fsum(self._losses) / len(self._losses),
            "grad_norm": math.fsum(self._norms) / len(self._norms),
            "learning_rate": float(self._learning_rate(step - 1)),
            "images_per_s": self.images_per_second,
        }
        self._losses, self._norms = [], []
        self._since, self._images = time.perf_counter(), 0
        return row

    def pause(self) -> None:
        """Leave the time until the next step out of the speed."""
        self._since = None
        self._images = 0
