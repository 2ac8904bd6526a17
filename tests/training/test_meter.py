"""Metrics are averaged between two rows, and a run that diverged ends in one clear line."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.training import meter, peak, sharding
from drn_jax.training.meter import Meter


def metrics(loss, grad_norm=1.0):
    return {"loss": np.float32(loss), "grad_norm": np.float32(grad_norm)}


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the meter sees; set `clock.now`."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


def test_a_row_holds_the_means_since_the_last_row_and_the_rate_that_made_the_step():
    found = Meter(4, lambda step: 0.1 / (step + 1))
    for step, (loss, norm) in enumerate([(1.0, 3.0), (2.0, 5.0)], start=1):
        found.add(step, metrics(loss, norm))
    row = found.row(2)
    assert (row["train_loss"], row["grad_norm"]) == (1.5, 4.0)
    assert row["learning_rate"] == pytest.approx(0.05)
    found.add(3, metrics(7.0))
    assert found.row(3)["train_loss"] == 7.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_no_finite_number_is_an_error_with_its_step_and_rate(what, value):
    bad = metrics(value) if what == "loss" else metrics(1.0, value)
    found = Meter(4, lambda step: {4: 0.25}[step])
    found.add(4, metrics(1.0))
    found.add(5, bad)
    with pytest.raises(UserError) as caught:
        found.add(6, metrics(1.0))
    message = str(caught.value)
    assert f"the {what} became {value} at step 5, at learning rate 0.25" in message
    assert "config.optimizer.learning_rate" in message


def test_the_last_step_is_checked_too():
    for take in (lambda m: m.fetch(), lambda m: m.row(1)):
        found = Meter(4, lambda step: 0.1)
        found.add(1, metrics(math.nan))
        with pytest.raises(UserError, match="at step 1"):
            take(found)


def test_metrics_are_fetched_one_step_late():
    found = Meter(4, lambda step: 0.1)
    found.add(1, metrics(1.0))
    assert math.isnan(found.loss)
    found.add(2, metrics(2.0))
    assert found.loss == 1.0
    found.fetch()
    assert found.loss == 2.0
    found.fetch()
    assert found.row(2)["train_loss"] == 1.5


TIMES = {"step_s", "input_s", "compute_s"}


class Loop:
    """A run whose steps take `input` seconds for their batch and `work` seconds after it."""

    def __init__(self, clock, **options):
        self.clock, self.meter, self.step = clock, Meter(10, lambda step: 0.1, **options), 0

    def run(self, steps=1, *, input=0.0, work=0.0):
        for _ in range(steps):
            self.step += 1
            with self.meter.input():
                self.clock.now += input
            self.clock.now += work
            self.meter.add(self.step, metrics(1.0))

    def row(self):
        return self.meter.row(self.step)


@pytest.fixture
def loop(clock):
    return Loop(clock)


def test_the_speed_leaves_out_the_first_step_and_pauses(clock):
    found = Meter(10, lambda step: 0.1)
    for step in (1, 2, 3):
        clock.now += 1000 if step == 1 else 2
        found.add(step, metrics(1.0))
        found.fetch()
    assert found.row(3)["images_per_s"] == 20 / 4
    found.pause()
    clock.now += 1000
    for step in (4, 5):
        found.add(step, metrics(1.0))
        found.fetch()
        clock.now += 2
    assert found.row(5)["images_per_s"] == 10 / 2


def test_the_time_of_a_step_is_waiting_for_input_and_the_rest(clock):
    loop = Loop(clock)
    loop.run(input=64, work=512)  # Compiles.
    loop.row()
    loop.run(4, input=0.25, work=1)
    row = loop.row()
    assert (row["step_s"], row["input_s"], row["compute_s"]) == (1.25, 0.25, 1.0)
    assert row["images_per_s"] == 10 / 1.25
    loop.run(2, input=0.5, work=1)
    row = loop.row()
    assert (row["step_s"], row["input_s"], row["compute_s"]) == (1.5, 0.5, 1.0)


def test_between_two_rows_every_second_counts_once(loop):
    loop.run()
    loop.row()
    start, seconds, waited = loop.clock.now, 0.0, 0.0
    for count in (1, 3, 2):
        loop.run(count, input=0.125, work=0.5)
        row = loop.row()
        seconds += count * row["step_s"]
        waited += count * row["input_s"]
        loop.clock.now += 0.25  # Writing the row down: of the next step.
    loop.run()
    assert seconds + loop.row()["step_s"] == loop.clock.now - start
    assert waited == 6 * 0.125


def test_the_first_steps_wait_for_input_is_left_out(loop):
    loop.run(input=100, work=100)
    first = loop.row()
    assert not TIMES & set(first)
    assert math.isnan(first["images_per_s"])
    loop.run(input=0.5, work=1)
    assert loop.row()["input_s"] == 0.5


def test_the_wait_during_the_first_step_is_left_out_where_no_row_is_due(loop):
    loop.run(input=100, work=100)
    loop.run(input=100, work=1)  # Step 1 is fetched only now.
    loop.run(input=0.5, work=1.5)
    row = loop.row()
    assert (row["step_s"], row["input_s"]) == (1.0, 0.25)  # Of steps 2 and 3.


def test_a_pause_leaves_out_its_time_and_the_step_after_it_and_keeps_those_before(loop):
    loop.run(3, input=0.5, work=1.5)
    loop.meter.fetch()
    loop.clock.now += 1000  # Validation.
    loop.meter.pause()
    loop.run(input=100, work=100)
    loop.meter.fetch()
    loop.run(2, input=1, work=3)
    row = loop.row()
    # Steps 2 and 3 took 2 s together as fetched late, steps 5 and 6 took 8 s.
    assert row["step_s"] == (2 + 8) / 4
    assert row["input_s"] == (0.5 + 2) / 4


def test_after_a_pause_nothing_is_timed_and_the_speed_is_the_last_one(loop):
    loop.run()
    loop.row()
    loop.run(2, work=2)
    assert loop.row()["images_per_s"] == 5
    loop.meter.pause()
    loop.run(input=100, work=1000)
    row = loop.row()
    assert not TIMES & set(row)
    assert row["images_per_s"] == 5
    assert row["train_loss"] == 1


def test_the_speed_in_operations_and_its_share_of_the_peak(clock):
    loop = Loop(clock, flops=6e12, peak=120e12)
    loop.run()
    first = loop.row()
    assert not {"tflops_per_s", "peak_share"} & set(first)
    loop.run(4, work=2)
    row = loop.row()
    assert row["tflops_per_s"] == 6 * 10 / 2
    assert row["peak_share"] == 30 / 120


def test_without_a_known_peak_there_is_no_share(clock):
    assert peak.together() is None  # These tests run on CPU.
    loop = Loop(clock, flops=6e12, peak=peak.together())
    loop.run(3, work=2)
    row = loop.row()
    assert "tflops_per_s" in row
    assert "peak_share" not in row


def test_every_row_tells_the_memory(loop, monkeypatch):
    monkeypatch.setattr(meter.memory, "peak_gb", lambda: 1.5)
    loop.run()
    assert loop.row()["memory_gb"] == 1.5


def test_rows_hold_plain_numbers_of_known_names(clock):
    loop = Loop(clock, flops=np.float32(1e9), peak=1e12)
    loop.run(3, input=0.5, work=0.5)
    row = loop.row()
    assert list(row) == [
        "train_loss",
        "grad_norm",
        "learning_rate",
        "images_per_s",
        "step_s",
        "input_s",
        "compute_s",
        "tflops_per_s",
        "peak_share",
        "memory_gb",
    ]
    assert all(math.isfinite(value) for value in row.values())


def test_a_loop_runs_where_no_transfer_may_happen_unasked():
    mesh = sharding.make_mesh()
    everywhere = sharding.replicated(mesh)
    step_of = jax.jit(lambda x: {"loss": x, "grad_norm": 2 * x}, out_shardings=everywhere)
    value = jax.device_put(np.float32(3), everywhere)
    found = Meter(8, lambda step: jnp.asarray(0.5) / (jnp.asarray(step) + 1))
    step_of(value)
    with jax.transfer_guard("disallow"):
        for step in (1, 2, 3):
            with found.input():
                pass
            found.add(step, step_of(value))
        row = found.row(3)
    assert (row["train_loss"], row["grad_norm"]) == (3, 6)
    assert row["learning_rate"] == pytest.approx(0.5 / 3)


def test_a_run_that_diverges_under_the_guard_says_so_all_the_same():
    found = Meter(8, lambda step: jnp.asarray(0.5) / (jnp.asarray(step) + 1))
    bad = {"loss": jnp.asarray(math.nan), "grad_norm": jnp.asarray(1.0)}
    with jax.transfer_guard("disallow"):
        found.add(2, bad)
        with pytest.raises(UserError, match="at step 2, at learning rate 0\\.25:"):
            found.fetch()
