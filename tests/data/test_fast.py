"""The fast mode: draws, boxes and masks of the exact one, and images that lie where its do."""

import builtins
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from drn_jax.data import fast
from drn_jax.data.fast import FastRandomResizedCrop, FastRotateScaleCrop
from drn_jax.data.transforms import RandomResizedCrop
from drn_jax.data.windowed import RotateScaleCrop
from drn_jax.errors import UserError

PAIRS = [
    (FastRotateScaleCrop((48, 40), 2.0, 10), RotateScaleCrop((48, 40), 2.0, 10)),
    (FastRotateScaleCrop((150, 130), 1.5, 30), RotateScaleCrop((150, 130), 1.5, 30)),
    (FastRotateScaleCrop((48, 40), 3.0), RotateScaleCrop((48, 40), 3.0)),
    (FastRotateScaleCrop((48, 40), angle=45), RotateScaleCrop((48, 40), angle=45)),
    (FastRotateScaleCrop((48, 40)), RotateScaleCrop((48, 40))),
    (FastRandomResizedCrop(32), RandomResizedCrop(32)),
    (FastRandomResizedCrop(90, (0.5, 1.0)), RandomResizedCrop(90, (0.5, 1.0))),
]
pair = pytest.mark.parametrize(("quick", "exact"), PAIRS, ids=str)


def smooth(height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A picture without fine detail, so that kernels hardly matter and places do."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return {
        "image": np.array(image),
        "mask": rng.integers(0, 19, (height, width), dtype=np.uint8),
        "boxes": np.float32([[3, 4, 60, 50], [0, 0, width, height]]),
    }


@pair
def test_draws_boxes_and_masks_are_the_exact_ones(quick, exact):
    for seed in range(20):
        example = smooth(90, 120, seed)
        one, two = np.random.default_rng(seed), np.random.default_rng(seed)
        out, expected = quick(example, one), exact(example, two)
        assert one.bit_generator.state == two.bit_generator.state
        np.testing.assert_array_equal(out["mask"], expected["mask"])
        np.testing.assert_array_equal(out["boxes"], expected["boxes"])
        assert out["image"].shape == expected["image"].shape
        assert out["image"].dtype == np.uint8


@pair
def test_smooth_images_lie_where_the_exact_ones_do(quick, exact):
    for seed in range(20):
        example = smooth(90, 120, seed)
        out = quick(example, np.random.default_rng(seed))["image"].astype(float)
        expected = exact(example, np.random.default_rng(seed))["image"]
        moved = [np.roll(expected.astype(float), 1, axis) for axis in (0, 1)]
        error = np.abs(out - expected).mean()
        assert error < 1.5
        # Far closer than a picture one pixel off.
        assert all(error < 0.5 * np.abs(out - other).mean() for other in moved)


def test_nothing_drawn_is_nothing_done():
    example = smooth(48, 40)
    out = FastRotateScaleCrop((48, 40))(example, np.random.default_rng(0))
    np.testing.assert_array_equal(out["image"], example["image"])


@pytest.mark.parametrize("side", [64, 96])
def test_what_is_too_fine_for_the_smaller_image_turns_grey(side):
    # A checkerboard of pixels: taking single ones would show stripes.
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    example = {"image": np.repeat(board[..., None], 3, axis=2)}
    shrunk = FastRandomResizedCrop(side, (1.0, 1.0), (1.0, 1.0))
    out = shrunk(example, np.random.default_rng(0))["image"]
    assert np.abs(out.astype(int) - 127).max() < (3 if side == 64 else 90)

    turned = FastRotateScaleCrop((40, 40), 2.0, 10)
    for seed in range(60):
        drawn = RotateScaleCrop((40, 40), 2.0, 10).draw(128, 128, np.random.default_rng(seed))
        if drawn.height <= 66:
            out = turned(example, np.random.default_rng(seed))["image"].astype(int)
            assert np.abs(out - 127).mean() < 20
            break
    else:
        pytest.fail("no draw shrinks by half")


@pair
def test_missing_keys_are_skipped_and_the_input_is_left_alone(quick, exact):
    example, kept = smooth(90, 120), smooth(90, 120)
    whole = quick(example, np.random.default_rng(2))
    for keys in (("image",), ("mask",), ("image", "boxes")):
        part = quick({key: example[key] for key in keys}, np.random.default_rng(2))
        assert set(part) == set(keys)
        for key in keys:
            np.testing.assert_array_equal(part[key], whole[key])
            np.testing.assert_array_equal(example[key], kept[key])


@pair
def test_survives_pickling(quick, exact):
    assert pickle.loads(pickle.dumps(quick)) == quick


def test_opencv_starts_no_threads_of_its_own():
    fast.opencv.cache_clear()
    cv2.setNumThreads(2)
    FastRandomResizedCrop(32)
    assert cv2.getNumThreads() == 1


def test_without_opencv_one_line_says_what_to_install(monkeypatch):
    def refuse(name, *args, **kwargs):
        if name == "cv2":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    fast.opencv.cache_clear()
    with pytest.raises(UserError, match=r"config\.data\.fast needs OpenCV: pip install"):
        FastRotateScaleCrop((8, 8))
