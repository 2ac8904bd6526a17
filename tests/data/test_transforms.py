"""Augmentation: against PIL and slow references, and by what must hold for any example."""

import math
import pickle

import numpy as np
import pytest
from PIL import Image

from drn_jax.data import transforms as T  # noqa: N812
from drn_jax.data.rotation import pad_reflection
from drn_jax.data.surroundings import SurroundedCrop
from drn_jax.data.windowed import RotateScaleCrop

R = Image.Resampling


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = generator(seed)
    return {
        "image": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "mask": rng.integers(0, 19, (height, width), dtype=np.uint8),
        "boxes": boxes(height, width, 1),
        "label": np.array(3, np.int32),
    }


def boxes(height: int, width: int, count: int) -> np.ndarray:
    """Boxes within an image, the first of them always the same."""
    corners = np.array([0.25, 0.3, 0.75, 0.6]) + np.arange(count)[:, None] * 0.11
    return np.float32(corners * [width, height, width, height])


def painted(height: int, width: int, box: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
    """A white rectangle on black, in image, mask (1) and boxes."""
    x1, y1, x2, y2 = box
    mask = np.zeros((height, width), np.uint8)
    mask[y1:y2, x1:x2] = 1
    return {
        "image": np.stack([mask * 255] * 3, axis=-1),
        "mask": mask,
        "boxes": np.array([box], np.float32),
    }


def extent(inside: np.ndarray) -> np.ndarray:
    """The pixel edges of what is true."""
    y, x = np.nonzero(inside)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


def resized(array: np.ndarray, height: int, width: int, kernel: R) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize((width, height), kernel))


EVERY = [
    T.RandomResizedCrop(32),
    T.RandomFlip(),
    T.ResizeShorterSide(32),
    T.CentreCrop(32),
    T.CentreCrop(90),
    T.RandomRotate(25),
    T.RandomScale(2.0),
    T.RandomCrop((32, 24)),
    T.RandomCrop((90, 100)),
    SurroundedCrop((32, 24), margin=0),
    SurroundedCrop((90, 100), margin=0),
    RotateScaleCrop((32, 24), scale=1.5),
    RotateScaleCrop((90, 100)),
    T.Compose((T.RandomRotate(10), T.RandomScale(1.5), T.RandomCrop((40, 50)), T.RandomFlip())),
]
name = pytest.mark.parametrize("transform", EVERY, ids=str)


@name
def test_same_generator_same_example_and_the_input_is_left_alone(transform):
    before, kept = noise(48, 60), noise(48, 60)
    once, twice = transform(before, generator(5)), transform(before, generator(5))
    for key in kept:
        np.testing.assert_array_equal(before[key], kept[key])
        np.testing.assert_array_equal(once[key], twice[key])
        assert once[key].dtype == kept[key].dtype
    assert once["image"].shape[:2] == once["mask"].shape


@name
def test_survives_pickling(transform):
    copy = pickle.loads(pickle.dumps(transform))
    assert copy == transform
    np.testing.assert_array_equal(
        copy(noise(48, 60), generator(1))["image"], transform(noise(48, 60), generator(1))["image"]
    )


@name
def test_missing_keys_are_skipped_and_do_not_change_the_draw(transform):
    whole = transform(noise(48, 60), generator(2))
    for keys in (("image",), ("mask",), ("image", "boxes"), ("image", "mask")):
        part = transform({key: noise(48, 60)[key] for key in keys}, generator(2))
        assert set(part) == set(keys)
        for key in keys:
            np.testing.assert_array_equal(part[key], whole[key])


@name
@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_boxes_moves_each_as_if_it_were_alone(transform, count):
    example = noise(48, 60) | {"boxes": boxes(48, 60, count)}
    for seed in range(5):
        out = transform(example, generator(seed))["boxes"]
        assert out.shape == (count, 4)
        assert out.dtype == np.float32
        for i in range(count):
            alone = example | {"boxes": example["boxes"][i : i + 1]}
            np.testing.assert_array_equal(
                transform(alone, generator(seed))["boxes"], out[i : i + 1]
            )


@name
def test_box_stays_inside_the_image(transform):
    for seed in range(40):
        out = transform(noise(48, 60), generator(seed))
        (x1, y1, x2, y2), *_ = out["boxes"]
        height, width = out["mask"].shape
        assert 0 <= x1 <= x2 <= width
        assert 0 <= y1 <= y2 <= height


# Of a turned rectangle the box is a hull, tested on its own.
@pytest.mark.parametrize(
    "transform", [t for t in EVERY if not isinstance(t, T.RandomRotate | T.Compose)], ids=str
)
def test_image_mask_and_box_move_together(transform):
    for seed in range(20):
        out = transform(painted(48, 60, (20, 18, 44, 36)), generator(seed))
        white = out["image"][..., 0] > 127
        inside = out["mask"] == 1
        if min(extent_sides(inside)) < 4:
            continue
        assert np.abs(extent(inside) - out["boxes"]).max() <= 1
        # A reflected pad repeats the picture beyond the box, the mask says "ignored" there.
        known = out["mask"] != 255
        assert np.abs(extent(white & known) - out["boxes"]).max() <= 1


def extent_sides(inside: np.ndarray) -> tuple[int, int]:
    return int(inside.any(0).sum()), int(inside.any(1).sum())


# Flip


def test_flip_twice_is_the_identity():
    example = noise(9, 13)
    twice = T.flip(T.flip(example))
    for key in example:
        np.testing.assert_allclose(twice[key], example[key], atol=1e-5)
    np.testing.assert_array_equal(T.flip(example)["image"][:, 0], example["image"][:, -1])


def test_flip_happens_half_of_the_time():
    example, rng = noise(2, 3), generator()
    flips = sum(T.RandomFlip()(example, rng)["image"] is not example["image"] for _ in range(2000))
    assert abs(flips - 1000) < 5 * math.sqrt(500)


# Random resized crop


@pytest.mark.parametrize(("height", "width"), [(70, 90), (500, 375), (20, 20)])
def test_random_resized_crop_is_pil_crop_then_resize(height, width):
    example = noise(height, width)
    for seed in range(10):
        out = T.RandomResizedCrop(24)(example, generator(seed))
        top, left, h, w = T.resized_crop_window(
            height, width, (0.08, 1.0), (3 / 4, 4 / 3), generator(seed)
        )
        for key, kernel in (("image", R.BILINEAR), ("mask", R.NEAREST)):
            crop = Image.fromarray(example[key]).crop((left, top, left + w, top + h))
            np.testing.assert_array_equal(out[key], np.asarray(crop.resize((24, 24), kernel)))
        x1, y1, x2, y2 = example["boxes"][0]
        moved = [(x1 - left) / w, (y1 - top) / h, (x2 - left) / w, (y2 - top) / h]
        np.testing.assert_allclose(out["boxes"][0], np.clip(moved, 0, 1) * 24, atol=1e-4)


def test_crop_window_is_uniform_in_area_log_uniform_in_ratio_and_uniform_in_place():
    # Small areas of a large square: none is ever too wide to fit.
    rng, side = generator(), 2000
    drawn = [T.resized_crop_window(side, side, (0.1, 0.3), (0.5, 2.0), rng) for _ in range(4000)]
    top, left, h, w = np.array(drawn).T
    error = 5 / math.sqrt(4000)
    area, ratio = h * w / side**2, np.log(w / h)
    for value, low, high in (
        (area, 0.1, 0.3),
        (ratio, math.log(0.5), math.log(2.0)),
        (top / (side - h), 0, 1),
        (left / (side - w), 0, 1),
    ):
        spread = (high - low) / math.sqrt(12)
        assert low - 0.002 <= value.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < value.max() <= high + 0.002
        assert abs(value.mean() - (low + high) / 2) < error * spread
        assert abs(value.std() - spread) < error * spread


@pytest.mark.parametrize(
    ("height", "width", "window"),
    [
        (100, 1000, (0, 433, 100, 133)),  # too wide: 4/3 of the height
        (1000, 100, (433, 0, 133, 100)),  # too tall: 4/3 of the width
    ],
)
def test_crop_that_never_fits_falls_back_to_the_centre(height, width, window):
    assert T.resized_crop_window(height, width, (1.0, 1.0), (3 / 4, 4 / 3), generator()) == window


def test_box_outside_of_the_crop_becomes_degenerate_and_stays():
    example = noise(40, 40) | {"boxes": np.array([[0, 0, 2, 2], [10, 12, 18, 40]], np.float32)}
    out = T.CentreCrop(10)(example)
    np.testing.assert_array_equal(out["boxes"], [[0, 0, 0, 0], [0, 0, 3, 10]])


# Evaluation


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (375, 500, (256, 341)),
        (500, 375, (341, 256)),
        (300, 300, (256, 256)),
        (256, 999, (256, 999)),
    ],
)
def test_shorter_side_is_exact_and_the_longer_rounds_down(height, width, expected):
    example = noise(height, width)
    out = T.ResizeShorterSide(256)(example)
    assert out["image"].shape[:2] == expected
    np.testing.assert_array_equal(out["image"], resized(example["image"], *expected, R.BILINEAR))
    np.testing.assert_array_equal(out["mask"], resized(example["mask"], *expected, R.NEAREST))


@pytest.mark.parametrize(("side", "start"), [(224, 0), (225, 0), (227, 2), (229, 2), (256, 16)])
def test_centre_crop_rounds_half_to_even(side, start):
    example = noise(side, side)
    out = T.CentreCrop(224)(example)["image"]
    np.testing.assert_array_equal(out, example["image"][start : start + 224, start : start + 224])


def test_centre_crop_pads_what_is_too_small():
    example = noise(3, 6)
    out = T.CentreCrop(6)(example)
    np.testing.assert_array_equal(out["image"][1:4], example["image"])
    assert (out["image"][[0, 4, 5]] == 0).all()
    assert (out["mask"][[0, 4, 5]] == 255).all()
    np.testing.assert_array_equal(out["boxes"], example["boxes"] + [0, 1, 0, 1])


# Rotation


def test_rotation_keeps_image_mask_and_box_aligned():
    for degrees in range(-40, 41, 8):
        out = T.rotate(painted(80, 100, (30, 25, 62, 50)), degrees)
        known = out["mask"] != 255
        white = (out["image"][..., 0] > 127) & known
        assert ((white != (out["mask"] == 1)) & known).mean() < 0.01
        assert np.abs(extent(out["mask"] == 1) - out["boxes"]).max() <= 1.5


def test_angles_are_whole_degrees_from_minus_to_plus():
    example = {"mask": np.zeros((1, 1), np.uint8), "image": noise(31, 31)["image"]}
    known = {T.rotate(example, degrees)["image"].tobytes() for degrees in range(-2, 3)}
    rng = generator()
    drawn = {T.RandomRotate(2)(example, rng)["image"].tobytes() for _ in range(200)}
    assert len(known) == 5
    assert drawn == known


# Scale and crop


def test_random_scale_uses_the_published_kernels_and_rounds_down():
    example = noise(41, 57)
    seen = set()
    for seed in range(12):
        ratio = generator(seed).uniform(0.5, 2.0)
        height, width = int(41 * ratio), int(57 * ratio)
        kernel = R.LANCZOS if ratio < 1 else R.BICUBIC
        seen.add(kernel)
        out = T.RandomScale(2.0)(example, generator(seed))
        np.testing.assert_array_equal(
            out["image"], resized(example["image"], height, width, kernel)
        )
        np.testing.assert_array_equal(
            out["mask"], resized(example["mask"], height, width, R.NEAREST)
        )
        np.testing.assert_allclose(
            out["boxes"] / [width, height, width, height],
            example["boxes"] / [57, 41, 57, 41],
            atol=1e-6,
        )
    assert len(seen) == 2


def test_random_crop_draws_every_place_and_only_windows():
    places = np.arange(20, dtype=np.uint8).reshape(4, 5)
    rng, seen = generator(), set()
    for _ in range(300):
        out = T.RandomCrop((2, 3))({"mask": places}, rng)["mask"]
        top, left = divmod(int(out[0, 0]), 5)
        np.testing.assert_array_equal(out, places[top : top + 2, left : left + 3])
        seen.add((top, left))
    assert seen == {(top, left) for top in range(3) for left in range(3)}


def test_random_crop_pads_evenly_image_by_reflection_and_mask_by_255():
    example = noise(5, 6)
    out = T.RandomCrop((10, 9))(example, generator())
    np.testing.assert_array_equal(out["image"], pad_reflection(example["image"], 2, 3, 1, 2))
    np.testing.assert_array_equal(out["mask"][2:7, 1:7], example["mask"])
    assert (out["mask"] == 255).sum() == 90 - 30
    np.testing.assert_allclose(out["boxes"], example["boxes"] + [1, 2, 1, 2])


def test_random_crop_larger_than_three_images_still_works():
    out = T.RandomCrop((50, 7))(noise(5, 6), generator())
    assert out["image"].shape == (50, 7, 3)
    assert (out["mask"] != 255).sum() == 30


def test_random_crop_pads_one_side_and_crops_the_other():
    example = noise(5, 40)
    out = T.RandomCrop((8, 10))(example, generator(3))
    rows = out["image"][1:6]
    starts = [x for x in range(31) if (example["image"][:, x : x + 10] == rows).all()]
    assert len(starts) == 1
