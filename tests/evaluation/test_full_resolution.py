"""Sums over images are those of all pixels, and every mask is handed on once, in order."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from drn_jax.errors import UserError
from drn_jax.evaluation import full_resolution
from drn_jax.evaluation.boundary import BoundaryF

CLASSES = 4


class Source:
    def __init__(self, sizes, wrong=-1):
        rng = np.random.default_rng(0)
        self.examples = []
        for i, (height, width) in enumerate(sizes):
            image = rng.integers(0, CLASSES, (height, width, 3), dtype=np.uint8)
            mask = rng.choice([0, 1, 2, 3, 255], (height, width)).astype(np.uint8)
            self.examples.append({"image": image, "mask": mask[1:] if i == wrong else mask})

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]

    def where(self, index):
        return f"image {index}"


def red(image):
    """A mask that the image itself holds."""
    return image[..., 0]


SIZES = [(9, 7), (12, 5), (3, 30), (8, 8), (1, 1)]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_confusion_is_that_of_all_pixels_together(count):
    source, seen = Source(SIZES[:count]), []
    found = full_resolution.evaluate(
        source, red, CLASSES, each=lambda index, mask: seen.append((index, mask.shape))
    )
    assert seen == [(i, size) for i, size in enumerate(SIZES[:count])]
    if not count:
        assert found["confusion"].sum() == 0
        return
    truth = np.concatenate([e["mask"].ravel() for e in source.examples])
    answer = np.concatenate([e["image"][..., 0].ravel() for e in source.examples])
    counts = truth != 255
    expected = confusion_matrix(truth[counts], answer[counts], labels=range(CLASSES))
    np.testing.assert_array_equal(found["confusion"], expected)


def test_boundaries_are_those_of_each_image_added_up():
    source, outlines = Source(SIZES), BoundaryF(CLASSES, theta=0.1)
    found = full_resolution.evaluate(source, red, CLASSES, outlines)
    each = [outlines.sums(e["mask"], red(e["image"])) for e in source.examples]
    for name in each[0]:
        np.testing.assert_allclose(found[f"boundary_{name}"], sum(one[name] for one in each))


def test_labels_of_another_size_are_named():
    with pytest.raises(UserError, match="image 1: the image is 12x5, its labels are 11x5"):
        full_resolution.evaluate(Source(SIZES, wrong=1), red, CLASSES)


def test_all_examples_pass_what_shows_them():
    totals = []

    def shown(items, total):
        totals.append(total)
        yield from items

    full_resolution.evaluate(Source(SIZES), red, CLASSES, shown=shown)
    assert totals == [len(SIZES)]
