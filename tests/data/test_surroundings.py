"""Crops with their surroundings, against NumPy's reflection, and crops of maps with their masks."""

import numpy as np
import pytest

from drn_jax.data.surroundings import MapCrop, SurroundedCrop, mirrored, surrounded


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(height: int, width: int) -> dict[str, np.ndarray]:
    rng = generator()
    return {
        "image": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "mask": rng.integers(0, 19, (height, width), dtype=np.uint8),
        "boxes": np.float32([[0.25, 0.3, 0.75, 0.6], [0.1, 0, 0.5, 1]])
        * np.float32([width, height, width, height]),
    }


def padded_window(image, top, left, height, width, margin):
    """The window of the image that NumPy pads by reflection on all sides."""
    h, w = image.shape[:2]
    rows = (margin, margin + max(0, top + height - h))
    columns = (margin, margin + max(0, left + width - w))
    padded = np.pad(image, (rows, columns, (0, 0)), "reflect")
    return padded[top : top + height + 2 * margin, left : left + width + 2 * margin]


@pytest.mark.parametrize("size", [(48, 60), (16, 24), (9, 30), (7, 5), (2, 40), (1, 6)])
@pytest.mark.parametrize("margin", [0, 3, 25])
def test_a_surrounded_crop_is_a_window_of_the_reflected_image_with_its_mask(size, margin):
    example, (height, width) = noise(*size), (16, 24)
    tall, wide = max(0, size[0] - height), max(0, size[1] - width)
    for top, left in ((0, 0), (tall, wide), (tall // 2, wide // 3)):
        out = surrounded(example, top, left, height, width, margin)
        np.testing.assert_array_equal(
            out["image"], padded_window(example["image"], top, left, height, width, margin)
        )
        assert out["image"].shape == (height + 2 * margin, width + 2 * margin, 3)
        assert out["mask"].shape == (height, width)
        for i, j in np.ndindex(height, width):
            inside = top + i < size[0] and left + j < size[1]
            expected = example["mask"][top + i, left + j] if inside else 255
            assert out["mask"][i, j] == expected
        box = example["boxes"] - [left, top, left, top]
        np.testing.assert_allclose(out["boxes"], np.clip(box, 0, [width, height, width, height]))


def test_a_surrounded_crop_draws_every_place_within_the_image_and_no_other():
    example, rng = noise(8, 6), generator()
    known = {
        surrounded(example, top, left, 5, 4, 2)["image"].tobytes(): (top, left)
        for top in range(4)
        for left in range(3)
    }
    seen = set()
    for _ in range(300):
        out = SurroundedCrop((5, 4), 2)(example, rng)
        top, left = known[out["image"].tobytes()]
        np.testing.assert_array_equal(out["mask"], example["mask"][top : top + 5, left : left + 4])
        seen.add((top, left))
    assert seen == set(known.values())


def test_a_surrounded_crop_larger_than_the_image_takes_it_whole():
    example = noise(5, 40)
    for seed in range(5):
        out = SurroundedCrop((8, 10), 3)(example, generator(seed))
        np.testing.assert_array_equal(out["mask"][5:], 255)
        starts = [x for x in range(31) if (example["mask"][:, x : x + 10] == out["mask"][:5]).all()]
        assert len(starts) == 1
        np.testing.assert_array_equal(
            out["image"][3:8, 3:13], example["image"][:, starts[0] : starts[0] + 10]
        )


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_mirrored_is_numpys_reflection_as_far_as_one_looks(length):
    reach = 20
    expected = np.pad(np.arange(length), reach, "reflect")
    np.testing.assert_array_equal(mirrored(np.arange(-reach, length + reach), length), expected)


def numbered_map(height, width, stride=4):
    """A map whose cells hold their number from 1 on and its square, and a mask of pixels that hold
    the number of the cell that they belong to; the image's size is no multiple of the stride."""
    number = 1 + np.arange(height * width).reshape(height, width)
    pixels = number.astype(np.uint8).repeat(stride, 0).repeat(stride, 1)
    return {
        "map": np.stack([number, number**2], -1).astype(np.float16),
        "mask": pixels[:-1, :-3],
    }


def test_a_map_crop_draws_every_window_and_keeps_cells_on_their_pixels():
    example, rng, seen = numbered_map(4, 5), generator(), set()
    for _ in range(300):
        out = MapCrop((2, 3), 4)(example, rng)
        assert out["map"].shape == (2, 3, 2)
        assert out["map"].dtype == np.float16
        assert out["mask"].shape == (8, 12)
        top, left = divmod(int(out["map"][0, 0, 0]) - 1, 5)
        np.testing.assert_array_equal(out["map"], example["map"][top : top + 2, left : left + 3])
        labelled = out["mask"] != 255
        cells = out["map"][..., 0].repeat(4, 0).repeat(4, 1)
        np.testing.assert_array_equal(out["mask"][labelled], cells[labelled])
        # Only the lower right edge of the image lacks pixels.
        missing = 12 * (top == 2) + 8 * 3 * (left == 2) - 3 * (top == 2 and left == 2)
        assert (~labelled).sum() == missing
        seen.add((top, left))
    assert seen == {(top, left) for top in range(3) for left in range(3)}


@pytest.mark.parametrize("size", [(6, 7), (6, 2), (2, 7)])
def test_a_map_smaller_than_the_crop_is_followed_by_0_and_its_mask_by_255(size):
    example = numbered_map(4, 5)
    kept = {key: value.copy() for key, value in example.items()}
    out = MapCrop(size, 4)(example, generator(3))
    height, width = size
    assert out["map"].shape == (*size, 2)
    assert out["mask"].shape == (4 * height, 4 * width)
    beyond = np.zeros(size, bool)
    beyond[4:], beyond[:, 5:] = True, True
    np.testing.assert_array_equal(out["map"][beyond], 0)
    assert (out["map"][~beyond] > 0).all()
    np.testing.assert_array_equal(out["mask"][beyond.repeat(4, 0).repeat(4, 1)], 255)
    labelled = out["mask"] != 255
    cells = out["map"][..., 0].repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(out["mask"][labelled], cells[labelled])
    for key, value in kept.items():
        np.testing.assert_array_equal(example[key], value)
