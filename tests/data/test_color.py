"""Colour augmentation, against NumPy arithmetic and by what is drawn."""

import colorsys
import itertools
import math
import pickle

import numpy as np
import pytest
from PIL import Image

from drn_jax.data.color import EIGENVALUES, EIGENVECTORS, ColorJitter, Lighting, shift_hue


def noise(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (12, 17, 3), dtype=np.uint8),
        "mask": rng.integers(0, 19, (12, 17), dtype=np.uint8),
        "boxes": np.array([[1, 2, 3, 4]], np.float32),
    }


def grey(image: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma, [H, W]."""
    return image.astype(float) @ [0.299, 0.587, 0.114]


class Fixed:
    """Draws the ends of the ranges, and an order that is given."""

    def __init__(self, order=(0, 1, 2, 3), high=True):
        self.order, self.high, self.drawn = order, high, []

    def permutation(self, n):
        return np.array(self.order)

    def uniform(self, low, high):
        self.drawn.append((low, high))
        return high if self.high else low


EVERY = [ColorJitter(0.4, 0.3, 0.2, 0.1), ColorJitter(hue=0.5), Lighting(0.1), ColorJitter()]
name = pytest.mark.parametrize("transform", EVERY, ids=str)


@name
def test_only_the_image_changes_and_the_input_is_left_alone(transform):
    example, kept = noise(), noise()
    out = transform(example, np.random.default_rng(1))
    again = pickle.loads(pickle.dumps(transform))(example, np.random.default_rng(1))
    for key in kept:
        np.testing.assert_array_equal(example[key], kept[key])
        np.testing.assert_array_equal(out[key], again[key])
        assert out[key].dtype == kept[key].dtype
        assert out[key].shape == kept[key].shape
    np.testing.assert_array_equal(out["mask"], kept["mask"])


@name
def test_the_draws_do_not_depend_on_there_being_an_image(transform):
    one, two = np.random.default_rng(3), np.random.default_rng(3)
    transform(noise(), one)
    assert "image" not in transform({"mask": noise()["mask"]}, two)
    assert one.bit_generator.state == two.bit_generator.state


@pytest.mark.parametrize("transform", [ColorJitter(), Lighting()], ids=str)
def test_settings_of_0_leave_the_image_as_it_is(transform):
    for seed in range(5):
        out = transform(noise(), np.random.default_rng(seed))
        np.testing.assert_array_equal(out["image"], noise()["image"])


@pytest.mark.parametrize("high", [True, False])
def test_brightness_blends_with_black_contrast_with_mean_grey_saturation_with_grey(high):
    image = noise()["image"]
    base = {
        "brightness": np.zeros_like(image, float),
        "contrast": np.full(image.shape, np.rint(np.floor(grey(image) + 0.5).mean())),
        "saturation": np.repeat(np.floor(grey(image) + 0.5)[..., None], 3, axis=2),
    }
    factor = 1.4 if high else 0.6
    for setting, other in base.items():
        out = ColorJitter(**{setting: 0.4})({"image": image}, Fixed(high=high))["image"]
        expected = np.clip(other + factor * (image - other), 0, 255)
        # PIL truncates, and rounds grey its own way.
        assert np.abs(out - expected).max() <= 2


def test_factors_do_not_fall_below_0():
    image = noise()["image"]
    rng = Fixed(high=False)
    out = ColorJitter(brightness=1.5)({"image": image}, rng)["image"]
    assert rng.drawn[0] == (0, 2.5)
    assert (out == 0).all()


def test_hue_turns_the_colour_circle_and_wraps():
    y, x = np.mgrid[:16, :16]
    image = np.stack([y * 17, x * 17, 255 - y * 17], axis=-1).astype(np.uint8)
    for shift in (0.5, -0.5, 0.1, -0.1):
        out = np.asarray(shift_hue(Image.fromarray(image), shift))
        for before, after in zip(image.reshape(-1, 3), out.reshape(-1, 3), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*before / 255)
            expected = np.array(colorsys.hsv_to_rgb((h + shift) % 1, s, v)) * 255
            # Three steps of 1/255 of the circle, each six grey levels.
            assert np.abs(after - expected).max() <= 18
    # A shift by 0 rounds through 8 bits, no more.
    zero = np.asarray(shift_hue(Image.fromarray(image), 0)).astype(int)
    assert np.abs(zero - image).max() <= 6


def test_the_hue_channel_is_shifted_towards_0_modulo_256():
    image = Image.fromarray(noise()["image"])
    before = np.asarray(image.convert("HSV"))
    for shift, steps in ((0.1, 25), (-0.1, 231), (0.5, 127), (-0.5, 129)):
        hue = before.copy()
        hue[..., 0] += np.uint8(steps)
        bands = [Image.fromarray(np.ascontiguousarray(hue[..., c])) for c in range(3)]
        expected = Image.merge("HSV", bands)
        np.testing.assert_array_equal(
            np.asarray(shift_hue(image, shift)), np.asarray(expected.convert("RGB"))
        )


def test_every_order_occurs_and_matters():
    alone = [ColorJitter(0.4), ColorJitter(0, 0.4), ColorJitter(0, 0, 0.4), ColorJitter(hue=0.2)]
    together, results = ColorJitter(0.4, 0.4, 0.4, 0.2), set()
    for order in itertools.permutations(range(4)):
        out = together(noise(), Fixed(order))["image"]
        step = noise()
        for which in order:
            step = alone[which](step, Fixed())
        np.testing.assert_array_equal(out, step["image"])
        results.add(out.tobytes())
    assert len(results) > 12
    drawn, rng = set(), np.random.default_rng(0)
    for _ in range(400):
        drawn.add(together(noise(), OrderOnly(rng))["image"].tobytes())
    assert drawn == results


class OrderOnly(Fixed):
    """The order by a generator, the factors at the upper ends."""

    def __init__(self, rng):
        super().__init__()
        self.rng = rng

    def permutation(self, n):
        return self.rng.permutation(n)


def test_factors_are_uniform_over_their_range():
    white = {"image": np.full((1, 1, 3), 100, np.uint8)}
    rng = np.random.default_rng(0)
    values = [int(ColorJitter(0.5)(white, rng)["image"][0, 0, 0]) for _ in range(3000)]
    assert min(values) in (50, 51)
    assert max(values) in (149, 150)
    spread = 100 / math.sqrt(12)
    assert abs(np.mean(values) - 99.5) < 5 * spread / math.sqrt(3000)
    assert abs(np.std(values) - spread) < 5 * spread / math.sqrt(3000)


def test_lighting_adds_one_colour_rounded_and_clipped():
    example = noise()
    for seed in range(10):
        alpha = np.random.default_rng(seed).normal(0.0, 0.5, 3)
        added = np.zeros(3)
        for component in range(3):
            added += alpha[component] * EIGENVALUES[component] * EIGENVECTORS[:, component]
        expected = np.clip(np.rint(example["image"] + 255 * added), 0, 255)
        out = Lighting(0.5)(example, np.random.default_rng(seed))["image"]
        np.testing.assert_array_equal(out, expected)


def test_lightings_components_are_orthonormal_and_the_first_is_brightness():
    np.testing.assert_allclose(EIGENVECTORS.T @ EIGENVECTORS, np.eye(3), atol=2e-3)
    assert (np.sign(EIGENVECTORS[:, 0]) == -1).all()
    assert (np.diff(EIGENVALUES) < 0).all()


def test_lighting_spreads_as_its_components_say():
    middle = {"image": np.full((1, 1, 3), 128, np.uint8)}
    rng = np.random.default_rng(0)
    drawn = np.array([Lighting(0.5)(middle, rng)["image"][0, 0] for _ in range(4000)]) - 128.0
    scale = EIGENVECTORS * EIGENVALUES * 255 * 0.5
    expected = scale @ scale.T + np.eye(3) / 12
    np.testing.assert_allclose(np.cov(drawn.T), expected, rtol=0.12)
