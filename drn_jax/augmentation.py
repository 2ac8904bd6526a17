"""What a configuration says of augmentation, as one transform of training examples."""

from drn_jax.config import ClassificationData, MapData, SegmentationData
from drn_jax.data import loader
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
    Transform,
)
from drn_jax.data.windowed import RotateScaleCrop
from drn_jax.errors import UserError


def build(
    settings: ClassificationData | SegmentationData | MapData, margin: int, stride: int
) -> loader.Augment:
    """The transform of a training example.

    Args:
      margin: pixels of surroundings that the network takes on every side.
      stride: pixels between neighbouring cells of a map.

    Raises: UserError for fields that contradict each other.
    """
    if isinstance(settings, MapData):
        return Compose((MapCrop(settings.crop, stride),) if all(settings.crop) else ())
    if isinstance(settings, SegmentationData):
        steps = _segmentation(settings, margin)
    else:
        steps = _classification(settings)
    if settings.flip:
        steps.append(RandomFlip())
    if any(settings.jitter):
        steps.append(ColorJitter(*settings.jitter))
    if settings.lighting:
        steps.append(Lighting(settings.lighting))
    return Compose(tuple(steps))


def _segmentation(settings: SegmentationData, margin: int) -> list[Transform]:
    """fyu/drn's order: rotate, scale, crop."""
    if not margin:
        crop = FastRotateScaleCrop if settings.fast else RotateScaleCrop
        return [crop(settings.crop, settings.scale, settings.rotate)]
    if settings.fast:
        raise UserError("config.data.fast: not for a network that takes an image's surroundings")
    steps: list[Transform] = []
    if settings.rotate:
        steps.append(RandomRotate(settings.rotate))
    if settings.scale != 1:
        steps.append(RandomScale(settings.scale))
    return [*steps, SurroundedCrop(settings.crop, margin)]


def _classification(settings: ClassificationData) -> list[Transform]:
    if settings.random_crop:
        crop = FastRandomResizedCrop if settings.fast else RandomResizedCrop
        return [crop(settings.crop, scale=settings.crop_area)]
    if settings.fast:
        raise UserError("config.data.fast: for random crops only; set config.data.random_crop")
    return [ResizeShorterSide(settings.resize), CentreCrop(settings.crop)]
