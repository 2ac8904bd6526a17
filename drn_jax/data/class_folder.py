"""Classification sets of one folder a class, as PyTorch's `ImageFolder` reads them.

`train/<class>/...` and `val/<class>/...` hold the images, at any depth; the sorted names of the
class folders under `train` are the label ids. This is the ImageNet that fyu/drn's `classify.py`
expects. Hidden files and folders are passed over, and so is what is not named as an image.
"""

import os
from dataclasses import dataclass

import numpy as np

from drn_jax.data import image
from drn_jax.data.dataset import Dataset, Example
from drn_jax.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""The statistics of fyu/drn and torchvision, which published weights expect."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What `ImageFolder` takes for an image, in either case."""


@dataclass(frozen=True)
class ClassSource:
    """Examples with `image` and `label` of single files."""

    images: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        """The example; UserError if its file is missing or damaged."""
        path = self.images[index]
        return {
            "image": image.decode_rgb(image.read_bytes(path), path),
            "label": np.array(self.labels[index], np.int32),
        }


def load(folder: str) -> Dataset:
    """The data set in `folder`, with ImageNet's mean and standard deviation.

    `validation_sizes` stays None: the evaluation crop makes all images alike, and to look up 50,000
    sizes takes minutes. Validation may lack classes of the training images.

    Raises:
      UserError: `train` or `val` is missing or has no class, a class has no image, or `val` has a
        class that `train` has not.
    """
    train_folder, val_folder = os.path.join(folder, "train"), os.path.join(folder, "val")
    classes, val_classes = _class_names(train_folder), _class_names(val_folder)
    for name in val_classes:
        if name not in classes:
            raise UserError(
                f"{os.path.join(val_folder, name)}: {train_folder} has no class {name}; add its "
                "training images or remove the folder"
            )
    labels = {name: i for i, name in enumerate(classes)}
    return Dataset(
        name=os.path.basename(os.path.abspath(folder)),
        classes=tuple(classes),
        train=_source(train_folder, classes, labels),
        validation=_source(val_folder, val_classes, labels),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _class_names(folder: str) -> list[str]:
    """The sorted class folders."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; images belong in train/<class> and val/<class>")
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise UserError(f"{folder}: has no class; put the images of each class in a folder of it")
    return names


def _source(folder: str, classes: list[str], labels: dict[str, int]) -> ClassSource:
    paths: list[str] = []
    ids: list[int] = []
    for name in classes:
        found = _images(os.path.join(folder, name))
        paths += found
        ids += [labels[name]] * len(found)
    return ClassSource(tuple(paths), tuple(ids))


def _images(folder: str) -> list[str]:
    """The images under a class folder, sorted."""
    found: list[str] = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(root, name)
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not found:
        raise UserError(
            f"{folder}: holds no image ({' '.join(SUFFIXES)}); add some or remove the folder"
        )
    return sorted(found)
