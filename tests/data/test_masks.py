"""Masks become class ids, whatever their files hold; what is no class of theirs is named."""

import io

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.masks import ClassIds, Colors, MappedIds
from drn_jax.data.sources import png
from drn_jax.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
IDS = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), size=(6, 8))


def encode(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def error_of(function, *args) -> str:
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_class_ids_beyond_the_classes_are_named_with_value_and_place():
    ids = IDS.copy()
    ids[4, 7] = 3
    message = error_of(ClassIds(3), png(ids), "m.png")
    for part in ("m.png: value 3", "row 4, column 7", "0 to 2"):
        assert part in message
    np.testing.assert_array_equal(ClassIds(4)(png(ids), "m.png"), ids)


def test_mapped_ids_become_classes_and_others_are_named():
    decode = MappedIds(((7, 0), (8, 255), (255, 255)))
    mask = decode(png(np.array([[7, 8, 255]], np.uint8)), "m.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, [[0, 255, 255]])
    message = error_of(decode, png(np.array([[7, 7], [9, 7]], np.uint8)), "m.png")
    assert "m.png: value 9 at row 1, column 0 is none of this set's ids" in message


def test_colors_become_classes_and_others_are_named():
    # Colours that agree in all channels but one, and whose packed order is not that of the ids.
    decode = Colors((((128, 0, 0), 0), ((0, 128, 0), 1), ((0, 0, 128), 255), ((0, 0, 0), 2)))
    painted = np.array([[[0, 128, 0], [0, 0, 0]], [[128, 0, 0], [0, 0, 128]]], np.uint8)
    mask = decode(png(painted), "m.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, [[1, 2], [0, 255]])
    painted[1, 0] = 128, 0, 1
    message = error_of(decode, png(painted), "m.png")
    assert "m.png: colour (128, 0, 1) at row 1, column 0 is none of this set's" in message


def test_palette_masks_are_indices_to_ids_and_colours_to_colors():
    palette = Image.new("P", (3, 1))
    palette.putpalette([9, 9, 9, 128, 0, 0, 0, 128, 0])
    palette.putdata([0, 2, 1])
    for options in ({}, {"bits": 2}):
        data = encode(palette, **options)
        np.testing.assert_array_equal(ClassIds(3)(data, "m.png"), [[0, 2, 1]])
        colors = Colors((((9, 9, 9), 255), ((128, 0, 0), 0), ((0, 128, 0), 1)))
        np.testing.assert_array_equal(colors(data, "m.png"), [[255, 1, 0]])


def test_colors_under_alpha_count():
    painted = Image.new("RGBA", (2, 1), (128, 0, 0, 0))
    np.testing.assert_array_equal(Colors((((128, 0, 0), 4),))(encode(painted), "m"), [[4, 4]])


@pytest.mark.parametrize("decode", [ClassIds(3), MappedIds(((0, 0), (1, 1), (2, 2), (255, 255)))])
def test_masks_of_ids_may_have_16_bits_but_neither_one_nor_three_channels(decode):
    wide = Image.fromarray(IDS.astype(np.uint16))
    np.testing.assert_array_equal(decode(encode(wide), "m.png"), IDS)
    for picture, part in (
        (Image.fromarray(IDS.astype(np.uint16) + 300), "m.png: mask values 300"),
        (Image.new("1", (2, 2)), "m.png: a grey mask of fewer than 8 bits is ambiguous"),
        (Image.new("RGB", (2, 2)), "m.png: a mask holds one class id a pixel"),
    ):
        assert part in error_of(decode, encode(picture), "m.png")


def test_a_jpeg_of_colors_is_refused_by_its_first_wrong_colour():
    painted = np.zeros((16, 16, 3), np.uint8)
    painted[:, 5:] = 200, 30, 40
    data = encode(Image.fromarray(painted), "JPEG", quality=50)
    decode = Colors((((0, 0, 0), 0), ((200, 30, 40), 1)))
    assert "nor saved as JPEG" in error_of(decode, data, "m.png")
