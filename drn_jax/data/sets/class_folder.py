"""Classification sets of one folder a class, as PyTorch's `ImageFolder` reads them.

`train/<class>/...` and `val/<class>/...` hold the images, at any depth; the sorted names of the
class folders under `train` are the label ids. This is the ImageNet that fyu/drn's `classify.py`
expects. Hidden files and folders are passed over, and so is what is not named as an image.
"""

import numpy as np

from drn_jax import places
from drn_jax.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Dataset
from drn_jax.data.files import Files, folder_files
from drn_jax.data.findings import Findings
from drn_jax.data.sources import FileSource
from drn_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What `ImageFolder` takes for an image, in either case."""


def read(folder: str, findings: Findings) -> Dataset:
    """The data set in `folder`, with ImageNet's mean and standard deviation.

    Its images count as alike in size: the evaluation crop makes them so, and to look up 50,000
    sizes takes minutes. Validation may lack classes of the training images. A class without an
    image keeps its label id.

    Raises:
      UserError: `train` or `val` is missing, has no class or no image.
    """
    files = folder_files(folder)
    classes, val_classes = _class_names(files, "train"), _class_names(files, "val")
    for name in sorted(set(val_classes).difference(classes)):
        findings.fault(
            f"{files.where(f'val/{name}')}: {files.where('train')} has no class {name}; add its "
            "training images or remove the folder"
        )
    labels = {name: i for i, name in enumerate(classes)}
    return Dataset(
        name=places.name(folder),
        classes=tuple(classes),
        train=_source(files, "train", classes, labels, findings),
        validation=_source(
            files, "val", [name for name in val_classes if name in labels], labels, findings
        ),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _class_names(files: Files, split: str) -> list[str]:
    """The sorted class folders."""
    folder = files.where(split)
    if not places.is_folder(folder):
        raise UserError(f"{folder}: no such folder; images belong in train/<class> and val/<class>")
    below = places.entries(folder)
    names = sorted(name for name in below if below[name] and not name.startswith("."))
    if not names:
        raise UserError(f"{folder}: has no class; put the images of each class in a folder of it")
    return names


def _source(
    files: Files,
    split: str,
    classes: list[str],
    labels: dict[str, int],
    findings: Findings,
) -> FileSource:
    names: list[str] = []
    ids: list[int] = []
    for name in classes:
        folder = f"{split}/{name}"
        found = [image for image in files.under(folder) if image.lower().endswith(SUFFIXES)]
        if not found:
            findings.fault(
                f"{files.where(folder)}: holds no image ({' '.join(SUFFIXES)}); add some or "
                "remove the folder"
            )
        names += found
        ids += [labels[name]] * len(found)
    if not names:
        raise UserError(
            f"{files.where(split)}: holds no image ({' '.join(SUFFIXES)}); put those of each class "
            "in a folder of it"
        )
    return FileSource(files, tuple(names), labels=np.array(ids, np.int32))
