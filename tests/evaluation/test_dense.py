"""The map of an image of any size is that of the image computed whole."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.evaluation import dense, windows
from drn_jax.evaluation.dense import ClassMaps, activation_gb, default_sides, for_memory
from drn_jax.models import create, preprocessing, rows_of
from drn_jax.models.context import Context, ContextModule
from drn_jax.models.dilation import ContextNetwork
from drn_jax.models.inputs import Preprocess
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage

QUICK = {"xla_backend_optimization_level": 0}
"""To compile."""

PREPROCESS = Preprocess((0.5, 0.4, 0.3), (0.3, 0.2, 0.25))

PADDED = Network(
    (
        Stage("stem", "conv", 4, kernel=5),
        Stage("pool", "max_pool", 4, stride=2),
        Stage("level1", "basic", 6, stride=2, dilation=2),
    ),
    num_classes=3,
)
SURROUNDED = ContextNetwork(
    Network(
        (
            Stage("conv1", "plain", 6, kernel=5, padding=0),
            Stage("pool1", "max_pool", 6, stride=2, kernel=2, padding=0, ceil=True),
            Stage("conv2", "plain", 6, padding=0, dilation=3),
            Stage("pool2", "max_pool", 6, stride=2, kernel=2, padding=0, ceil=True),
            Stage("conv3", "plain", 6, padding=0, dilation=2),
        ),
        num_classes=3,
    ),
    ContextModule(3, Context(4)),
)
MIRRORED = ContextNetwork(PADDED, ContextModule(3, Context(4, padding="mirror")))


def image_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole(model, preprocess, variables, image):
    """The map of one image, compiled for its size."""

    def apply(variables, images):
        return model.apply(variables, preprocess(images))[1]["logits_2d"]

    return np.asarray(jax.jit(apply, compiler_options=QUICK)(variables, image[None]))[0]


def assert_same(found, expected):
    assert found.dtype == np.float32
    spread = np.abs(expected).max()
    assert expected.std() > 1e-3 * spread  # The network is not dead.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * spread)


@pytest.fixture
def maps_of(variables_of):
    """Class maps of a small network."""

    def maps_of(model, *, margin=0, **options):
        preprocess = Preprocess(PREPROCESS.mean, PREPROCESS.std, margin=margin)
        variables = variables_of(model, (1, 64 + 2 * margin, 64 + 2 * margin, 3))
        return ClassMaps(model, preprocess, variables, **options)

    return maps_of


@pytest.mark.parametrize(
    ("name", "options", "width", "side", "size"),
    [
        ("drn_d_22", {}, 1 / 16, 592, (619, 597)),
        ("dilation8_camvid", {"fc_channels": 240}, 1 / 16, 600, (619, 605)),
    ],
)
def test_tiled_equals_untiled_for_the_published_tables(
    name, options, width, side, size, variables_of
):
    """Sides divide by neither stride nor window; four windows that overlap."""
    model, preprocess = create(name, 5, width, **options), preprocessing(name, **options)
    variables, image = variables_of(model, (1, 400, 400, 3)), image_of(*size)
    maps = ClassMaps(model, preprocess, variables, (side,))
    assert len(maps.pieces(*size)) == 4
    found = maps(image)
    assert found.shape == (-(-size[0] // 8), -(-size[1] // 8), 5)
    assert_same(found, whole(model, preprocess, variables, image))
    assert maps.compiled == 1


@pytest.mark.parametrize(
    ("model", "margin", "smallest"),
    [(PADDED, 0, 1), (SURROUNDED, 16, 1), (MIRRORED, 0, 25)],
    ids=["padded", "surrounded", "mirrored"],
)
def test_images_of_all_sizes_need_no_more_programs_than_there_are_windows(
    model, margin, smallest, maps_of
):
    rows = rows_of(model)
    tile = windows.least_side(rows, margin) + 5
    maps = maps_of(model, margin=margin, sides=(tile, 16), batch=3)
    rng, used = np.random.default_rng(3), set()
    for number in range(20):
        size = tuple(int(n) for n in rng.integers(smallest, 2 * tile, 2))
        used.add(maps.side_for(*size))
        image = image_of(*size, seed=number)
        found = maps(image)
        assert maps.compiled == len(used)
        if number % 4 == 0:
            assert_same(found, whole(model, maps.preprocess, maps.variables, image))
    assert used <= {(tile, tile), (16, 16)}


def test_surroundings_are_mirrored_again_where_the_image_is_smaller(maps_of):
    """Images of 1 to 9 pixels a side, with 16 mirrored ones around."""
    maps = maps_of(SURROUNDED, margin=16, sides=(80,))
    for size in [(1, 1), (1, 9), (3, 2), (7, 5)]:
        image = image_of(*size)
        expected = whole(SURROUNDED, maps.preprocess, maps.variables, image)
        np.testing.assert_allclose(maps(image), expected, atol=1e-5 * np.abs(expected).max())


def test_a_margin_smaller_by_a_stride_leaves_seams(maps_of, monkeypatch):
    maps, image, true = maps_of(PADDED, sides=(64,)), image_of(150, 90), windows.reach
    expected = whole(PADDED, maps.preprocess, maps.variables, image)
    assert_same(maps(image), expected)
    for side in ("before", "after"):

        def smaller(table, side=side):
            reach = true(table)
            return type(reach)(**{**vars(reach), side: getattr(reach, side) - reach.stride})

        monkeypatch.setattr(windows, "reach", smaller)
        assert np.abs(maps(image) - expected).max() > 1e-4 * np.abs(expected).max()


def test_windows_may_be_rectangles_and_the_smallest_that_holds_the_image_is_taken(maps_of):
    maps = maps_of(PADDED, sides=((64, 128), 64, 32))
    assert maps.sides == ((32, 32), (64, 64), (64, 128))
    assert [maps.side_for(*s) for s in [(32, 32), (33, 9), (64, 65), (9, 500)]] == [
        (32, 32),
        (64, 64),
        (64, 128),
        (64, 128),
    ]
    thin = maps_of(PADDED, sides=((8, 900), 48))
    assert (thin.side_for(8, 900), thin.side_for(9, 900)) == ((8, 900), (48, 48))
    image = image_of(61, 127)
    assert len(maps.pieces(61, 127)) == 1
    assert_same(maps(image), whole(PADDED, maps.preprocess, maps.variables, image))


def test_devices_share_a_batch_of_windows(maps_of):
    maps = maps_of(PADDED, sides=(64,), batch=8, all_devices=True)
    image = image_of(170, 131)
    assert len(maps.pieces(170, 131)) > 8
    assert_same(maps(image), whole(PADDED, maps.preprocess, maps.variables, image))
    with pytest.raises(UserError, match="batch = 12: give a multiple of the 8 devices"):
        maps_of(PADDED, batch=12, all_devices=True)


def test_what_cannot_be_computed_is_refused(maps_of):
    least = windows.least_side(PADDED.table)
    small = maps_of(PADDED, sides=(least - 1,))
    assert small(image_of(least - 1, 8)).shape == (least // 4, 2, 3)
    with pytest.raises(UserError, match=f"{least} pixels .* windows of {least - 1},"):
        small(image_of(8, least))
    with pytest.raises(UserError, match="sides is empty"):
        maps_of(PADDED, sides=())
    with pytest.raises(UserError, match="batch = 0"):
        maps_of(PADDED, batch=0)
    maps = maps_of(MIRRORED)
    with pytest.raises(UserError, match="map of 1x2 is too small for this context module"):
        maps(image_of(4, 8))
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\], got float64 \(4, 8, 3\)"):
        maps(np.zeros((4, 8, 3)))


@cache
def published(name):
    return create(name).table, preprocessing(name).margin


@pytest.mark.parametrize("name", ["drn_d_22", "drn_d_105", "dilation8_camvid", "resnet_50"])
def test_default_sides_end_with_one_that_is_half_new_when_it_tiles(name):
    rows, margin = published(name)
    reach, sides = windows.reach(rows), default_sides(rows, margin)
    assert sides[:3] == (128, 256, 512)
    assert list(sides) == sorted(set(sides))

    def new(side):
        return reach.stride * reach.core(side + 2 * margin)

    assert 2 * new(sides[-1]) >= sides[-1]
    assert 2 * new(sides[-1] - 32) < sides[-1] - 32


@pytest.mark.parametrize("name", ["drn_d_22", "drn_d_105", "dilation8_camvid"])
def test_windows_for_a_memory_fit_in_it_and_tile(name):
    rows, margin = published(name)
    largest = activation_gb(rows, default_sides(rows, margin)[-1] + 2 * margin)
    least = activation_gb(rows, windows.least_side(rows, margin) + 32 + 2 * margin)
    assert for_memory(rows, largest, margin) == default_sides(rows, margin)
    middle = (least + largest) / 2
    for batch in (1, 3):
        sides = for_memory(rows, batch * middle, margin, batch)
        assert sides[-1] >= windows.least_side(rows, margin)
        assert activation_gb(rows, sides[-1] + 2 * margin) <= middle
        assert activation_gb(rows, sides[-1] + 32 + 2 * margin) > middle
        assert list(sides) == sorted(set(sides))
    with pytest.raises(UserError, match=r"0\.01 GB are not enough .* give \d+\.\d\d GB or more"):
        for_memory(rows, 0.01, margin)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_activations_are_estimated_near_what_the_compiler_plans(kind):
    rows = (
        Stage("stem", "conv", 16, kernel=7),
        Stage("level1", "conv", 16, stride=2),
        Stage("level2", kind, 32, 2, stride=2),
        Stage("level3", kind, 64, 2, dilation=2),
    )
    model = Network(rows, 5, convolution="native")
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    valid = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)

    def apply(variables, images, valid):
        return model.apply(variables, images, valid=valid)[1]["logits_2d"]

    program = jax.jit(apply).lower(shapes, image, valid).compile()
    planned = program.memory_analysis().temp_size_in_bytes / 1e9
    assert planned / 1.3 < activation_gb(model.table, 256) < 2 * planned


def test_the_default_window_is_the_one_of_the_table(maps_of):
    assert maps_of(PADDED).sides[-1] == (512, 512)
    assert dense.SMALLEST == 128
