"""The windowed rotate-scale-crop, against the three transforms and against fyu/drn's way."""

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.rotation import pad_reflection
from drn_jax.data.transforms import Compose, RandomCrop, RandomRotate, RandomScale
from drn_jax.data.windowed import RotateScaleCrop, nearest, needed

R = Image.Resampling


def noise(height: int, width: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    count = seed % 4
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
    return {
        "image": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "mask": rng.integers(0, 256, (height, width), dtype=np.uint8),
        "boxes": np.float32(corners * [width, height, width, height]),
        "label": np.array(3, np.int32),
    }


def one_by_one(transform: RotateScaleCrop) -> Compose:
    steps = []
    if transform.angle:
        steps.append(RandomRotate(transform.angle))
    if transform.scale != 1:
        steps.append(RandomScale(transform.scale))
    return Compose((*steps, RandomCrop(transform.size)))


def assert_same(transform: RotateScaleCrop, example: dict[str, np.ndarray], seed: int):
    rng, same_rng = np.random.default_rng(seed), np.random.default_rng(seed)
    expected, out = one_by_one(transform)(example, rng), transform(example, same_rng)
    assert set(out) == set(expected)
    for key in out:
        assert out[key].dtype == expected[key].dtype
        np.testing.assert_array_equal(out[key], expected[key])
    assert rng.bit_generator.state == same_rng.bit_generator.state


@pytest.mark.parametrize("angle", [0, 10, 45, 180])
@pytest.mark.parametrize("scale", [1.0, 1.02, 2.0, 4.0])
def test_any_size_gives_to_the_bit_what_the_three_transforms_give(scale, angle):
    rng = np.random.default_rng(0)
    for seed in range(60):
        height, width = (int(n) for n in rng.integers(1, (30, 130, 300)[seed % 3], 2))
        size = tuple(int(n) for n in rng.integers(1, (60, 250)[seed % 2], 2))
        assert_same(RotateScaleCrop(size, scale, angle), noise(height, width, seed), seed)


@pytest.mark.parametrize("size", [(128, 256), (512, 512)])
def test_the_shape_of_street_scenes_gives_to_the_bit_what_the_three_give(size):
    for seed in range(6):
        assert_same(RotateScaleCrop(size, 2.0, 10), noise(256, 512, seed), seed)


def test_a_drawn_ratio_close_to_1_keeps_an_axis_or_changes_it_by_a_pixel():
    seen = set()
    for seed in range(60):
        example, transform = noise(40, 90, seed), RotateScaleCrop((30, 30), 1.04)
        drawn = transform.draw(40, 90, np.random.default_rng(seed))
        seen.add((drawn.height == 40, drawn.width == 90))
        assert_same(transform, example, seed)
    # Never the width alone: its pixels are finer.
    assert {(True, False), (False, False)} <= seen


def test_fyu_drns_way_gives_the_same_image():
    # Padded threefold, turned, cut out, resized whole, padded, cut out.
    transform = RotateScaleCrop((60, 60), 2.0, 10)
    for seed in range(12):
        example, rng = noise(60, 120, seed), np.random.default_rng(seed)
        padded = Image.fromarray(pad_reflection(example["image"], 60, 60, 120, 120))
        picture = padded.rotate(int(rng.integers(-10, 11)), R.BILINEAR).crop((120, 60, 240, 120))
        ratio = rng.uniform(0.5, 2.0)
        size = int(120 * ratio), int(60 * ratio)
        picture = picture.resize(size, R.LANCZOS if ratio < 1 else R.BICUBIC)
        short = max(0, 60 - size[1]), max(0, 60 - size[0])
        sides = [side for n in short for side in (n // 2, n - n // 2)]
        image = pad_reflection(np.asarray(picture), *sides)
        top, left = (int(rng.integers(n - 59)) for n in image.shape[:2])
        expected = image[top : top + 60, left : left + 60]
        out = transform(example, np.random.default_rng(seed))
        np.testing.assert_array_equal(out["image"], expected)


def test_missing_keys_are_skipped_and_do_not_change_the_draw():
    transform = RotateScaleCrop((40, 50), 1.5, 10)
    whole = transform(noise(48, 60, 1), np.random.default_rng(2))
    for keys in (("image",), ("mask",), ("image", "boxes"), ("mask", "label")):
        part = {key: noise(48, 60, 1)[key] for key in keys}
        out = transform(part, np.random.default_rng(2))
        assert set(out) == set(keys)
        for key in keys:
            np.testing.assert_array_equal(out[key], whole[key])


def test_only_what_is_needed_is_read():
    # What the resize does not need, may hold anything.
    rng = np.random.default_rng(0)
    for kernel, ratios in ((R.LANCZOS, (0.3, 0.99)), (R.BICUBIC, (1.01, 3.0))):
        for _ in range(60):
            old = int(rng.integers(4, 200))
            new = max(2, int(old * rng.uniform(*ratios)))
            first, last = sorted(int(n) for n in rng.choice(new + 1, 2, replace=False))
            row = rng.integers(0, 256, (1, old), dtype=np.uint8)
            start, end = needed((first, last), old, new, kernel)
            spoilt = rng.integers(0, 256, (1, old), dtype=np.uint8)
            spoilt[:, start:end] = row[:, start:end]
            a, b = (np.asarray(Image.fromarray(x).resize((new, 1), kernel)) for x in (row, spoilt))
            np.testing.assert_array_equal(a[:, first:last], b[:, first:last])
            assert end - start <= (last - first + 8) * max(1, old / new) + 8


def test_nearest_pixels_are_those_that_lie_under_the_centres():
    for old, new in ((7, 3), (3, 7), (10, 10), (1, 5), (100, 37), (64, 128)):
        place, tossup = np.divmod((2 * np.arange(new) + 1) * old, 2 * new)
        sure = (tossup > 0) | (old == new)
        np.testing.assert_array_equal(nearest(old, new)[sure], place[sure])
