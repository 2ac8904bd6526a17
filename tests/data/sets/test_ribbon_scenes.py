"""The embedded set of context: ribbons whose class only their digit tells, and it is far away."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from drn_jax import data
from drn_jax.data.sets import digit_scenes, ribbon_scenes


@pytest.fixture(scope="module")
def scenes():
    """The first 80 training scenes."""
    scans = ribbon_scenes.scans_by_digit("train")
    return [ribbon_scenes.scene("train", index, scans) for index in range(80)]


def ribbons(scene):
    """(value in the mask, where the ribbon is, where its digit is) of each ribbon."""
    for value in np.unique(scene.mask[scene.mask > 0]):
        yield int(value), scene.mask == value, scene.digits == value


def rim(inside):
    """The (row, column) of the pixels of a region with a neighbour outside of it."""
    padded = np.pad(inside, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(inside & ~inner)


def test_a_scene_is_a_function_of_its_split_and_index(scenes):
    train, validation = map(ribbon_scenes.scans_by_digit, ("train", "validation"))
    for a, b in zip(ribbon_scenes.scene("train", 5, train), scenes[5], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (scenes[6].image != scenes[5].image).any()
    assert (ribbon_scenes.scene("validation", 5, validation).image != scenes[5].image).any()


def test_a_scene_has_two_or_three_classes_of_five(scenes):
    counts = set()
    for scene in scenes:
        assert scene.image.shape == (256, 256, 3)
        assert scene.mask.shape == scene.digits.shape == (256, 256)
        assert scene.image.dtype == scene.mask.dtype == scene.digits.dtype == np.uint8
        assert scene.mask.max() <= 5
        counts.add(len(list(ribbons(scene))))
    assert counts == {2, 3}


def test_a_class_of_a_scene_is_in_one_piece(scenes):
    for scene in scenes[:10]:
        for _, ribbon, _ in ribbons(scene):
            poured = Image.fromarray(ribbon.astype(np.uint8)).copy()  # To write to.
            row, column = map(int, np.argwhere(ribbon)[0])
            ImageDraw.floodfill(poured, (column, row), 2)
            np.testing.assert_array_equal(np.asarray(poured) == 2, ribbon)


def test_there_is_ground_between_ribbons(scenes):
    for scene in scenes:
        rims = [rim(ribbon) for _, ribbon, _ in ribbons(scene)]
        for i, one in enumerate(rims):
            for other in rims[:i]:
                apart = np.linalg.norm(one[:, None] - other, axis=-1).min()
                assert apart >= ribbon_scenes.GAP


def test_each_ribbon_holds_its_digit_and_no_other(scenes):
    for scene in scenes:
        on_digits = scene.digits > 0
        np.testing.assert_array_equal(scene.digits[on_digits], scene.mask[on_digits])
        for _, ribbon, digit in ribbons(scene):
            rows, columns = np.nonzero(digit)
            assert 28 <= np.ptp(rows) + 1 <= 48
            assert np.ptp(columns) + 1 <= 48
            # None of it was cut off by the image's border, and it stands out from the ribbon.
            assert 0 < rows.min() <= rows.max() < 255
            assert 0 < columns.min() <= columns.max() < 255
            ground = scene.image[ribbon & ~digit].mean()
            # The blurred rims of the ink are less dark.
            assert scene.image[digit].mean() < ground - 40


def test_most_of_a_ribbon_is_far_from_its_digit(scenes):
    farthest, mean = [], []
    for scene in scenes:
        for _, ribbon, digit in ribbons(scene):
            box = np.argwhere(digit)
            center = (box.min(0) + box.max(0)) / 2
            away = np.linalg.norm(np.argwhere(ribbon) - center, axis=-1)
            farthest.append(away.max())
            mean.append(away.mean())
    assert np.mean(np.array(farthest) > 100) > 0.9
    assert np.mean(np.array(farthest) > 150) > 0.5
    assert np.mean(mean) > 65


def test_the_classes_are_equally_frequent(scenes):
    values = [value for scene in scenes for value, *_ in ribbons(scene)]
    shown = np.bincount(values, minlength=6)[1:] / len(values)
    assert len(shown) == 5
    assert shown.min() > 0.15
    assert shown.max() < 0.25


def test_a_ribbons_look_does_not_tell_its_class(scenes):
    looks, values = [], []
    for scene in scenes:
        for value, ribbon, digit in ribbons(scene):
            plain = scene.image[ribbon & ~digit].astype(float)
            looks.append([*plain.mean(0), *plain.std(0), ribbon.sum()])
            values.append(value)
    looks, values = np.array(looks), np.array(values)
    looks = (looks - looks.mean(0)) / looks.std(0)

    def accuracy(labels, features):
        """Share of the ribbons that are nearest to the mean of their class among the others."""
        right = 0
        for index, label in enumerate(labels):
            other = np.arange(len(labels)) != index
            means = np.array([features[other & (labels == k)].mean(0) for k in range(1, 6)])
            nearest = 1 + np.linalg.norm(means - features[index], axis=1).argmin()
            right += nearest == label
        return right / len(labels)

    assert len(values) > 160
    for features in (looks, looks[:, :3]):
        assert accuracy(values, features) < 0.3  # Chance: 0.2.
        # A red that leans towards the class, by its own spread a step, is found out.
        leaning = features.copy()
        leaning[:, 0] += values
        assert accuracy(values, leaning) > 0.3


def test_no_scan_is_in_both_splits():
    train, validation = (
        [{scan.tobytes() for scan in scans} for scans in ribbon_scenes.scans_by_digit(split)]
        for split in ("train", "validation")
    )
    assert len(train) == len(validation) == 5
    assert min(map(len, validation)) > 30
    assert not set.union(*train) & set.union(*validation)


def test_validation_digits_are_those_of_digit_scenes(monkeypatch):
    received = {}
    monkeypatch.setattr(
        digit_scenes,
        "_scenes",
        lambda split, count, scans, labels: received.update({split: (scans, labels)}),
    )
    digit_scenes.DigitScenes._split_generators(None, None)
    for split, (scans, labels) in received.items():
        for digit, ours in enumerate(ribbon_scenes.scans_by_digit(split)):
            np.testing.assert_array_equal(ours, scans[labels == digit])


def test_normalised_scenes_lie_around_zero_with_a_deviation_near_one(scenes):
    pixels = np.stack([scene.image for scene in scenes]).reshape(-1, 3).astype(np.float32) / 255
    normalised = (pixels - np.array(ribbon_scenes.MEAN)) / np.array(ribbon_scenes.STD)
    np.testing.assert_allclose(normalised.mean(0), 0, atol=0.5)
    np.testing.assert_allclose(normalised.std(0), 1, atol=0.1)


def test_the_prepared_set_reads_back_the_scenes_that_were_made(tmp_path, monkeypatch):
    counts = {"train": 6, "validation": 4}
    monkeypatch.setattr(ribbon_scenes, "TRAIN", counts["train"])
    monkeypatch.setattr(ribbon_scenes, "VALIDATION", counts["validation"])
    dataset = ribbon_scenes.load(str(tmp_path))
    assert dataset.name == "ribbon_scenes"
    assert dataset.classes == ("background", "0", "1", "2", "3", "4")
    assert (dataset.mean, dataset.std) == (ribbon_scenes.MEAN, ribbon_scenes.STD)

    for split, source in (("train", dataset.train), ("validation", dataset.validation)):
        assert len(source) == counts[split]
        scans = ribbon_scenes.scans_by_digit(split)
        made = [ribbon_scenes.scene(split, index, scans) for index in range(counts[split])]
        masks = {scene.image.tobytes(): scene.mask for scene in made}
        for index in range(len(source)):  # TFDS shuffles what it writes.
            example = source[index]
            np.testing.assert_array_equal(example["mask"], masks.pop(example["image"].tobytes()))
            assert {name: (array.dtype.name, array.shape) for name, array in example.items()} == {
                "image": ("uint8", (256, 256, 3)),
                "mask": ("uint8", (256, 256)),
            }
        assert not masks

    # A second load, by name, finds the set prepared: nothing is made again.
    monkeypatch.setattr(ribbon_scenes, "_scenes", None)
    again = data.load("ribbon_scenes", str(tmp_path), "segmentation")
    np.testing.assert_array_equal(again.train[3]["image"], dataset.train[3]["image"])


# Close-ups


@pytest.fixture(scope="module")
def close_ups():
    """The first 300 training close-ups: images and classes."""
    scans = ribbon_scenes.scans_by_digit("train")
    made = [ribbon_scenes.close_up("train", index, scans) for index in range(300)]
    images, labels = zip(*made, strict=True)
    return np.stack(images), np.array(labels)


def test_a_close_up_is_a_function_of_its_split_and_index(close_ups):
    images, labels = close_ups
    train, validation = map(ribbon_scenes.scans_by_digit, ("train", "validation"))
    image, label = ribbon_scenes.close_up("train", 5, train)
    np.testing.assert_array_equal(image, images[5])
    assert label == labels[5]
    assert (images[6] != images[5]).any()
    assert (ribbon_scenes.close_up("validation", 5, validation)[0] != images[5]).any()
    assert len({image.tobytes() for image in images}) == len(images)


def test_close_ups_are_of_six_classes_equally_frequent(close_ups):
    images, labels = close_ups
    assert images.shape == (300, 72, 72, 3)
    assert images.dtype == np.uint8
    shown = np.bincount(labels, minlength=6) / len(labels)
    assert len(shown) == 6
    assert 0.1 < shown.min() <= shown.max() < 0.25


def painted_ribbons(monkeypatch):
    """What is painted from now on: each ribbon's inner pixels and canvas, and each digit's ink."""
    calls = {"ribbon": [], "ink": []}
    ribbon, digit = ribbon_scenes._ribbon, ribbon_scenes._digit

    def ribboned(rng, canvas, depth):
        painted = ribbon(rng, canvas, depth)
        calls["ribbon"].append((depth > ribbon_scenes.OUTLINE + 1, painted))
        return painted

    def inked(*args):
        ink = digit(*args)
        calls["ink"].append(ink)
        return ink

    monkeypatch.setattr(ribbon_scenes, "_ribbon", ribboned)
    monkeypatch.setattr(ribbon_scenes, "_digit", inked)
    return calls


def test_class_0_is_ground_alone_and_any_other_a_dark_digit_near_the_middle_of_a_ribbon(
    monkeypatch,
):
    scans = ribbon_scenes.scans_by_digit("train")
    calls, seen = painted_ribbons(monkeypatch), set()
    for index in range(80):
        for painted_before in calls.values():
            painted_before.clear()
        image, label = ribbon_scenes.close_up("train", index, scans)
        seen.add(label)
        assert len(calls["ribbon"]) == len(calls["ink"]) == (label > 0)
        if not label:
            continue
        [(inside, painted)], [ink] = calls["ribbon"], calls["ink"]
        assert inside[ink >= 0.4].all()  # All of the digit is on the ribbon.
        rows, columns = np.nonzero(ink >= 0.4)
        for places in (rows, columns):
            assert 0 < places.min() <= places.max() < 71
            assert abs((places.min() + places.max()) / 2 - 35.5) <= 8 + 1
        # What was laid on: one colour, dark in every channel, on a light ribbon.
        share = ink[ink >= 0.5][:, None]
        laid = (image[ink >= 0.5] - (1 - share) * painted[ink >= 0.5]) / share
        assert np.ptp(laid, axis=0).max() < 3  # Rounding, twice as large at half a share.
        assert -2 < laid.min() <= laid.max() < 62
        assert painted[inside].mean(0).min() > 120
    assert seen == set(range(6))


def test_a_close_up_shows_a_scan_of_its_class(monkeypatch):
    received = []
    digit = ribbon_scenes._digit

    def inked(rng, scans, *rest):
        received.append(scans)
        return digit(rng, scans, *rest)

    monkeypatch.setattr(ribbon_scenes, "_digit", inked)
    for split in ("train", "validation"):
        scans = ribbon_scenes.scans_by_digit(split)
        for index in range(20):
            received.clear()
            _, label = ribbon_scenes.close_up(split, index, scans)
            assert [id(given) for given in received] == [id(scans[label - 1])] * (label > 0)


def test_ink_is_always_darker_than_any_ribbon():
    assert ribbon_scenes.DARK[1] + 70 <= ribbon_scenes.LIGHT[0]


def test_the_prepared_close_ups_read_back_as_they_were_made(tmp_path, monkeypatch):
    counts = {"train": 12, "validation": 6}
    monkeypatch.setattr(ribbon_scenes, "TRAIN_CLOSE_UPS", counts["train"])
    monkeypatch.setattr(ribbon_scenes, "VALIDATION_CLOSE_UPS", counts["validation"])
    dataset = ribbon_scenes.load_close_ups(str(tmp_path))
    assert dataset.classes == ("background", "0", "1", "2", "3", "4")
    for split, source in (("train", dataset.train), ("validation", dataset.validation)):
        scans = ribbon_scenes.scans_by_digit(split)
        close_ups = [ribbon_scenes.close_up(split, index, scans) for index in range(counts[split])]
        made = {image.tobytes(): label for image, label in close_ups}
        assert len(source) == counts[split] == len(made)
        for index in range(len(source)):  # TFDS shuffles what it writes.
            example = source[index]
            assert {name: (array.dtype.name, array.shape) for name, array in example.items()} == {
                "image": ("uint8", (72, 72, 3)),
                "label": ("int32", ()),
            }
            assert made.pop(example["image"].tobytes()) == example["label"]
    # By name, for classification, and prepared already: nothing is made again.
    monkeypatch.setattr(ribbon_scenes, "_close_ups", None)
    again = data.load("ribbon_scenes", str(tmp_path), "classification")
    np.testing.assert_array_equal(again.train[3]["image"], dataset.train[3]["image"])
