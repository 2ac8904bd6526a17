"""A contact sheet shows every example, its boxes where they are, and the colours of its masks."""

import numpy as np
import pytest

from drn_jax.report import contact_sheet
from drn_jax.report.contact_sheet import SIDE

COLORS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))
CLASSES = ("red", "green", "blue")
RED_LINE = (220, 20, 60)


def grey(height=40, width=50, level=90):
    return np.full((height, width, 3), level, np.uint8)


def has(sheet, color):
    return bool((sheet == np.array(color)).all(-1).any())


def test_images_are_scaled_to_one_longer_side_and_keep_their_shape():
    one = contact_sheet.draw([{"image": grey(40, 50, 93)}], [""], CLASSES, None, "")
    inside = np.argwhere((one == 93).all(-1))
    height, width = inside.max(0) - inside.min(0) + 1
    assert (height, width) == (round(SIDE * 40 / 50), SIDE)


def test_every_example_is_drawn_six_or_with_masks_three_a_row():
    levels = range(20, 220, 20)
    examples = [{"image": grey(level=level)} for level in levels]
    sheet = contact_sheet.draw(examples, ["x"] * len(examples), CLASSES, None, "all")
    assert all(has(sheet, (level,) * 3) for level in levels)
    masks = [{**e, "mask": np.zeros((40, 50), np.uint8)} for e in examples]
    taller = contact_sheet.draw(masks, ["x"] * len(examples), CLASSES, COLORS, "all")
    rows = [s.shape[0] // (round(SIDE * 40 / 50) + 10) for s in (sheet, taller)]
    assert rows == [2, 4]


def test_a_box_is_drawn_on_its_edges():
    box = np.array([[10, 5, 30, 25]], np.float32)
    sheet = contact_sheet.draw([{"image": grey(), "boxes": box}], [""], CLASSES, None, "")
    drawn = np.argwhere((sheet == np.array(RED_LINE)).all(-1))
    image = np.argwhere((sheet == 90).all(-1)).min(0)
    times = SIDE / 50
    np.testing.assert_allclose(drawn.min(0) - image, [5 * times, 10 * times], atol=1)
    np.testing.assert_allclose(drawn.max(0) + 1 - image, [25 * times, 30 * times], atol=1)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_boxes_will_do(count):
    boxes = np.array([[2, 2, 20, 20], [5, 5, 9, 9], [0, 0, 50, 40]], np.float32)[:count]
    sheet = contact_sheet.draw([{"image": grey(), "boxes": boxes}], [""], CLASSES, None, "")
    assert has(sheet, RED_LINE) == (count > 0)


def test_the_key_names_the_classes_that_occur_and_no_others():
    mask = np.zeros((40, 50), np.uint8)
    mask[:10] = 2
    mask[20] = 255
    sheet = contact_sheet.draw([{"image": grey(), "mask": mask}], [""], CLASSES, COLORS, "")
    assert has(sheet, COLORS[0])
    assert has(sheet, COLORS[2])
    assert not has(sheet, COLORS[1])


def test_a_name_too_long_keeps_its_end():
    names = ["a very long path/" * 9 + "end.png", "end.png"]
    sheets = [contact_sheet.draw([{"image": grey()}], [name], CLASSES, None, "") for name in names]
    assert sheets[0].shape == sheets[1].shape
    assert (sheets[0] != sheets[1]).any()


def test_labels_stand_below_images():
    examples = [{"image": grey(), "label": np.array(i)} for i in (0, 1)]
    one, other = (contact_sheet.draw([e], ["x"], CLASSES, None, "") for e in examples)
    changed = np.argwhere((one != other).any(-1))
    bottom = np.argwhere((one == 90).all(-1)).max(0)[0]
    assert changed.min(0)[0] > bottom
