"""Every field of the configuration about augmentation reaches the transform, in fyu/drn's order."""

import pytest

from drn_jax import augmentation
from drn_jax.config import ClassificationData, MapData, SegmentationData
from drn_jax.data.color import ColorJitter, Lighting
from drn_jax.data.fast import FastRandomResizedCrop, FastRotateScaleCrop
from drn_jax.data.surroundings import MapCrop, SurroundedCrop
from drn_jax.data.transforms import (
    CentreCrop,
    Compose,
    RandomFlip,
    RandomResizedCrop,
    RandomRotate,
    RandomScale,
    ResizeShorterSide,
)
from drn_jax.data.windowed import RotateScaleCrop
from drn_jax.errors import UserError

COLORS = {"jitter": (0.1, 0.2, 0.3, 0.4), "lighting": 0.5}


@pytest.mark.parametrize(
    ("settings", "margin", "steps"),
    [
        (SegmentationData("x", (8, 9)), 0, (RotateScaleCrop((8, 9)), RandomFlip())),
        (
            SegmentationData("x", (8, 9), rotate=10, scale=2.0, flip=False),
            0,
            (RotateScaleCrop((8, 9), 2.0, 10),),
        ),
        (
            SegmentationData("x", (8, 9), rotate=10, scale=2.0, fast=True, **COLORS),
            0,
            (
                FastRotateScaleCrop((8, 9), 2.0, 10),
                RandomFlip(),
                ColorJitter(0.1, 0.2, 0.3, 0.4),
                Lighting(0.5),
            ),
        ),
        (
            SegmentationData("x", (8, 9), rotate=10, scale=2.0),
            5,
            (RandomRotate(10), RandomScale(2.0), SurroundedCrop((8, 9), 5), RandomFlip()),
        ),
        (
            ClassificationData("x", 8, 9, crop_area=(0.5, 1.0)),
            0,
            (RandomResizedCrop(8, (0.5, 1.0)), RandomFlip()),
        ),
        (
            ClassificationData("x", 8, 9, fast=True, flip=False, lighting=0.5),
            0,
            (FastRandomResizedCrop(8), Lighting(0.5)),
        ),
        (
            ClassificationData("x", 8, 9, random_crop=False, jitter=(0.0, 0.2, 0.0, 0.0)),
            0,
            (ResizeShorterSide(9), CentreCrop(8), RandomFlip(), ColorJitter(0.0, 0.2)),
        ),
        (MapData("run", (3, 4)), 0, (MapCrop((3, 4), 8),)),
        (MapData("run"), 0, ()),
    ],
)
def test_the_fields_become_these_transforms_in_this_order(settings, margin, steps):
    assert augmentation.build(settings, margin, stride=8) == Compose(steps)


@pytest.mark.parametrize(
    ("settings", "margin", "said"),
    [
        (SegmentationData("x", (8, 9), fast=True), 5, "not for a network that takes"),
        (ClassificationData("x", 8, 9, random_crop=False, fast=True), 0, "for random crops only"),
    ],
)
def test_a_field_that_could_not_be_heeded_is_an_error(settings, margin, said):
    with pytest.raises(UserError, match=rf"^config\.data\.fast: {said}"):
        augmentation.build(settings, margin, stride=8)
