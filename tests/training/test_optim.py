"""The update is PyTorch's, and the learning rates are the papers'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.config import Optimizer, PolySchedule, StepSchedule
from drn_jax.training import optim


def run(tx, params, gradients):
    """The parameters after each step."""
    seen, state = [], tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = {name: params[name] + updates[name] for name in params}
        seen.append(params)
    return seen


def test_sgd_is_pytorchs_rule_on_every_parameter_while_the_rate_changes():
    rates, momentum, decay = [0.5, 0.5, 0.05, 0.2, 0.0, 0.1], 0.9, 0.01
    rng = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "scale": (4,), "bias": (4,)}

    def draw():
        return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}

    params, gradients = draw(), [draw() for _ in rates]
    tx = optim.sgd(lambda step: jnp.asarray(rates)[step], momentum, decay)
    found = run(tx, {n: jnp.asarray(p) for n, p in params.items()}, gradients)

    for name in shapes:
        w, v = params[name].astype(np.float64), np.zeros(shapes[name])
        for step, (rate, gradient) in enumerate(zip(rates, gradients, strict=True)):
            v = momentum * v + (gradient[name] + decay * w)
            w = w - rate * v
            np.testing.assert_allclose(
                found[step][name], w, rtol=1e-5, atol=1e-6, err_msg=f"{name}, step {step}"
            )


def test_a_lower_rate_slows_the_old_velocity_at_once():
    rates = [1.0, 0.1]
    tx = optim.sgd(lambda step: jnp.asarray(rates)[step], 0.5, 0.0)
    first, second = run(tx, {"w": jnp.zeros(1)}, [{"w": jnp.ones(1)}, {"w": jnp.zeros(1)}])
    np.testing.assert_allclose(first["w"], [-1.0])
    # Caffe, whose velocity holds the rate of its time, would move by 0.5.
    np.testing.assert_allclose(second["w"] - first["w"], [-0.05], rtol=1e-5)


def rates_at(steps, schedule, *, warmup=0, total=100, steps_per_epoch=10):
    optimizer = Optimizer(learning_rate=0.1, warmup_steps=warmup)
    rate = optim.learning_rate(optimizer, schedule, steps=total, steps_per_epoch=steps_per_epoch)
    return [float(rate(step)) for step in steps]


def test_step_schedule_falls_by_the_factor_after_every_so_many_epochs():
    schedule = StepSchedule("step", epochs=3, factor=0.1)
    found = rates_at([0, 29, 30, 59, 60, 90], schedule)
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.0001])


def test_poly_schedule_follows_the_power_of_what_is_left_and_ends_at_zero():
    found = rates_at([0, 50, 99, 100, 120], PolySchedule("poly", power=0.9))
    # 0.1 * 0.5^0.9 and 0.1 * 0.01^0.9
    assert found == pytest.approx([0.1, 0.05358867, 0.001584893, 0.0, 0.0])
    assert rates_at([25], PolySchedule("poly", power=2.0)) == pytest.approx([0.05625])


def test_poly_schedule_per_epoch_stays_the_same_within_an_epoch():
    found = rates_at([0, 9, 10, 19, 95], PolySchedule("poly", power=0.9, per_epoch=True))
    # 0.1 * 0.9^0.9 and 0.1 * 0.1^0.9
    assert found == pytest.approx([0.1, 0.1, 0.09095326, 0.09095326, 0.01258925])


def test_warm_up_is_linear_from_the_first_step_and_multiplies_the_schedule():
    step = StepSchedule("step", epochs=1, factor=0.1)
    found = rates_at([0, 1, 3, 4, 9, 10], step, warmup=4)
    assert found == pytest.approx([0.025, 0.05, 0.1, 0.1, 0.1, 0.01])
    poly = PolySchedule("poly", power=1.0)
    assert rates_at([0, 1, 3], poly, warmup=4) == pytest.approx([0.025, 0.0495, 0.097])


def test_the_schedule_gives_the_same_rates_inside_a_compiled_step():
    poly = PolySchedule("poly")
    rate = optim.learning_rate(
        Optimizer(learning_rate=0.1, warmup_steps=4), poly, steps=100, steps_per_epoch=10
    )
    steps = np.arange(0, 100, 7)
    found = jax.jit(jax.vmap(rate))(steps)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rates_at(steps, poly, warmup=4), rtol=1e-5)
