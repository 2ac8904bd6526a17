"""Grids are told from all that is none: on maps made to be one or the other, and on what dilated
convolutions make of others."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax import models
from drn_jax.analysis import gridding
from drn_jax.analysis.gridding import Level, of_levels, score
from drn_jax.models.convolution import dilated_conv
from drn_jax.models.stages import Stage

SIDE, CHANNELS = 28, 48
PERIODS = (2, 3, 4)
ROWS, COLUMNS = (axis[..., None] for axis in np.mgrid[:SIDE, :SIDE].astype(float))


def rng(seed=0):
    return np.random.default_rng(seed)


def grid(period, down=None, height=SIDE, width=SIDE, channels=CHANNELS):
    """Any pattern of `period` cells, of `down` rows, repeated."""
    cell = rng().normal(size=(down or period, period, channels))
    times = (-(-height // len(cell)), -(-width // period), 1)
    return np.tile(cell, times)[:height, :width]


def noise(seed=1, channels=CHANNELS):
    return rng(seed).normal(size=(SIDE, SIDE, channels))


def smooth(seed=2, longest=1.5, channels=CHANNELS):
    """Waves of any direction, at most `longest` of them on the map."""
    draw = rng(seed)
    waves = 0.0
    for _ in range(6):
        down, right = draw.uniform(-longest / SIDE, longest / SIDE, (2, channels))
        phase = draw.uniform(0, 1, channels)
        waves = waves + np.sin(2 * np.pi * (down * ROWS + right * COLUMNS + phase))
    return waves


def unit(maps):
    """Of mean 0 and mean square 1, each channel."""
    maps = maps - maps.mean((0, 1))
    return maps / maps.std((0, 1))


def stripes(wave, channels=CHANNELS):
    """Along the rows' direction constant, one phase a channel."""
    phase = rng(3).uniform(0, 1, channels)
    return np.sin(2 * np.pi * (COLUMNS / wave + phase)) + 0 * ROWS


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize(("height", "width"), [(28, 28), (17, 30), (16, 16), (41, 23)])
def test_a_grid_scores_1_on_a_map_of_any_size(period, height, width):
    assert score(grid(period, height=height, width=width), period) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("period", PERIODS)
def test_a_grid_along_one_axis_alone_scores_1(period):
    assert score(grid(period, down=1), period) == pytest.approx(1, abs=1e-12)


def test_a_grid_has_the_period_of_its_multiples_and_of_no_other():
    assert score(grid(2), 4) == pytest.approx(1, abs=1e-12)
    assert score(grid(3), 2) < 0.02
    assert score(grid(3), 4) < 0.02
    assert score(grid(4), 3) < 0.02


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize(
    "flat",
    [0 * ROWS * COLUMNS + 0.1, 0.1 * COLUMNS + 0 * ROWS, 1e6 + 0.3 * ROWS - 0.1 * COLUMNS],
    ids=["constant", "ramp", "oblique ramp"],
)
def test_constants_and_ramps_score_0(period, flat):
    assert score(flat, period) < 1e-15


@pytest.mark.parametrize("period", PERIODS)
def test_smooth_maps_score_next_to_nothing(period):
    assert score(smooth(), period) < 0.002


@pytest.mark.parametrize("period", PERIODS)
def test_white_noise_scores_nothing_over_many_channels(period):
    assert score(noise(channels=256), period) < 0.005


@pytest.mark.parametrize("wave", [3, 5.3, 8, 6, 2.5])
def test_stripes_of_another_wavelength_score_0(wave):
    """Though every cell agrees with those below it."""
    assert score(stripes(wave), 4) == 0
    assert score(stripes(wave).transpose(1, 0, 2), 4) == 0


@pytest.mark.parametrize("wave", [3, 5.3, 8])
def test_stripes_of_both_directions_score_0(wave):
    assert score(stripes(wave) + stripes(wave).transpose(1, 0, 2), 4) == 0


@pytest.mark.parametrize("phases", [0.3, 0.4, 0.5])
def test_oblique_waves_score_0(phases):
    """Though cells across both axes agree: half a wave down and half a wave right."""
    wave = np.sin(2 * np.pi * phases * (ROWS + COLUMNS) / 4)
    assert score(wave, 4) == 0


def test_white_stripes_score_little():
    lines = rng().normal(size=(1, SIDE, 256)) + 0 * ROWS
    assert score(lines, 4) < 0.05
    assert score(lines, 3) < 0.05
    assert score(lines, 2) < 0.1


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("other", [smooth, noise])
def test_the_score_of_a_mixture_is_the_share_of_the_grid(period, other):
    """To within what of white noise the box keeps, and of a grid a smooth map hides."""
    one, two = unit(grid(period)), unit(other())
    shares = np.linspace(0, 1, 11)
    scores = [score(np.sqrt(a) * one + np.sqrt(1 - a) * two, period) for a in shares]
    assert np.diff(scores).min() > 0.05
    assert np.abs(np.array(scores) - shares).max() < 0.07


def test_a_grid_whose_phase_changes_over_the_map_still_scores():
    """The mean over all cells of a phase sees nothing: what one half has, the other lacks. Of the
    32 pairs 4 cells apart in a row that the box leaves 4 disagree, and 8 of the 28 pairs 8 apart.
    """
    grids = grid(4, width=40)
    halves = np.concatenate([grids[:, :20], -grids[:, 20:]], 1)
    assert np.abs(halves.reshape(7, 4, 10, 4, -1).mean((0, 2))).max() < 1e-12
    assert score(halves, 4) == pytest.approx((24 + 12) / (32 + 28), abs=0.1)


def test_a_grid_in_one_part_of_the_map_scores_by_its_share_of_the_energy():
    """Its strength rises and falls; elsewhere the map is smooth."""
    window = np.exp(-((ROWS - 14) ** 2 + (COLUMNS - 14) ** 2) / (2 * 6**2))
    local, rest = unit(grid(4)) * window, unit(smooth())
    scores = [score(local + strength * rest, 4) for strength in (0, 0.3, 1, 3)]
    assert scores[0] > 0.6
    assert np.diff(scores).max() < -0.02


@pytest.mark.parametrize("period", PERIODS)
def test_scale_constants_transposition_and_shifts_change_nothing(period):
    longer = np.sqrt(0.5) * unit(grid(period, height=SIDE + 9, width=SIDE + 9))
    maps = longer[:SIDE, :SIDE] + 0.5 * unit(noise())
    before = score(maps, period)
    assert 0.4 < before < 0.9
    assert score(1e-5 * maps, period) == pytest.approx(before)
    assert score(-3e4 * maps, period) == pytest.approx(before)
    assert score(maps + rng().normal(size=CHANNELS), period) == pytest.approx(before)
    assert score(maps.transpose(1, 0, 2), period) == pytest.approx(before)
    assert score(maps[::-1, ::-1], period) == pytest.approx(before)
    shifted = longer[5 : 5 + SIDE, 3 : 3 + SIDE] + 0.5 * unit(noise())
    assert score(shifted, period) == pytest.approx(before, abs=0.02)


def test_the_score_is_that_of_the_definition_spelt_out():
    """Loops over cells."""
    for period in (2, 3):
        maps = rng().normal(size=(2, 13, 14, 3)) + grid(period, height=13, width=14, channels=3)
        found = score(maps, period)
        assert 0.1 < found < 0.9
        assert found == pytest.approx(_spelt_out(maps, period))


def _spelt_out(maps, period):
    box = {2: [0.25, 0.5, 0.25], 3: [1 / 3, 1 / 3, 1 / 3]}[period]
    agree, energy, rough, rest = np.zeros(3), np.zeros(3), 0.0, 0.0
    for f in np.moveaxis(maps, 3, 1).reshape(-1, *maps.shape[1:3]):
        height, width = f.shape[0] - 2, f.shape[1] - 2
        s = np.zeros((height, width))
        for y, x, i, j in np.ndindex(height, width, 3, 3):
            s[y, x] += box[i] * box[j] * f[y + i, x + j]
        r = f[1:-1, 1:-1] - s
        rough += (r**2).sum()
        rest += ((s - s.mean()) ** 2).sum()
        for y, x, i, j in np.ndindex(height, width, 5, 5):
            i, j = i - 2, j - 2
            down, right = y + i * period, x + j * period
            if (i, j) == (0, 0) or not (0 <= down < height and 0 <= right < width):
                continue
            kind = 0 if i == 0 else 1 if j == 0 else 2
            agree[kind] += r[y, x] * r[down, right]
            energy[kind] += (r[y, x] ** 2 + r[down, right] ** 2) / 2
    return max(0.0, (agree / energy).min()) * rough / (rough + rest)


def test_maps_of_any_rank_and_type_are_taken():
    maps = (grid(4) + noise()).astype(np.float32)
    assert score(maps[None], 4) == score(maps, 4)
    assert score(maps[..., 0], 4) == score(maps[..., :1], 4)
    assert score(jnp.asarray(maps), 4) == score(maps, 4)
    assert score(jnp.asarray(maps, jnp.bfloat16), 4) == pytest.approx(score(maps, 4), abs=0.01)


def test_images_count_by_their_energy():
    """As channels do: the sums run over all before they are divided."""
    strong, weak = 10 * grid(4), noise()
    as_images, as_channels = np.stack([strong, weak]), np.concatenate([strong, weak], -1)
    assert score(as_images, 4) == pytest.approx(score(as_channels, 4))
    assert score(as_images, 4) > 0.95


@pytest.mark.parametrize(
    ("shape", "period", "message"),
    [
        ((28,), 4, "none of"),
        ((1, 1, 28, 28, 1), 4, "none of"),
        ((28, 28), 1, "2 or more"),
        ((15, 28), 4, "16 cells"),
        ((28, 7), 2, "8 cells"),
        ((28, 28, 0), 2, "too small"),
    ],
)
def test_maps_that_no_grid_can_be_told_in_are_refused(shape, period, message):
    with pytest.raises(ValueError, match=message):
        score(np.zeros(shape), period)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_that_are_not_finite_are_refused(value):
    maps = grid(4)
    maps[3, 4, 5] = value
    with pytest.raises(ValueError, match="finite"):
        score(maps, 4)


@pytest.mark.parametrize("period", PERIODS)
def test_the_least_size_is_the_least_that_is_taken(period):
    least = gridding.least_size(period)
    assert score(grid(period, height=least, width=least), period) == pytest.approx(1)


def points(channels=8):
    """Active cells here and there, as a point or a corner gives them: three a channel."""
    cells, draw = np.zeros((2, 40, 40, channels), np.float32), rng(5)
    for one in cells:
        for channel in range(channels):
            one[*draw.integers(0, 40, (2, 3)), channel] = 1
    return cells


def behind(maps, *dilations, channels=32):
    """`maps` behind random convolutions, each with batch norm and ReLU."""
    x = jnp.asarray(maps, jnp.float32)
    for layer, dilation in enumerate(dilations):
        kernel = rng(layer).normal(size=(3, 3, x.shape[-1], channels)).astype(np.float32)
        x = dilated_conv(x, jnp.asarray(kernel), dilation=dilation, padding=dilation)
        mean, deviation = (f((0, 1, 2), keepdims=True) for f in (x.mean, x.std))
        x = jnp.maximum((x - mean) / deviation, 0)
    return np.asarray(x)


@pytest.mark.parametrize("dilation", [2, 4])
def test_dilated_convolutions_make_grids_of_their_dilation_and_others_make_none(dilation):
    """The paper's claim (section 4) for random weights; the points themselves are no grid."""
    assert score(points(), dilation) < 0.005
    assert score(behind(points(), dilation), dilation) > 0.03
    found = behind(points(), *[dilation] * 4)
    assert score(found, dilation) > 0.1
    assert score(found, 3) < 0.005
    assert score(behind(points(), *[1] * 4), dilation) < 0.005


@pytest.mark.parametrize("before", [(4,), (4, 4, 4, 4), (2, 2, 4, 4)])
def test_convolutions_of_dilations_2_and_1_remove_what_those_of_4_left(before):
    """Levels 7 and 8 of DRN-B and C (paper, section 4): less than before, and than behind as many
    more of 4. Trained weights may remove more than random ones."""
    gridded = score(behind(points(), *before), 4)
    removed = score(behind(points(), *before, 2, 2, 1, 1), 4)
    assert removed < 0.95 * gridded
    assert removed < 0.85 * score(behind(points(), *before, 4, 4, 4, 4), 4)


def test_a_dilated_convolution_makes_no_grid_of_smooth_maps():
    """Gridding comes from what changes faster than the taps lie apart."""
    maps = behind(smooth(channels=8)[None], 4)[:, 4:-4, 4:-4]  # Its padding is not smooth.
    assert score(maps, 4) < 0.01


TABLE = (
    Stage("stem", "conv", 3, kernel=7),
    Stage("level1", "basic", 3, stride=2),
    Stage("level2", "basic", 3),
    Stage("level3", "basic", 3, dilation=2),
    Stage("level4", "basic", 3, dilation=4, first_dilation=(2, 4)),
    Stage("level5", "basic", 3),
)


def features_of(batch):
    """Maps that differ from stage to stage and image to image."""
    return {
        stage.name: batch + layer * grid(4, channels=3)
        for layer, stage in enumerate(TABLE)
        if stage.name != "stem"
    } | {"logits_2d": None}


def batches(*sizes):
    draw = rng(7)
    return [draw.normal(size=(size, SIDE, SIDE, 3)) for size in sizes]


def test_levels_are_the_mean_and_deviation_of_the_scores_of_every_image():
    found = of_levels(features_of, TABLE, batches(1, 1, 2))
    images = np.concatenate(batches(1, 1, 2))
    expected = []
    for stage, dilation, period in (
        ("level3", 2, 2),
        ("level4", 4, 2),
        ("level4", 4, 4),
        ("level5", 1, 2),
        ("level5", 1, 4),
    ):
        scores = [score(features_of(image)[stage], period) for image in images]
        mean = sum(scores) / 4
        deviation = math.sqrt(sum((value - mean) ** 2 for value in scores) / 3)
        expected.append((stage, dilation, period, pytest.approx(mean), pytest.approx(deviation), 4))
    assert [tuple(vars(level).values()) for level in found] == expected


def test_given_periods_are_looked_for_in_all_stages_at_the_output_stride():
    found = of_levels(features_of, TABLE, batches(1), periods=(3,))
    names = [f"level{i}" for i in range(1, 6)]
    assert [(level.stage, level.period, level.images) for level in found] == [
        (name, 3, 1) for name in names
    ]
    assert all(math.isnan(level.deviation) for level in found)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("resnet_18", []),
        ("drn_a_18", [("level4", 2, 2), ("level5", 4, 2), ("level5", 4, 4)]),
        (
            "drn_c_26",
            [
                ("level5", 2, 2),
                ("level6", 4, 2),
                ("level6", 4, 4),
                ("level7", 2, 2),
                ("level7", 2, 4),
                ("level8", 1, 2),
                ("level8", 1, 4),
            ],
        ),
    ],
)
def test_levels_of_a_network_are_those_behind_its_first_dilation(name, levels):
    table = models.table(name)
    maps = {stage.name: np.zeros((1, 16, 16, 1)) for stage in table}
    found = of_levels(lambda _: maps, table, [None])
    unknown = pytest.approx(math.nan, nan_ok=True)
    assert found == tuple(Level(*level, 0.0, unknown, 1) for level in levels)


def test_no_images_have_no_gridding():
    with pytest.raises(ValueError, match="no images"):
        of_levels(features_of, TABLE, [])


@pytest.mark.parametrize(("dilation", "kernel", "size"), [(2, 3, 7), (4, 3, 15), (1, 5, 9)])
def test_a_single_active_cell_becomes_a_grid_of_the_dilation(dilation, kernel, size):
    """Fig. 4 of the paper."""
    expected = np.zeros((size, size))
    for i, j in np.ndindex(kernel, kernel):
        middle = size // 2 - dilation * (kernel // 2)
        expected[middle + i * dilation, middle + j * dilation] = 1
    np.testing.assert_array_equal(gridding.impulse_response(dilation, kernel, size), expected)


@pytest.mark.parametrize(("kernel", "size"), [(2, 15), (3, 14)])
def test_what_has_no_middle_has_no_impulse_response(kernel, size):
    with pytest.raises(ValueError, match="odd"):
        gridding.impulse_response(2, kernel, size)
