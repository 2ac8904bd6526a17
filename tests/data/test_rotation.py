"""Turning and reflecting: against PIL on the whole and against pixels placed one by one."""

import numpy as np
import pytest
from PIL import Image

from drn_jax.data import rotation
from drn_jax.data.rotation import (
    pad_reflection,
    reflected,
    turned_boxes,
    turned_image,
    turned_mask,
)

R = Image.Resampling


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole_image(image: np.ndarray, degrees: int) -> np.ndarray:
    height, width = image.shape[:2]
    return turned_image(image, degrees, (0, height), (0, width))


def whole_mask(mask: np.ndarray, degrees: int) -> np.ndarray:
    height, width = mask.shape
    return turned_mask(mask, degrees, (0, height), (0, width))


def published_reflection(array: np.ndarray, before: int, after: int) -> list:
    """One axis, pixel by pixel: as far as the array reaches in one go, then again."""
    values = list(array)
    while before or after:
        n = len(values)
        head, tail = min(before, n - 1), min(after, n - 1)
        values = (
            [values[i] for i in range(head, 0, -1)]
            + values
            + [values[n - 1 - i] for i in range(tail)]
        )
        before, after = before - head, after - tail
    return values


def test_reflection_leaves_out_the_first_edge_and_repeats_the_last():
    np.testing.assert_array_equal(reflected(3, 2, 2), [2, 1, 0, 1, 2, 2, 1])
    for before in range(4):
        np.testing.assert_array_equal(
            reflected(4, before, 0), np.pad(np.arange(4), (before, 0), mode="reflect")
        )
        np.testing.assert_array_equal(
            reflected(4, 0, before), np.pad(np.arange(4), (0, before), mode="symmetric")
        )


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize(("before", "after"), [(4, 4), (5, 5), (13, 2), (0, 17), (23, 31)])
def test_reflection_wider_than_the_image_goes_on(length, before, after):
    index = reflected(length, before, after)
    assert len(index) == before + length + after
    np.testing.assert_array_equal(index[before : before + length], np.arange(length))
    if length > 1:
        np.testing.assert_array_equal(index, published_reflection(np.arange(length), before, after))


def test_pad_reflection_reflects_rows_and_columns():
    image = noise(3, 4)
    padded = pad_reflection(image, 2, 1, 1, 3)
    assert padded.shape == (6, 8, 3)
    np.testing.assert_array_equal(padded[2:5, 1:5], image)
    np.testing.assert_array_equal(padded[0, 0], image[2, 1])
    np.testing.assert_array_equal(padded[-1, -1], image[2, 1])


@pytest.mark.parametrize(("height", "width"), [(40, 60), (62, 38), (50, 50), (230, 310)])
def test_minimal_padding_turns_the_image_as_padding_threefold_does(height, width):
    image, h, w = noise(height, width), height, width
    padded = Image.fromarray(pad_reflection(image, h, h, w, w))
    for degrees in (-45, -30, -10, -1, 1, 7, 10, 44, 90):
        threefold = padded.rotate(degrees, R.BILINEAR).crop((w, h, 2 * w, 2 * h))
        np.testing.assert_array_equal(whole_image(image, degrees), np.asarray(threefold))


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 38)])
def test_rotated_mask_takes_the_nearest_pixel_and_255_from_outside(height, width):
    mask = noise(height, width)[..., 0]
    for degrees in (-45, -10, -1, 1, 7, 10, 30, 89):
        turn = np.exp(1j * np.radians(degrees))
        y, x = np.mgrid[:height, :width] + 0.5
        # Pixel centres as complex numbers, y up: counter-clockwise is multiplication.
        source = ((x - width / 2) - 1j * (y - height / 2)) / turn
        sx, sy = source.real + width / 2, height / 2 - source.imag
        inside = (sx >= 0) & (sx < width) & (sy >= 0) & (sy < height)
        ix, iy = np.floor(sx).astype(int) * inside, np.floor(sy).astype(int) * inside
        expected = np.where(inside, mask[iy, ix], 255)
        # Where the place lies on the edge of two pixels, either is right.
        tossup = (np.abs(sx - np.round(sx)) < 2e-3) | (np.abs(sy - np.round(sy)) < 2e-3)
        assert tossup.mean() < 0.1
        turned = whole_mask(mask, degrees)
        np.testing.assert_array_equal(turned[~tossup], expected[~tossup])


def spans(length: int, rng: np.random.Generator) -> tuple[int, int]:
    first, last = sorted(int(end) for end in rng.choice(length + 1, 2, replace=False))
    return first, last


@pytest.mark.parametrize("tile", [7, rotation.TILE])
def test_a_window_is_cut_from_the_turned_whole_to_the_bit(tile, monkeypatch):
    monkeypatch.setattr(rotation, "TILE", tile)
    rng = np.random.default_rng(0)
    for seed in range(150):
        height, width = (int(side) for side in rng.integers(1, 60 if tile < 10 else 250, 2))
        image, degrees = noise(height, width, seed), int(rng.integers(-180, 181))
        rows, columns = spans(height, rng), spans(width, rng)
        window = turned_image(image, degrees, rows, columns)
        whole = whole_image(image, degrees)
        np.testing.assert_array_equal(window, whole[slice(*rows), slice(*columns)])


def test_a_masks_window_is_cut_from_what_pil_turns():
    rng = np.random.default_rng(0)
    for seed in range(400):
        height, width = (int(side) for side in rng.integers(1, 120, 2))
        mask, degrees = noise(height, width, seed)[..., 0], int(rng.integers(-180, 181))
        rows, columns = spans(height, rng), spans(width, rng)
        whole = np.asarray(Image.fromarray(mask).rotate(degrees, R.NEAREST, fillcolor=255))
        window = turned_mask(mask, degrees, rows, columns)
        np.testing.assert_array_equal(window, whole[slice(*rows), slice(*columns)])


def test_tiles_show_no_seams():
    # Of a plane, bilinear turning makes a plane: every second difference is rounding.
    y, x = np.mgrid[:300, :400]
    plane = np.repeat(np.uint8(20 + 0.25 * x + 0.3 * y)[..., None], 3, axis=2)
    turned = whole_image(plane, 7)[60:240, 60:340].astype(int)
    for axis in (0, 1):
        assert np.abs(np.diff(turned, 2, axis=axis)).max() <= 2


def test_boxes_become_the_hulls_of_their_turned_corners():
    boxes = np.float32([[1, 2, 5, 9], [0, 0, 20, 10], [3, 3, 3, 3]])
    np.testing.assert_allclose(
        turned_boxes(boxes, 90, 10, 20), [[7, 10, 14, 14], [5, -5, 15, 15], [8, 12, 8, 12]]
    )
    for degrees in range(-40, 41, 8):
        turn = np.exp(1j * np.radians(degrees))
        for box, hull in zip(boxes, turned_boxes(boxes, degrees, 10, 20), strict=True):
            x1, y1, x2, y2 = box
            # As complex numbers about the centre, y up.
            corners = np.array([x + 1j * -y for x in (x1, x2) for y in (y1, y2)]) - (10 - 5j)
            corners = corners * turn + (10 - 5j)
            x, y = corners.real, -corners.imag
            np.testing.assert_allclose(hull, [x.min(), y.min(), x.max(), y.max()], atol=1e-5)
    assert turned_boxes(np.zeros((0, 4), np.float32), 7, 10, 20).shape == (0, 4)
