"""Every program computes the same convolution and gradients, and each is chosen where it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from drn_jax import models
from drn_jax.errors import UserError
from drn_jax.models import winograd
from drn_jax.models.convolution import choose, dilated_conv
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage
from drn_jax.models.winograd import winograd_conv


@pytest.fixture
def doubles():
    """Float64, in which transforms that are wrong show, and rounding does not."""
    with jax.enable_x64(True):
        yield


def drawn(*shape, dtype=np.float64):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


def value_and_gradients(conv, x, kernel):
    y, back = jax.vjp(conv, x, kernel)
    return y, *back(drawn(*y.shape, dtype=y.dtype))


def relative(found, wanted):
    return float(jnp.abs(found - wanted).max() / jnp.abs(wanted).max())


@pytest.mark.parametrize("tile", [2, 4])
def test_the_transforms_are_exact(tile):
    """In one dimension: A^T [(G g) * (B^T d)] is the correlation of d with g, up to the rounding of
    fractions to float64."""
    a, g, b = winograd.matrices(tile)
    rng = np.random.default_rng(tile)
    kernel, data = rng.integers(-9, 10, 3), rng.integers(-9, 10, tile + 2)
    found = a @ ((g @ kernel) * (b @ data))
    np.testing.assert_allclose(found, np.correlate(data, kernel), atol=1e-12)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize(("dilation", "padding"), [(1, 1), (1, 0), (3, 3), (4, 1), (2, 5)])
def test_winograd_and_its_gradients_equal_the_definition(doubles, tile, dilation, padding):
    """Sizes that no tile divides; paddings below, at and above what keeps the size."""
    x, kernel = drawn(2, 13, 18, 3), drawn(3, 3, 3, 4)

    def native(x, kernel):
        return dilated_conv(x, kernel, dilation=dilation, padding=padding, method="native")

    def tiled(x, kernel):
        return winograd_conv(x, kernel, dilation, padding, tile)

    both = [jax.jit(lambda x, k, f=f: value_and_gradients(f, x, k)) for f in (native, tiled)]
    for wanted, found in zip(*(f(x, kernel) for f in both), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_winograd_is_differentiated_twice_in_reverse_and_not_forward(doubles):
    x, kernel = drawn(1, 6, 6, 2), drawn(3, 3, 2, 2)

    def norm(conv):
        def of_kernel(kernel):
            return jnp.square(jax.grad(lambda x: jnp.sin(conv(x, kernel)).sum())(x)).sum()

        return jax.jit(jax.grad(of_kernel))(kernel)

    wanted = norm(lambda x, k: dilated_conv(x, k, padding=1, method="native"))
    np.testing.assert_allclose(norm(lambda x, k: winograd_conv(x, k, 1, 1, 4)), wanted, atol=1e-10)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: winograd_conv(x, kernel, 1, 1, 2), (x,), (x,))


@pytest.mark.parametrize(("tile", "least", "most"), [(2, 0, 2e-6), (4, 1e-6, 8e-6)])
def test_a_tile_of_2_rounds_finely_and_one_of_4_more_coarsely(tile, least, most):
    """Float32 against float64, as in level 6 of a DRN: 256 channels behind a ReLU, dilation 4."""
    x = jnp.maximum(drawn(2, 16, 16, 256, dtype=np.float32), 0)
    kernel = drawn(3, 3, 256, 64, dtype=np.float32)
    with jax.enable_x64(True):
        doubles = (jnp.asarray(np.asarray(values, np.float64)) for values in (x, kernel))
        exact = dilated_conv(*doubles, dilation=4, padding=4, method="native")
    found = jax.jit(winograd_conv, static_argnums=(2, 3, 4))(x, kernel, 4, 4, tile)
    assert found.dtype == jnp.float32
    assert least < relative(np.asarray(found, np.float64), np.asarray(exact)) < most


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_1x1_convolution_is_a_matrix_product_without_one(stride):
    x, kernel = drawn(2, 9, 10, 5, dtype=np.float32), drawn(1, 1, 5, 4, dtype=np.float32)

    def conv(method):
        return lambda x, k: value_and_gradients(
            lambda x, k: dilated_conv(x, k, stride=stride, method=method), x, k
        )

    program = jax.jit(conv("auto")).lower(x, kernel).as_text()
    assert "convolution" not in program
    assert "convolution" in jax.jit(conv("native")).lower(x, kernel).as_text()
    for found, wanted in zip(conv("auto")(x, kernel), conv("native")(x, kernel), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


WIDE = {"x": (8, 28, 28, 512), "kernel": (3, 3, 512, 512), "dtype": jnp.float32, "padding": 1}


@pytest.mark.parametrize(
    ("method", "backend", "changed", "program"),
    [
        ("auto", "cpu", {}, "winograd4"),
        ("auto", "cpu", {"dilation": 4, "padding": 4}, "winograd4"),
        ("auto", "cpu", {"dilation": 16, "padding": 16}, "winograd2"),
        ("winograd4", "cpu", {"dilation": 16, "padding": 16}, "native"),
        ("auto", "cpu", {"dilation": 27, "padding": 27}, "native"),
        ("auto", "gpu", {}, "native"),
        ("auto", "tpu", {}, "native"),
        ("winograd2", "cpu", {}, "winograd2"),
        ("winograd4", "gpu", {}, "winograd4"),
        ("native", "cpu", {}, "native"),
        ("auto", "cpu", {"dtype": jnp.bfloat16}, "native"),
        ("winograd4", "cpu", {"dtype": jnp.bfloat16}, "native"),
        ("auto", "cpu", {"stride": 2}, "native"),
        ("auto", "cpu", {"x": (8, 224, 224, 16), "kernel": (3, 3, 16, 16)}, "native"),
        ("auto", "cpu", {"x": (1, 16, 16, 512)}, "native"),
        ("auto", "cpu", {"x": (8, 28, 28, 512), "padding": 0, "dilation": 14}, "native"),
        ("auto", "cpu", {"kernel": (1, 1, 512, 512), "padding": 0, "stride": 2}, "dot"),
        ("winograd2", "cpu", {"kernel": (1, 1, 512, 512), "padding": 0}, "dot"),
        ("auto", "gpu", {"kernel": (1, 1, 512, 512), "padding": 0}, "native"),
        ("native", "cpu", {"kernel": (1, 1, 512, 512), "padding": 0}, "native"),
        ("auto", "cpu", {"kernel": (1, 1, 512, 512), "padding": 1}, "native"),
        ("auto", "cpu", {"kernel": (7, 7, 512, 512), "padding": 3}, "native"),
    ],
)
def test_the_program_follows_from_backend_shape_and_dtype(method, backend, changed, program):
    assert choose(method, backend, **(WIDE | changed)) == program


STAGES = (
    Stage("stem", "conv", 64, kernel=7, stride=2),
    Stage("level2", "basic", 64, dilation=2),
    Stage("level3", "bottleneck", 64, dilation=4, stride=2),
)


def test_a_network_and_its_gradient_are_the_same_by_every_program(variables_of):
    images = drawn(3, 60, 52, 3, dtype=np.float32)
    variables = variables_of(Network(STAGES, 5), (1, 8, 8, 3))

    def loss_and_gradient(method):
        def loss(params):
            model = Network(STAGES, 5, convolution=method)
            (logits, features), _ = model.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.square(logits).mean(), features

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    (_, features), gradient = loss_and_gradient("native")
    for method in ("auto", "winograd2"):
        (_, found), slope = loss_and_gradient(method)
        for name, wanted in features.items():
            assert relative(found[name], wanted) < 1e-5
        for wanted, ours in zip(*map(jax.tree.leaves, (gradient, slope)), strict=True):
            assert relative(ours, wanted) < 1e-3


def test_tiles_of_split_examples_need_no_communication_but_the_kernels_gradient():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    x = jax.ShapeDtypeStruct((8, 10, 10, 4), jnp.float32, sharding=split)
    kernel = jax.ShapeDtypeStruct((3, 3, 4, 4), jnp.float32, sharding=whole)

    def compiled(f, *results):
        return jax.jit(f, out_shardings=results).lower(x, kernel).compile().as_text()

    def conv(x, kernel):
        return winograd_conv(x, kernel, 2, 2, 4)

    def both(x, kernel):
        return jax.vjp(conv, x, kernel)[1](x)

    forward = compiled(lambda *a: (conv(*a),), split)
    backward = compiled(both, split, whole)
    assert not any(f" {c}(" in forward for c in ("all-reduce", "all-gather", "collective-permute"))
    assert " all-reduce(" in backward
    assert not any(f" {c}(" in backward for c in ("all-gather", "collective-permute"))


def test_an_unknown_method_is_refused_with_an_offer():
    with pytest.raises(UserError, match=r"config.model.convolution = 'winograd'.*winograd2"):
        models.create("drn_c_26", convolution="winograd")  # pyright: ignore[reportArgumentType]
