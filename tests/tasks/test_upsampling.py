"""Upsampling is the published transposed convolution, bilinear resizing, or fyu/dilation's zoom,
cell for cell; labels lie under the cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from drn_jax.analysis.collectives import of_program
from drn_jax.tasks import upsampling

upsample = jax.jit(upsampling.upsample, static_argnums=(1, 2, 3))
MAP = np.random.default_rng(0).normal(size=(2, 3, 5, 2)).astype(np.float32)


def transposed_convolution(x, stride):
    """Each cell scatters the fixed bilinear kernel of fyu/drn: size 2s, stride s, padding s/2."""
    size, pad = 2 * stride, stride // 2
    f, c = stride, (2 * stride - 1) / (2 * stride)
    kernel = 1 - np.abs(np.arange(size) / f - c)
    n, h, w, channels = x.shape
    full = np.zeros((n, (h + 1) * stride, (w + 1) * stride, channels))
    for i, j, u, v in np.ndindex(h, w, size, size):
        full[:, i * stride + u, j * stride + v] += kernel[u] * kernel[v] * x[:, i, j]
    return full[:, pad : pad + h * stride, pad : pad + w * stride]


def interpolated(x, factor):
    """Bilinear interpolation between cell centres, the outermost cells going on for ever."""
    n, h, w, channels = x.shape
    y = np.zeros((n, h * factor, w * factor, channels))

    def neighbours(pixel, cells):
        place = (pixel + 0.5) / factor - 0.5
        low = int(np.floor(place))
        for cell, weight in ((low, low + 1 - place), (low + 1, place - low)):
            yield min(max(cell, 0), cells - 1), weight

    for i, j in np.ndindex(h * factor, w * factor):
        for a, wa in neighbours(i, h):
            for b, wb in neighbours(j, w):
                y[:, i, j] += wa * wb * x[:, a, b]
    return y


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_zero_border_equals_the_published_transposed_convolution(factor):
    y = upsample(MAP, factor, "zero")
    np.testing.assert_allclose(y, transposed_convolution(MAP, factor), atol=1e-6)


@pytest.mark.parametrize("factor", [1, 3, 8])
def test_clamped_border_equals_bilinear_interpolation_between_pixel_centres(factor):
    y = upsample(MAP, factor, "clamp")
    np.testing.assert_allclose(y, interpolated(MAP, factor), atol=1e-6)


def test_clamped_border_equals_the_bilinear_resize_of_jax():
    resized = jax.image.resize(MAP, (2, 24, 40, 2), "bilinear")
    np.testing.assert_allclose(upsample(MAP, 8, "clamp"), resized, atol=1e-5)


def test_map_of_one_cell_is_spread_out():
    one = np.full((1, 1, 1, 1), 3, np.float32)
    np.testing.assert_array_equal(upsample(one, 4, "clamp"), np.full((1, 4, 4, 1), 3, np.float32))


def test_constant_map_stays_constant_when_clamped_and_fades_at_the_edge_otherwise():
    constant = np.full((1, 3, 4, 1), 2, np.float32)
    np.testing.assert_array_equal(upsample(constant, 8, "clamp"), 2)
    faded = np.asarray(upsample(constant, 8, "zero"))[0, :, :, 0]
    np.testing.assert_array_equal(faded[4:-4, 4:-4], 2)
    assert faded[0, 16] == 2 * (1 - 3.5 / 8)


QUICK = {"xla_backend_optimization_level": 0}


def enlarged_and_pulled(border):
    """The program of upsampling by 8 and of its gradient."""

    def run(x, pull):
        y, back = jax.vjp(lambda x: upsampling.upsample(x, 8, border), x)
        return y, back(pull)[0]

    return run


@pytest.mark.parametrize("border", ["clamp", "zero"])
def test_rows_over_devices_exchange_only_their_neighbouring_cells(border):
    """Split along the height, each device needs a halo, and no device needs the whole map. Clamped
    edges go to all as a sum, of two rows and the gradients of two."""
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec(None, "rows"))
    rng = np.random.default_rng(1)
    x, pull = (rng.normal(size=(2, 16 * s, 6 * s, 3)).astype(np.float32) for s in (1, 8))
    run = enlarged_and_pulled(border)
    program = jax.jit(run, in_shardings=(rows, rows), out_shardings=rows)
    compiled = program.lower(x, pull).compile(QUICK)
    exchanges = of_program(compiled.as_text())
    row = x[:, :1].nbytes
    assert {c.kind for c in exchanges} <= {"collective-permute", "all-reduce"}
    assert max(c.bytes for c in exchanges) <= 4 * row
    found = compiled(*jax.device_put((x, pull), rows))
    for a, b in zip(found, jax.jit(run)(x, pull), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("border", ["clamp", "zero"])
def test_examples_over_devices_exchange_nothing(border):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    examples = NamedSharding(mesh, PartitionSpec("data"))
    program = jax.jit(
        enlarged_and_pulled(border), in_shardings=(examples, examples), out_shardings=examples
    )
    x, pull = (jax.ShapeDtypeStruct((8, 4 * s, 6 * s, 3), jnp.float32) for s in (1, 8))
    assert of_program(program.lower(x, pull).compile(QUICK).as_text()) == ()


@pytest.mark.parametrize("border", ["clamp", "zero"])
@pytest.mark.parametrize("alignment", ["centre", "corner"])
def test_gradient_is_the_transpose_of_upsampling(border, alignment):
    """Summed over all pixels with any weights, by the matrix of each axis in float64."""
    pull = np.random.default_rng(2).normal(size=(2, 24, 40, 2)).astype(np.float32)

    def matrix(cells):
        """[pixels, cells] of one axis; along the other all is the same but near the border."""
        units = np.eye(cells, dtype=np.float32)[:, :, None, None].repeat(3, 2)
        return np.asarray(upsample(units, 8, border, alignment), np.float64)[:, :, 12, 0].T

    down, along = matrix(3), matrix(5)
    _, back = jax.vjp(lambda x: upsampling.upsample(x, 8, border, alignment), MAP)
    expected = np.einsum("nijc,ia,jb->nabc", pull.astype(np.float64), down, along)
    np.testing.assert_allclose(back(pull)[0], expected, rtol=1e-4, atol=1e-4)


def zoomed(x, factor):
    """fyu/dilation's: cell k at pixel factor*k, linear between, the last cell beyond it."""
    n, h, w, channels = x.shape
    y = np.zeros((n, h * factor, w * factor, channels))
    for i, j in np.ndindex(h * factor, w * factor):
        (a, down), (b, along) = divmod(i, factor), divmod(j, factor)
        below, right = min(a + 1, h - 1), min(b + 1, w - 1)
        down, along = down / factor, along / factor
        top = (1 - along) * x[:, a, b] + along * x[:, a, right]
        bottom = (1 - along) * x[:, below, b] + along * x[:, below, right]
        y[:, i, j] = (1 - down) * top + down * bottom
    return y


@pytest.mark.parametrize("factor", [1, 3, 8])
def test_corner_equals_the_published_zoom(factor):
    y = upsample(MAP, factor, "clamp", "corner")
    np.testing.assert_allclose(y, zoomed(MAP, factor), atol=1e-6)
    np.testing.assert_array_equal(y[:, ::factor, ::factor], MAP)


def test_centre_is_the_default_and_half_a_cell_less_half_a_pixel_away_from_corner():
    ramp = np.tile(np.arange(6, dtype=np.float32)[None, None, :, None], (1, 1, 1, 1))
    centre, corner = (upsample(ramp, 8, "clamp", a)[0, 0, 8:32, 0] for a in ("centre", "corner"))
    np.testing.assert_allclose(corner - centre, 3.5 / 8, atol=1e-6)
    np.testing.assert_array_equal(upsample(MAP, 8), upsample(MAP, 8, "clamp", "centre"))


def test_border_of_zeros_fades_beyond_the_last_corner():
    constant = np.full((1, 2, 3, 1), 2, np.float32)
    faded = np.asarray(upsample(constant, 8, "zero", "corner"))[0, :, :, 0]
    np.testing.assert_array_equal(faded[:9, :17], 2)
    np.testing.assert_allclose(faded[0, 16:], 2 * (1 - np.arange(8) / 8))


@pytest.mark.parametrize("alignment", ["centre", "corner"])
@pytest.mark.parametrize(
    ("height", "width", "stride"), [(16, 24, 8), (13, 20, 8), (17, 9, 8), (7, 10, 4), (3, 3, 8)]
)
def test_sampled_takes_the_pixel_under_each_cell_and_the_last_beyond_the_edge(
    height, width, stride, alignment
):
    mask = np.arange(2 * height * width).reshape(2, height, width)
    cells = -(-height // stride), -(-width // stride)
    found = np.asarray(upsampling.sampled(jnp.asarray(mask), cells, stride, alignment))
    assert found.shape == (2, *cells)
    for n, i, j in np.ndindex(*found.shape):
        row, column = stride * i, stride * j
        if alignment == "centre":  # Lower right of the four pixels around the cell's middle.
            row, column = row + stride // 2, column + stride // 2
        assert found[n, i, j] == mask[n, min(row, height - 1), min(column, width - 1)]


@pytest.mark.parametrize("alignment", ["centre", "corner"])
@pytest.mark.parametrize("height", [128, 120])
def test_labels_under_cells_are_taken_where_they_lie(alignment, height):
    """120 rows are 15 cells, no whole number a device."""
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec(None, "rows"))
    mask = np.random.default_rng(4).integers(0, 256, (2, height, 18)).astype(np.uint8)

    def histogram(mask):
        found = upsampling.sampled(mask, (height // 8, 3), 8, alignment)
        return jax.nn.one_hot(found, 256, dtype=jnp.int32).sum((0, 1, 2))

    compiled = jax.jit(histogram, in_shardings=rows).lower(mask).compile(QUICK)
    assert {c.kind for c in of_program(compiled.as_text())} <= {"collective-permute", "all-reduce"}
    found = compiled(jax.device_put(mask, rows))
    np.testing.assert_array_equal(found, histogram(jnp.asarray(mask)))
