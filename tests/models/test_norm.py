"""Batch norm by the statistics of groups, or by frozen ones, does what it says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from drn_jax import parts
from drn_jax.config import parse
from drn_jax.errors import UserError
from drn_jax.models import create
from drn_jax.models.layers import BatchNorm, Norm
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage

QUICK = {"xla_backend_optimization_level": 0}
RNG = np.random.default_rng(0)
IMAGES = (RNG.normal(size=(8, 3, 5, 3)) + 5 * RNG.normal(size=(8, 1, 1, 3))).astype(np.float32)
"""Every example has its own mean, so that each choice of statistics shows."""
PULL = RNG.normal(size=IMAGES.shape).astype(np.float32)


@pytest.fixture(scope="module")
def step(variables_of):
    """`step(norm, x, pull, **options)`: output, gradients, and the running averages after it."""

    def run(norm, x, pull, train=True, **options):
        layer = BatchNorm(norm=norm, **options)
        variables = variables_of(layer, x, False)
        statistics = variables["batch_stats"]

        def forward(params, x):
            return layer.apply(
                {"params": params, "batch_stats": statistics}, x, train, mutable=["batch_stats"]
            )

        @jax.jit
        def both(params, x):
            y, back, updates = jax.vjp(forward, params, x, has_aux=True)
            return y, back(pull), updates["batch_stats"]

        return *jax.device_get(both(variables["params"], x)), statistics

    return run


@pytest.mark.parametrize("kind", ["biased", "unbiased"])
def test_one_group_of_the_whole_batch_is_the_batch(step, kind):
    whole = step(Norm(), IMAGES, PULL, running_variance=kind)
    group = step(Norm("group", 8), IMAGES, PULL, running_variance=kind)
    jax.tree.map(np.testing.assert_array_equal, group, whole)


@pytest.mark.parametrize("kind", ["biased", "unbiased"])
def test_groups_are_batches_of_their_own_whose_running_averages_are_averaged(step, kind):
    y, (d_params, dx), after, _ = step(Norm("group", 2), IMAGES, PULL, running_variance=kind)
    parts = [
        step(Norm(), IMAGES[i : i + 2], PULL[i : i + 2], running_variance=kind)
        for i in range(0, 8, 2)
    ]
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(y, np.concatenate([part[0] for part in parts]), **close)
    np.testing.assert_allclose(dx, np.concatenate([part[1][1] for part in parts]), **close)
    for name in d_params:
        np.testing.assert_allclose(d_params[name], sum(p[1][0][name] for p in parts), **close)
    for name in after:
        np.testing.assert_allclose(after[name], np.mean([p[2][name] for p in parts], 0), **close)
    assert np.abs(y - step(Norm(), IMAGES, PULL)[0]).max() > 0.5


def test_frozen_training_is_evaluation_and_leaves_the_statistics_alone(step):
    y, (d_params, dx), after, before = step(Norm("frozen"), IMAGES, PULL)
    evaluated = step(Norm(), IMAGES, PULL, train=False)
    jax.tree.map(np.testing.assert_array_equal, (y, (d_params, dx)), evaluated[:2])
    jax.tree.map(np.testing.assert_array_equal, after, before)
    for gradient in (d_params["scale"], d_params["bias"], dx):
        assert (gradient != 0).all()


@pytest.mark.parametrize("norm", [Norm("frozen"), Norm("group", 2)])
def test_evaluation_never_asks_how_training_normalises(step, norm):
    expected = step(Norm(), IMAGES[:3], PULL[:3], train=False)
    jax.tree.map(
        np.testing.assert_array_equal, step(norm, IMAGES[:3], PULL[:3], train=False), expected
    )


@pytest.mark.parametrize("split", ["one group a device", "half a group", "two groups"])
def test_groups_do_not_depend_on_devices_and_need_none_but_their_own(variables_of, split):
    """A group on one device is normalised there; only the running averages, C means and C
    variances, are taken over all."""
    group = {"one group a device": 2, "half a group": 4, "two groups": 1}[split]
    x = np.concatenate([IMAGES, 2 * IMAGES + 1])
    layer = BatchNorm(norm=Norm("group", group))
    variables = variables_of(layer, x, False)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))

    def forward(x):
        y, updates = layer.apply(variables, x, True, mutable=["batch_stats"])
        return y, updates["batch_stats"]

    def outputs(x):
        y, back, _ = jax.vjp(forward, x, has_aux=True)
        return y, back(y * y)[0]

    def compiled(program, out):
        program = jax.jit(program, in_shardings=rows, out_shardings=out)
        return program.lower(jax.ShapeDtypeStruct(x.shape, x.dtype)).compile(QUICK)

    together, averages = compiled(outputs, (rows, rows)), compiled(forward, (rows, whole))
    spread = jax.device_put(x, rows)
    for found, alone in ((together(spread), outputs(x)), (averages(spread), forward(x))):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), found, alone
        )
    exchanges = re.compile(r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(")
    if group <= 2:
        assert not exchanges.findall(together.as_text())
    assert set(exchanges.findall(averages.as_text())) == {"all-reduce"}
    assert not re.search(r"f32\[[\d,]*5,3\]\S* all-", together.as_text())


TABLE = (Stage("stem", "conv", 4), Stage("level1", "basic", 4), Stage("level2", "bottleneck", 2))


def test_the_option_reaches_every_norm_of_a_network(variables_of):
    """Frozen, training is evaluation, the statistics stay, and every parameter learns."""
    frozen, free = (Network(TABLE, num_classes=2, norm=Norm(s)) for s in ("frozen", "global"))
    variables = variables_of(frozen, IMAGES)

    @jax.jit
    def step(params):
        def loss(params):
            (logits, _), updates = frozen.apply(
                {**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"]
            )
            return jnp.square(logits).sum(), (logits, updates["batch_stats"])

        return jax.grad(loss, has_aux=True)(params)

    gradient, (logits, after) = step(variables["params"])
    np.testing.assert_allclose(logits, free.apply(variables, IMAGES)[0], rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, after, variables["batch_stats"])
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


def settings(**model):
    return parse(
        {
            "name": "tiny",
            "task": "segmentation",
            "model": {"name": "drn_d_22", "width": 0.05, **model},
            "data": {"name": "list", "crop": (32, 32)},
            "batch_size": 4,
            "epochs": 1,
            "optimizer": {"learning_rate": 0.1},
            "schedule": {"kind": "constant"},
        }
    ).model


def test_a_configuration_sets_it():
    assert parts.network(settings(), 3).norm == Norm()
    network = parts.network(settings(norm={"statistics": "group", "group": 4}), 3)
    assert network.norm == Norm("group", 4)
    behind = settings(norm={"statistics": "frozen"}, context={"layers": 7})
    assert parts.network(behind, 3).front_end.norm == Norm("frozen")


@pytest.mark.parametrize(
    ("name", "norm", "message"),
    [
        ("drn_d_22", Norm("group"), r"norm\.group = 0 with .*statistics = group"),
        ("drn_d_22", Norm("group", -2), r"norm\.group = -2"),
        ("drn_d_22", Norm("global", 4), r"norm\.group = 4 with .*statistics = global"),
        ("drn_d_22", Norm("frozen", 4), r"norm\.group = 4 with .*statistics = frozen"),
        ("drn_d_22", Norm("groups", 4), r"norm\.statistics = 'groups'.*group"),
        ("vgg_16", Norm("frozen"), "vgg_16 has no batch norm"),
        ("dilation8_camvid", Norm("group", 2), "dilation8_camvid has no batch norm"),
        ("context", Norm("frozen"), "context has no batch norm"),
    ],
)
def test_statistics_that_no_network_or_not_this_one_has_are_refused(name, norm, message):
    with pytest.raises(UserError, match=message) as caught:
        create(name, norm=norm)
    assert "\n" not in str(caught.value)


def test_group_that_does_not_divide_the_batch_is_refused_in_training():
    network = create("drn_d_22", width=0.05, norm=Norm("group", 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    images = jax.ShapeDtypeStruct((8, 8, 8, 3), jnp.float32)

    def train(variables, images):
        return network.apply(variables, images, train=True, mutable=["batch_stats"])

    message = r"config\.model\.norm\.group = 3 does not divide the 8 examples"
    with pytest.raises(UserError, match=message) as caught:
        jax.eval_shape(train, variables, images)
    assert "\n" not in str(caught.value)
