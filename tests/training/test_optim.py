"""The update is PyTorch's or Caffe's, and the learning rates are the papers'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.config import ConstantSchedule, Optimizer, PolySchedule, StepSchedule
from drn_jax.models.dilation import UPSAMPLING
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


# Caffe's rule

RATES, MOMENTUM, DECAY = [0.5, 0.5, 0.05, 0.05, 0.2, 0.0], 0.9, 0.01


def layers(seed):
    """Two layers as a module names them, one of them norm-like, and fixed upsampling."""
    rng = np.random.default_rng(seed)
    shapes = {
        "conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
        "part": {"inner": {"scale": (4,), "bias": (4,)}, UPSAMPLING: {"kernel": (4, 4, 1, 2)}},
    }
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda shape: isinstance(shape, tuple),
    )


def course(rule, rates=RATES, momentum=MOMENTUM, decay=DECAY):
    """What the rule makes of `layers(0)` under the gradients `layers(1)`, ...: each step's leaves
    by name. No gradient reaches the upsampling."""
    tx = rule(lambda step: jnp.asarray(rates)[step], momentum, decay)
    params = jax.tree.map(jnp.asarray, layers(0))
    state, seen = tx.init(params), []
    for step in range(len(rates)):
        updates, state = tx.update(gradient_of(step), state, params)
        params = jax.tree.map(jnp.add, params, updates)
        seen.append(named(params))
    return seen


def gradient_of(step):
    gradient = layers(1 + step)
    gradient["part"][UPSAMPLING]["kernel"][:] = 0
    return gradient


def named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(a) for p, a in leaves}


FIXED = f"part/{UPSAMPLING}/kernel"


def test_caffe_has_the_rate_inside_the_momentum_and_biases_at_twice_the_rate_without_decay():
    found = course(optim.caffe_sgd)
    for name, start in named(layers(0)).items():
        bias = name.endswith("bias")
        w, v = start.astype(np.float64), np.zeros(start.shape)
        for step, rate in enumerate(RATES):
            g = named(gradient_of(step))[name]
            decayed = 0 if bias or name == FIXED else DECAY * w
            v = MOMENTUM * v + (2 * rate if bias else rate) * (g + decayed)
            w = w - v
            np.testing.assert_allclose(
                found[step][name], w, rtol=1e-5, atol=1e-5, err_msg=f"{name}, step {step}"
            )


def test_caffe_goes_on_at_the_old_rate_for_a_while_after_a_fall():
    rates = [1.0, 0.1]
    tx = optim.caffe_sgd(lambda step: jnp.asarray(rates)[step], 0.5, 0.0)
    first, second = run(tx, {"w": jnp.zeros(1)}, [{"w": jnp.ones(1)}, {"w": jnp.zeros(1)}])
    np.testing.assert_allclose(first["w"], [-1.0])
    np.testing.assert_allclose(second["w"] - first["w"], [-0.5])


def test_the_rules_agree_at_a_constant_rate_but_for_biases_and_part_when_it_falls():
    for rates, agree in (([0.1] * 4, 4), ([0.1, 0.1, 0.01, 0.01], 2)):
        caffe, pytorch = (course(rule, rates, decay=0.0) for rule in (optim.caffe_sgd, optim.sgd))
        for step in range(4):
            same = {
                name
                for name, value in caffe[step].items()
                if np.allclose(value, pytorch[step][name], rtol=0, atol=1e-6)
            }
            if step < agree:
                assert same == {name for name in caffe[0] if not name.endswith("bias")}
            else:
                assert same == {FIXED}


@pytest.mark.parametrize("rule", [optim.sgd, optim.caffe_sgd])
def test_the_fixed_upsampling_keeps_its_bits_under_decay(rule):
    start = named(layers(0))
    for values in course(rule, decay=0.5):
        assert values[FIXED].tobytes() == start[FIXED].tobytes()
        for name in values.keys() - {FIXED}:
            assert (values[name] != start[name]).any(), name


@pytest.mark.parametrize("rule", ["pytorch", "caffe"])
def test_the_configuration_names_the_rule_its_momentum_and_its_decay(rule):
    settings = Optimizer(0.5, rule=rule, momentum=MOMENTUM, weight_decay=DECAY)
    wanted = {"pytorch": optim.sgd, "caffe": optim.caffe_sgd}[rule]
    found = course(lambda schedule, *_: optim.create(settings, schedule))
    for values, expected in zip(found, course(wanted), strict=True):
        for name in expected:
            np.testing.assert_array_equal(values[name], expected[name])


# Learning rates


def rates_at(steps, schedule, *, warmup=0, total=100, steps_per_epoch=10):
    optimizer = Optimizer(learning_rate=0.1, warmup_steps=warmup)
    rate = optim.learning_rate(optimizer, schedule, steps=total, steps_per_epoch=steps_per_epoch)
    return [float(rate(step)) for step in steps]


def test_step_schedule_falls_by_the_factor_after_every_so_many_epochs():
    schedule = StepSchedule("step", epochs=3, factor=0.1)
    found = rates_at([0, 29, 30, 59, 60, 90], schedule)
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.0001])


def test_step_schedule_falls_after_every_so_many_updates_whatever_an_epoch_is():
    schedule = StepSchedule("step", steps=7, factor=0.5)
    for steps_per_epoch in (3, 10):
        found = rates_at([0, 6, 7, 13, 14], schedule, steps_per_epoch=steps_per_epoch)
        assert found == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


def test_constant_schedule_stays_after_its_warm_up():
    found = rates_at([0, 50, 99, 1000], ConstantSchedule("constant"))
    assert found == pytest.approx([0.1] * 4)
    found = rates_at([0, 1, 3, 4, 99], ConstantSchedule("constant"), warmup=4)
    assert found == pytest.approx([0.025, 0.05, 0.1, 0.1, 0.1])


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
