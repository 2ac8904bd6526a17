"""Windows take every cell once, and hold all that it sees."""

import jax
import numpy as np
import pytest

from drn_jax.errors import UserError
from drn_jax.evaluation import windows
from drn_jax.evaluation.windows import Reach
from drn_jax.models import create, preprocessing, rows_of, table
from drn_jax.models.context import Context
from drn_jax.models.stages import cells, least_size

MIRRORED = create("drn_d_22", 2, 1 / 64, context=Context(7, padding="mirror"))

TABLES = {
    "drn_d_22": table("drn_d_22"),
    "drn_a_50": table("drn_a_50"),
    "resnet_18": table("resnet_18"),
    "vgg_16": table("vgg_16"),
    "vgg_16_front_end": table("vgg_16_front_end"),
    "dilation8_camvid": create("dilation8_camvid").table,
    "mirrored": rows_of(MIRRORED),
}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("drn_d_22", 263, 263),
        ("drn_d_105", 531, 531),
        ("vgg_16_front_end", 0, 379),
        ("dilation8_camvid", 264, 379 + 264),
        ("dilation10_cityscapes", 1032, 379 + 1032),
    ],
)
def test_reach_is_that_of_the_published_receptive_fields(name, before, after):
    assert windows.reach(create(name).table) == Reach(before, after, 8)


def seen(model, height, wide, rows):
    """Which cells of a column see a row of the input, bool [len(rows), h]: with positive weights an
    infinite pixel leaves nothing finite that is computed from it."""
    images = np.zeros((len(rows), height, wide, 3), np.float32)
    for image, row in zip(images, rows, strict=True):
        image[row] = np.inf

    def apply(images):
        return model.apply(variables, images)[1]["logits_2d"]

    shapes = jax.eval_shape(model.init, jax.random.key(0), images[:1])
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    found = jax.jit(apply, compiler_options={"xla_backend_optimization_level": 0})(images)
    return ~np.isfinite(np.asarray(found)).any((2, 3))


@pytest.mark.parametrize(
    ("name", "options", "height", "wide"),
    [
        ("drn_d_22", {}, 1200, 1),
        ("resnet_18", {}, 1120, 1),
        ("dilation8_camvid", {"fc_channels": 64}, 372 + 1100, 373),
    ],
)
def test_a_cell_sees_its_reach_to_the_pixel_and_no_more(name, options, height, wide):
    """So that margins are enough, and none a pixel smaller would be."""
    model = create(name, 2, 1 / 64, **options)
    reach = windows.reach(rows_of(model))
    first = reach.stride * np.arange(cells(model.table, height))
    middle = first[len(first) // 2]
    rows = [middle - reach.before - 1, middle - reach.before, middle + reach.after, middle + 5]
    expected = [(first - reach.before <= row) & (row <= first + reach.after) for row in rows]
    found = seen(model, height, wide, rows)
    np.testing.assert_array_equal(found, expected)
    assert list(found[:, len(first) // 2]) == [False, True, True, True]


@pytest.mark.parametrize("name", TABLES)
def test_windows_give_every_cell_once_and_hold_what_it_sees(name):
    rows = TABLES[name]
    reach, rng = windows.reach(rows), np.random.default_rng(0)
    least = reach.least_side
    for _ in range(30):
        length = int(rng.integers(least_size(rows), 6 * least))
        side = least + int(rng.integers(0, 3 * reach.stride))
        found, taken = windows.along(rows, length, side), []
        for window in found:
            assert window.start % reach.stride == 0
            assert window.valid == min(side, length - window.start) > 0
            own = window.local(reach.stride)
            assert own.start >= 0
            assert own.stop <= cells(rows, window.valid)
            taken += range(window.first, window.stop)
            for cell in range(window.first, window.stop):
                # What lies beyond the axis is padding in the window and in the whole.
                low = max(0, reach.stride * cell - reach.before)
                high = min(length - 1, reach.stride * cell + reach.after)
                assert window.start <= low
                assert high < window.start + window.valid
        assert taken == list(range(cells(rows, length)))


@pytest.mark.parametrize("name", TABLES)
def test_an_axis_that_fits_is_one_window(name):
    rows = TABLES[name]
    side = windows.reach(rows).least_side
    (window,) = windows.along(rows, side, side)
    assert (window.start, window.valid, window.first) == (0, side, 0)
    assert len(windows.along(rows, side + 40, side)) > 1


def test_a_window_too_small_to_tile_is_refused_with_the_least_that_does():
    rows, margin = TABLES["dilation8_camvid"], preprocessing("dilation8_camvid").margin
    assert windows.least_side(rows) == 264 + 643 + 1
    least = windows.least_side(rows, margin)
    assert least == 264 + 643 + 1 - 2 * 186
    for around, side in ((0, 908), (margin, least)):
        assert len(windows.along(rows, 2000, side, around)) > 1
        message = f"an image of 2000 pixels is cut into windows of {side - 1},.* at least {side}$"
        with pytest.raises(UserError, match=message):
            windows.along(rows, 2000, side - 1, around)
        assert len(windows.along(rows, side - 1, side - 1, around)) == 1


def test_the_margin_counts_in_the_places_of_windows():
    rows, margin = TABLES["dilation8_camvid"], 186
    inner, outer = windows.along(rows, 1500, 700, margin), windows.along(rows, 1872, 1072)
    assert inner == outer
    assert inner[-1].start + inner[-1].valid == 1500 + 2 * margin


def test_a_mirroring_module_reaches_as_far_as_one_that_pads():
    padded = create("drn_d_22", 2, 1 / 64, context=Context(7, padding="once"))
    assert windows.reach(rows_of(MIRRORED)) == windows.reach(padded.table)
    assert windows.reach(padded.table).before == 263 + 8 * 17
