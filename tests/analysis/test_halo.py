"""Halos are those that compiled programs exchange."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from drn_jax import models
from drn_jax.analysis import collectives, halo
from drn_jax.models.context import Context
from drn_jax.models.convolution import dilated_conv
from drn_jax.models.layers import max_pool
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage

QUICK = {"xla_backend_optimization_level": 0}


def over_rows(function, shards, whole, *shape):
    """The collectives of `function(whole, x)`, x of `shape` with its rows over the devices."""
    mesh = jax.make_mesh(
        (shards,), ("spatial",), axis_types=(AxisType.Auto,), devices=jax.devices()[:shards]
    )
    everywhere, rows = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, "spatial"))
    whole = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), whole
    )
    x = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows)
    compiled = jax.jit(function).lower(whole, x).compile(compiler_options=QUICK)
    return collectives.of_program(compiled.as_text())


def of_network(model, height, shards, width=16, gradient=False):
    """The same for the class map of a network, or for its mean square and the gradient of that."""
    shape = (1, height, width, 3)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)

    def loss(params, variables, x):
        kept = {**variables, "params": params}
        (_, features), _ = model.apply(kept, x, True, mutable=["batch_stats"])
        return jnp.square(features["logits_2d"]).mean()

    def scores(variables, x):
        return model.apply(variables, x, False)[1]["logits_2d"].mean()

    def step(variables, x):
        return jax.value_and_grad(loss)(variables["params"], variables, x)

    return over_rows(step if gradient else scores, shards, variables, *shape)


def counts(found):
    kinds = Counter(c.kind for c in found)
    return kinds["collective-permute"], kinds["all-gather"]


def expected(model, height, shards):
    halos = list(halo.of_layers(model.table, height, shards))
    return sum(h.permutes for h in halos), sum(h.gathered for h in halos)


def conv(kernel=3, stride=1, dilation=1, padding=None):
    return Stage(
        "row", "plain", 2, stride=stride, dilation=dilation, kernel=kernel, padding=padding
    )


@pytest.mark.parametrize(
    ("height", "shards", "stage", "before", "after"),
    [
        (64, 8, conv(), 1, 1),
        (64, 8, conv(dilation=8), 8, 8),
        (64, 8, conv(dilation=9), 9, 9),
        (64, 8, conv(dilation=27), 27, 27),
        (64, 8, conv(dilation=28), 28, 28),
        (16, 2, conv(dilation=8), 8, 8),
        (16, 2, conv(dilation=9), 9, 9),
        (64, 8, conv(kernel=7), 3, 3),
        (64, 8, conv(stride=2), 1, 0),
        (64, 8, conv(kernel=1, stride=2), 0, 0),
        # 5 rows a shard become 3, so that the last wants rows 42 to 47 where it holds 35 to 39.
        (40, 8, conv(kernel=1, stride=2), 0, 6),
        # 8 rows a shard become 7: the first wants 11, the last but one begins 6 above its own.
        (64, 8, conv(dilation=4, padding=0), 7, 7),
        (64, 8, Stage("row", "max_pool", 2, stride=2), 1, 0),
        (64, 8, Stage("row", "max_pool", 2, stride=2, kernel=2, padding=0, ceil=True), 0, 0),
    ],
)
def test_a_layer_exchanges_the_rows_that_it_needs(height, shards, stage, before, after):
    """Permutes and their bytes, or one gather of the whole map."""
    [found] = halo.of_stages((stage,), height, shards)
    assert (found.before, found.after, found.held) == (before, after, height // shards)

    def layer(kernel, x):
        if stage.kind == "max_pool":
            padding = 1 if stage.padding is None else stage.padding
            return max_pool(x, stage.kernel, stage.stride, padding, ceil=stage.ceil).sum()
        padding = stage.dilation * (stage.kernel // 2) if stage.padding is None else stage.padding
        y = dilated_conv(x, kernel, stride=stage.stride, dilation=stage.dilation, padding=padding)
        return y.sum()

    kernel = jax.ShapeDtypeStruct((stage.kernel, stage.kernel, 2, 2), jnp.float32)
    width = 70
    moved = [
        c for c in over_rows(layer, shards, kernel, 1, height, width, 2) if c.kind != "all-reduce"
    ]
    if found.gathered:
        assert [(c.kind, c.bytes) for c in moved] == [("all-gather", height * width * 2 * 4)]
    else:
        assert counts(moved) == (found.permutes, 0)
        assert sum(c.bytes for c in moved) == (before + after) * width * 2 * 4


def test_every_row_of_drn_c_26_needs_what_is_computed_by_hand():
    found = halo.of_stages(models.table("drn_c_26"), 512, 8)
    assert [(h.name, h.rows, h.held) for h in found] == [
        ("stem", 3, 64),
        ("level1", 1, 64),
        ("level2", 1, 32),
        ("level3", 1, 16),
        ("level4", 1, 8),
        ("level5", 2, 8),
        ("level6", 4, 8),
        ("level7", 2, 8),
        ("level8", 1, 8),
    ]


@pytest.mark.parametrize(
    ("name", "options", "heights"),
    [
        ("drn_c_26", {}, (64, 128, 256)),
        ("drn_d_22", {}, (64, 128, 256)),
        ("drn_d_105", {}, (64, 128, 256)),
        ("drn_a_50", {}, (64, 128, 256)),
        ("vgg_16_front_end", {}, (384, 736, 1472)),
        ("vgg_16_front_end", {"padding": "zero"}, (192, 384, 768)),
        ("context", {"context": Context(8)}, (32, 64, 128)),
        ("context", {"context": Context(10)}, (128, 256, 512)),
    ],
)
def test_least_heights(name, options, heights):
    """Over 2, 4 and 8 shards: for all but the unpadded VGG what its widest dilation asks, a
    map of dilation * shards rows; fc6 of VGG is 7x7 and reaches 12."""
    table = models.create(name, **options).table
    stride = 1 if name == "context" else 8
    found = [halo.least_height(table, shards, shards * stride) for shards in (2, 4, 8)]
    assert tuple(found) == heights


@pytest.mark.parametrize(("name", "shards"), [("drn_c_26", 8), ("drn_d_22", 4)])
def test_at_the_least_height_a_drn_exchanges_with_neighbours_alone(name, shards):
    model = models.create(name, num_classes=3, width=0.05)
    multiple = 8 * shards
    least = halo.least_height(model.table, shards, multiple)
    layers = list(halo.of_layers(model.table, least, shards))
    sides = sum((h.before > 0) + (h.after > 0) for h in layers)
    assert counts(of_network(model, least, shards)) == (sides, 0)
    # Four convolutions of level 6 reach over two shards on both sides below it.
    below = least - multiple
    assert {h.name for h in halo.outgrown(model.table, below, shards)} == {"level6"}
    assert counts(of_network(model, below, shards)) == (sides + 8, 0)
    assert expected(model, below, shards) == (sides + 8, 0)


@pytest.mark.parametrize(
    ("name", "height", "shards", "options"),
    [
        ("drn_c_26", 64, 8, {"width": 0.05}),
        ("drn_d_22", 160, 8, {"width": 0.05}),  # Maps of uneven heights.
        ("drn_d_22", 32, 4, {"width": 0.05}),
        ("drn_a_50", 192, 8, {"width": 0.05}),
        ("context", 64, 8, {"context": Context(10)}),
        ("context", 104, 8, {"context": Context(8)}),
    ],
)
def test_a_network_moves_and_gathers_what_its_table_says(name, height, shards, options):
    model = models.create(name, num_classes=3, **options)
    assert counts(of_network(model, height, shards)) == expected(model, height, shards)


def test_a_front_end_without_padding_moves_what_its_table_says():
    model = models.create("vgg_16_front_end", num_classes=3, width=0.02, fc_channels=8)
    for height, gathers in ((496, 1), (632, 0)):
        permutes, found = counts(of_network(model, height, 8, width=380))
        assert (permutes, found) == expected(model, height, 8)
        assert found == gathers


def test_the_gradient_gathers_no_map_that_the_forward_pass_does_not():
    """A convolution's gradient exchanges for its kernel and for its input what it did itself."""
    model = models.create("drn_d_22", num_classes=3, width=0.05)
    for height, gathers in ((128, 0), (64, 4)):
        found = of_network(model, height, 8, gradient=True)
        assert counts(found)[1] == 2 * gathers
        assert expected(model, height, 8)[1] == gathers


def test_a_map_whose_rows_the_shards_do_not_divide_may_be_kept_on_fewer():
    """The stem leaves 132 rows, which 4 shards hold, each on two devices; no halo is wide."""
    model = Network((Stage("stem", "conv", 2, kernel=7, stride=2), Stage("level", "conv", 2)), 3)
    assert expected(model, 264, 8)[1] == 0
    [gathered] = [c for c in of_network(model, 264, 8) if c.kind == "all-gather"]
    assert gathered.devices == 2


def test_one_shard_needs_nothing():
    assert not any(h.rows for h in halo.of_layers(models.table("drn_d_22"), 64, 1))
    assert halo.least_height(models.table("drn_d_22"), 1, 8) == 8
