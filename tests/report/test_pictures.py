import io

import numpy as np
import pytest
from PIL import Image

from drn_jax.report import pictures


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def decoded(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as picture:
        return np.array(picture.convert("RGB"))


def one_hot(rows: int, columns: int, row: int, column: int) -> np.ndarray:
    scores = np.zeros((rows, columns), np.float32)
    scores[row, column] = 1
    return scores


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"),
    [
        (2, 5, {19, 20}, {43, 44}),
        (0, 7, {0, 1, 2, 3}, {60, 61, 62, 63}),  # constant beyond the outermost middles
    ],
)
def test_a_one_hot_class_map_peaks_in_the_middle_of_its_cell(row, column, rows, columns):
    image = np.full((32, 64, 3), 128, np.uint8)
    light = pictures.class_map(image, one_hot(4, 8, row, column)).astype(int).sum(-1)
    peak = np.argwhere(light == light.max())
    assert (peak // 8 == (row, column)).all()
    assert set(peak[:, 0]) == rows
    assert set(peak[:, 1]) == columns


def test_a_class_map_is_bilinear_between_cell_middles_and_constant_beyond_them():
    image = np.zeros((8, 24, 3), np.uint8)
    scores = np.array([[0.0, 0.4, 0.8]])
    middles = (np.arange(3) + 0.5) * 8
    wanted = np.interp(np.arange(24) + 0.5, middles, scores[0])
    heat = pictures.heat_colors()[np.rint(wanted * 255).astype(int)]
    seen = pictures.class_map(image, scores)
    assert (seen == np.rint(0.6 * heat.astype(np.float32)).astype(np.uint8)).all()


def test_a_score_has_the_same_colour_in_every_class_map():
    image = np.full((16, 16, 3), 90, np.uint8)
    weak = pictures.class_map(image, np.full((2, 2), 0.25))
    mixed = pictures.class_map(image, [[0.25, 0.25], [1, 1]])
    assert (weak[0, 0] == mixed[0, 0]).all()
    assert weak.sum() < pictures.class_map(image, np.full((2, 2), 0.5)).sum()


def test_heat_colours_grow_lighter_with_the_score():
    luma = pictures.heat_colors() @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) > -1).all()
    assert luma[-1] - luma[0] > 200


def test_cells_keep_their_stride_where_the_image_cuts_the_last_one():
    image = np.full((20, 61, 3), 128, np.uint8)
    light = pictures.class_map(image, one_hot(3, 8, 0, 6)).astype(int).sum(-1)
    assert set(np.argwhere(light == light.max())[:, 1]) == {51, 52}


def test_cells_that_do_not_cover_the_image_are_refused():
    with pytest.raises(ValueError, match="2x2 cells of 8 pixels do not cover an image of 17x16"):
        pictures.class_map(noise(17, 16), np.zeros((2, 2)), stride=8)


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        pictures.class_map(noise(8, 8), [[np.nan]])


@pytest.mark.parametrize("classes", [1, 2, 21, 255])
def test_a_palette_has_distinct_colours_that_are_no_greys(classes):
    colors = pictures.palette(classes)
    assert colors.shape == (classes, 3)
    assert colors.dtype == np.uint8
    assert len(np.unique(colors, axis=0)) == classes
    assert (np.ptp(colors.astype(int), axis=1) > 20).all()


def test_a_palette_does_not_change_when_classes_are_added():
    assert (pictures.palette(30)[:12] == pictures.palette(12)).all()


def test_given_colours_win_and_are_not_given_out_again():
    given = pictures.palette(3)
    colors = pictures.palette(8, given[::-1])
    assert (colors[:3] == given[::-1]).all()
    assert len(np.unique(colors, axis=0)) == 8


def test_more_colours_than_classes_are_refused():
    with pytest.raises(ValueError, match="3 colours for 2 classes"):
        pictures.palette(2, [(0, 0, 0)] * 3)


def test_paint_gives_each_class_its_colour_and_ignored_pixels_none_of_them():
    mask = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (20, 30))
    colors = pictures.palette(3)
    painted = pictures.paint(mask, colors)
    for index, color in enumerate(colors):
        assert ((painted == color).all(-1) == (mask == index)).all()
    ignored = painted[mask == 255]
    assert (ignored == ignored[:, :1]).all()
    assert len(np.unique(ignored)) == 2


def test_a_class_without_a_colour_is_refused():
    with pytest.raises(ValueError, match="class 7, but there are colours for 3"):
        pictures.paint(np.full((2, 2), 7, np.uint8), pictures.palette(3))


def test_an_overlay_shows_image_and_class_but_no_colour_where_the_mask_is_ignored():
    image = noise(24, 24)
    mask = np.zeros((24, 24), np.uint8)
    mask[:, 12:] = 255
    overlay = pictures.mask_overlay(image, mask, [(200, 30, 30)]).astype(int)
    assert (overlay[:, 12:] == overlay[:, 12:, :1]).all()
    assert overlay[:, :12, 0].mean() > overlay[:, :12, 1].mean() + 50
    seen = np.corrcoef(overlay[:, :12].ravel(), image[:, :12].ravel())[0, 1]
    assert seen > 0.3


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match="differ in size"):
        pictures.mask_overlay(noise(8, 8), np.zeros((8, 9), np.uint8), [(1, 2, 3)])


def test_a_box_is_drawn_along_the_inside_of_its_edges_and_nowhere_else():
    image = np.zeros((10, 12, 3), np.uint8)
    drawn = pictures.draw_box(image, (2, 3, 9, 8), (255, 0, 9)).any(-1)
    wanted = np.zeros((10, 12), bool)
    wanted[3:8, 2:9] = True
    wanted[4:7, 3:8] = False
    assert (drawn == wanted).all()
    assert not image.any()


def test_the_box_of_the_whole_image_is_its_border():
    drawn = pictures.draw_box(np.zeros((6, 8, 3), np.uint8), (0, 0, 8, 6), (9, 9, 9), thickness=2)
    assert not drawn[2:4, 2:6].any()
    drawn[2:4, 2:6] = 9
    assert (drawn == 9).all()


def test_a_box_beyond_the_image_is_drawn_where_the_image_is():
    drawn = pictures.draw_box(np.zeros((6, 6, 3), np.uint8), (-4, 2, 90, 5), (9, 9, 9))
    assert np.unique(np.nonzero(drawn)[0]).tolist() == [2, 4]


def test_enlarging_repeats_pixels_until_the_shorter_side_is_long_enough():
    image = noise(5, 7)
    large = pictures.enlarge(image, 12)
    assert large.shape == (15, 21, 3)
    for row in range(3):
        for column in range(3):
            assert (large[row::3, column::3] == image).all()
    assert (pictures.enlarge(image, 5) == image).all()


@pytest.mark.parametrize("colors", [1, 2, 256, None])
def test_png_keeps_every_pixel(colors):
    image = noise(40, 50)
    if colors is not None:
        palette = noise(1, colors, seed=1)[0]
        image = palette[np.random.default_rng(2).integers(0, colors, (40, 50))]
    assert (decoded(pictures.png(image)) == image).all()
    assert pictures.png(image) == pictures.png(image.copy())


def test_a_painted_mask_becomes_a_png_with_a_palette():
    mask = np.zeros((9, 9), np.uint8)
    with Image.open(io.BytesIO(pictures.png(pictures.paint(mask, [(1, 2, 3)])))) as picture:
        assert picture.mode == "P"


def test_a_sheet_contains_its_tiles_unchanged_and_in_order():
    rows = [
        [noise(16, 24, 1), noise(16, 24, 2), noise(12, 20, 3)],
        [noise(20, 24, 4), noise(16, 10, 5)],
    ]
    sheet = pictures.sheet(rows, ["image", "truth", "a rather long title"])
    where = []
    for row in rows:
        for tile in row:
            height, width = tile.shape[:2]
            windows = np.lib.stride_tricks.sliding_window_view(sheet, tile.shape)[..., 0, :, :, :]
            found = np.argwhere((windows == tile).all((-3, -2, -1)))
            assert len(found) == 1
            y, x = found[0]
            where.append((int(y), int(x)))
            sheet[y : y + height, x : x + width] = 255
    assert where[0][0] == where[1][0] == where[2][0] < where[3][0] == where[4][0]
    assert where[0][1] == where[3][1] < where[1][1] == where[4][1] < where[2][1]
    title = sheet[: where[0][0]]
    for left, right in [(0, where[1][1]), (where[1][1], where[2][1]), (where[2][1], None)]:
        assert title[:, left:right].min() < 128
    assert (sheet[where[0][0] :] == 255).all()


def test_a_sheet_without_titles_has_none():
    tile = noise(8, 8)
    sheet = pictures.sheet([[tile]])
    assert sheet.shape == (16, 16, 3)
    assert (sheet[4:12, 4:12] == tile).all()


def test_an_empty_sheet_is_refused():
    with pytest.raises(ValueError, match="no images"):
        pictures.sheet([[]])


def test_an_image_of_floats_is_refused():
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\], got float64 \(4, 4, 3\)"):
        pictures.png(np.zeros((4, 4, 3)))  # pyright: ignore[reportArgumentType]


def test_shrinking_takes_means_of_images_and_classes_of_masks():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 90, 3), dtype=np.uint8)
    assert pictures.shrink(image, 90) is image
    small = pictures.shrink(image, 30)
    assert small.shape == (14, 30, 3)
    mean = image[3:6, 6:9].reshape(-1, 3).mean(0)
    assert np.abs(small[1, 2] - mean).max() <= 0.5
    mask = rng.integers(0, 200, (40, 90), dtype=np.uint8)
    few = pictures.shrink(mask, 30)
    assert few.shape == (14, 30)
    assert (few == mask[::3, ::3]).all()
