"""Metrics are averaged between two rows, and a run that diverged ends in one clear line."""

import math

import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.training import meter
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


def test_the_speed_leaves_out_the_first_step_and_pauses(clock):
    found = Meter(10, lambda step: 0.1)
    for step in (1, 2, 3):
        clock.now += 1000 if step == 1 else 2
        found.add(step, metrics(1.0))
        found.fetch()
    assert found.row(3)["images_per_s"] == pytest.approx(20 / 4)
    found.pause()
    clock.now += 1000
    for step in (4, 5):
        found.add(step, metrics(1.0))
        found.fetch()
        clock.now += 1
    assert found.row(5)["images_per_s"] == pytest.approx(10 / 2)
