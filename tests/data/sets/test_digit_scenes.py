"""The embedded set: label, box and mask agree, and what is made is what is read."""

import numpy as np
import pytest

from drn_jax.data.sets import digit_scenes


@pytest.fixture(scope="module")
def splits():
    """(scans, labels) as each split receives them: {"train": ..., "validation": ...}."""
    received = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            digit_scenes,
            "_scenes",
            lambda split, count, scans, labels: received.update({split: (count, scans, labels)}),
        )
        digit_scenes.DigitScenes._split_generators(None, None)
    return received


def make(split, index, scans, labels):
    """Scene `index` of a split, as (image, mask, box, label)."""
    which = index % len(scans)
    rng = np.random.default_rng([len(split), index])
    label = int(labels[which])
    return (*digit_scenes.scene(rng, scans[which], label, scans), label)


@pytest.fixture(scope="module")
def scenes(splits):
    """The first 600 training scenes."""
    _, scans, labels = splits["train"]
    return [make("train", index, scans, labels) for index in range(600)]


def test_a_mask_holds_the_background_and_the_label_plus_one(scenes):
    for image, mask, _, label in scenes:
        assert image.shape == (64, 64, 3)
        assert image.dtype == mask.dtype == np.uint8
        assert mask.shape == (64, 64)
        assert np.unique(mask).tolist() == [0, label + 1]


def test_the_box_is_the_tight_bounds_of_the_mask(scenes):
    for _, mask, (x1, y1, x2, y2), _ in scenes:
        inside = mask[y1:y2, x1:x2] > 0
        assert inside.sum() == (mask > 0).sum()
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.any()


def test_digits_vary_in_size_and_place(scenes):
    boxes = np.array([box for _, _, box, _ in scenes])
    heights = boxes[:, 3] - boxes[:, 1]
    assert heights.min() >= 16
    assert heights.max() - heights.min() >= 12
    assert np.ptp(boxes[:, 0]) >= 16
    assert np.ptp(boxes[:, 1]) >= 16


def test_a_scene_is_a_function_of_its_split_and_index(splits, scenes):
    _, scans, labels = splits["train"]
    for a, b in zip(make("train", 5, scans, labels), scenes[5], strict=True):
        np.testing.assert_array_equal(a, b)
    # The same scan again, an epoch of scans later, is on another scene.
    assert (make("train", 5 + len(scans), scans, labels)[0] != scenes[5][0]).any()


def test_no_scan_is_in_both_splits(splits):
    train, validation = ({scan.tobytes() for scan in splits[s][1]} for s in splits)
    assert (len(splits["train"][1]), len(splits["validation"][1])) == (1438, 359)
    assert not train & validation


def test_every_class_has_about_a_tenth_of_the_scenes(splits):
    for count, _, labels in splits.values():
        shown = np.bincount(labels[np.arange(count) % len(labels)], minlength=10) / count
        assert len(shown) == 10
        assert shown.min() > 0.085
        assert shown.max() < 0.115


def test_the_stated_mean_and_deviation_are_those_of_the_scenes(scenes):
    pixels = np.stack([image for image, *_ in scenes]).reshape(-1, 3) / 255
    np.testing.assert_allclose(pixels.mean(0), digit_scenes.MEAN, atol=0.02)
    np.testing.assert_allclose(pixels.std(0), digit_scenes.STD, atol=0.02)


def test_the_prepared_set_reads_back_the_scenes_that_were_made(tmp_path, monkeypatch, splits):
    monkeypatch.setattr(digit_scenes, "TRAIN", 20)
    monkeypatch.setattr(digit_scenes, "VALIDATION", 10)
    dataset = digit_scenes.load(str(tmp_path), digit_scenes.MASKS)
    assert dataset.classes[:2] == ("background", "0")
    assert (dataset.mean, dataset.std) == (digit_scenes.MEAN, digit_scenes.STD)

    for split, source, count in (
        ("train", dataset.train, 20),
        ("validation", dataset.validation, 10),
    ):
        _, scans, labels = splits[split]
        assert len(source) == count
        made = {}
        for index in range(count):
            image, *rest = make(split, index, scans, labels)
            made[image.tobytes()] = rest
        assert len(made) == count
        for index in range(count):  # TFDS shuffles what it writes.
            example = source[index]
            mask, box, label = made.pop(example["image"].tobytes())
            np.testing.assert_array_equal(example["mask"], mask)
            np.testing.assert_allclose(example["boxes"], [box], atol=1e-4)
            assert example["label"] == label
            assert {name: array.dtype.name for name, array in example.items()} == {
                "image": "uint8",
                "mask": "uint8",
                "label": "int32",
                "boxes": "float32",
            }
        assert not made

    # A second load finds the set prepared: nothing is made again.
    monkeypatch.setattr(digit_scenes, "_scenes", None)
    again = digit_scenes.load(str(tmp_path), digit_scenes.DIGITS)
    np.testing.assert_array_equal(again.train[3]["image"], dataset.train[3]["image"])
    assert again.classes == digit_scenes.DIGITS
