"""What a run tells of itself: loss and gradient, and where the time of a step goes.

Metrics are fetched one step late, so that the device never waits for the host.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from drn_jax.errors import UserError
from drn_jax.training import memory


class Meter:
    """Collects each step's `loss` and `grad_norm`, and its time, between two rows of the log.

    Steps count from 1; `learning_rate(step - 1)`, the rate that made step, goes into the rows, and
    into the error of a run that diverged.

    Time runs from the end of one step to the end of the next, as the host sees it. The first step
    after the start or a `pause` is left out, and its wait for input: it pays for compiling or
    validating.

    Nothing here but the explicit fetch, and the learning rate's few numbers, moves data between
    host and devices, so that a loop may run under `jax.transfer_guard("disallow")`.

    Args:
      batch_size: of the whole run, all processes together.
      learning_rate: the rate of a step counted from 0.
      flops: floating-point operations of training on one example, `peak.training_flops`.
      peak: FLOP/s of all devices of the run together, `peak.together`.
    """

    def __init__(
        self,
        batch_size: int,
        learning_rate: Callable[[int], Any],
        *,
        flops: float | None = None,
        peak: float | None = None,
    ) -> None:
        self._batch_size = batch_size
        self._learning_rate = learning_rate
        self._flops = flops
        self._peak = peak
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._since: float | None = None
        self._waited = 0.0  # Of the step in hand, seconds.
        self._steps, self._seconds, self._input = 0, 0.0, 0.0  # Of the steps timed.
        self.images_per_second = math.nan
        """Of the whole run, all processes together; NaN until known."""
        self.loss = math.nan
        """Of the last step fetched."""

    @contextlib.contextmanager
    def input(self) -> Iterator[None]:
        """Count what happens within as waiting for input: `next` of the batches, and handing the
        batch to the devices."""
        start = time.perf_counter()
        yield
        if self._since is not None:
            self._waited += time.perf_counter() - start

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
        got = jax.device_get({name: metrics[name] for name in ("loss", "grad_norm")})
        loss, norm = float(got["loss"]), float(got["grad_norm"])
        for name, value in (("loss", loss), ("gradient", norm)):
            if not math.isfinite(value):
                raise UserError(
                    f"the {name} became {value} at step {step}, at learning rate "
                    f"{self._rate(step):.4g}: lower "
                    "config.optimizer.learning_rate or lengthen its warm-up"
                )
        self.loss = loss
        self._losses.append(loss)
        self._norms.append(norm)
        now = time.perf_counter()
        if self._since is not None:
            self._steps += 1
            self._seconds += now - self._since
            self._input += self._waited
        self._since, self._waited = now, 0.0

    def row(self, step: int) -> dict[str, float]:
        """What `metrics.jsonl` says of the steps since the last row; what is unknown is NaN or not
        there.

        train_loss, grad_norm: means; learning_rate: of this step.
        images_per_s: of the whole run, all processes together; where no step was timed since the
          last row, what was known then, and so the two that follow from it.
        step_s: mean seconds of a step.
        input_s: of these, how long the host of this process was held up for its batch. Meanwhile
          the devices work at the step before: where they are the slower side and batches are read
          ahead, it is near 0; where it is nearly all of step_s, the devices wait for input.
        compute_s: the rest, step_s - input_s: mostly the host's wait for the devices. What they
          compute while the host waits for input is not in it.
        tflops_per_s: 1e12 floating-point operations a second of the whole run, counted from the
          network's convolutions, not from what the devices execute.
        peak_share: of the devices' bfloat16 peak, also if the run computes in float32.
        memory_gb: see `memory.peak_gb`.
        """
        self.fetch()
        if self._seconds > 0:
            self.images_per_second = self._steps * self._batch_size / self._seconds
        row = {
            "train_loss": math.fsum(self._losses) / len(self._losses),
            "grad_norm": math.fsum(self._norms) / len(self._norms),
            "learning_rate": self._rate(step),
            "images_per_s": self.images_per_second,
        }
        if self._steps:
            row["step_s"] = self._seconds / self._steps
            row["input_s"] = self._input / self._steps
            row["compute_s"] = row["step_s"] - row["input_s"]
        if self._flops is not None and not math.isnan(self.images_per_second):
            speed = self._flops * self.images_per_second
            row["tflops_per_s"] = speed / 1e12
            if self._peak is not None:
                row["peak_share"] = speed / self._peak
        row["memory_gb"] = memory.peak_gb()
        self._losses, self._norms = [], []
        self._steps, self._seconds, self._input = 0, 0.0, 0.0
        return row

    def pause(self) -> None:
        """Leave the time until the next step, and that step, out of the speed."""
        self._since = None

    def _rate(self, step: int) -> float:
        """The learning rate that made a step."""
        with jax.transfer_guard("allow"):  # A schedule takes its numbers to a device and back.
            return float(jax.device_get(self._learning_rate(step - 1)))
