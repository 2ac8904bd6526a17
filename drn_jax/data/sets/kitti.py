"""KITTI's street scenes with masks: those of Ros et al. 2015, and the semantic benchmark's.

`read`: 100 training and 46 validation images in 11 classes, from adas.cvc.uab.es/s2uad, as a .zip
of any name or its folder:
  `Training_00/RGB/*.png`, `Validation_07/RGB/*.png`: images
  `Training_00/GT_ind/`, `Validation_07/GT_ind/`: masks of ids of the same names; or, without them,
      `GT/`: painted masks
These are the images of the Context paper's Table 6.

`read_semantics`: 200 images in Cityscapes' 19 classes, from cvlibs.net/datasets/kitti, as
`data_semantics.zip` or its folder:
  `training/image_2/000000_10.png`: images; those of KITTI's other sets (`_11.png`) are
      passed over
  `training/semantic/000000_10.png`: masks of Cityscapes' labelIds
The benchmark has no validation split: here it is every fifth image, 000004, 000009, ..., 000199 (40
of 200). The labels of `testing` are not public: it is not read.
"""

import os
import re
from typing import NamedTuple

from drn_jax import places
from drn_jax.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Dataset
from drn_jax.data.files import Files, folder_files
from drn_jax.data.findings import Findings
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.labels.kitti import KITTI
from drn_jax.data.masks import Colors, Decode, MappedIds
from drn_jax.data.pairs import Keyed, paired
from drn_jax.data.sources import HEADER, FileSource
from drn_jax.data.zips import zip_files
from drn_jax.errors import UserError

MEAN = (91.347 / 255, 95.551 / 255, 96.194 / 255)
"""Of the Context paper's training images (fyu/dilation lists it as BGR in 0..255). No deviations
are published with it: ImageNet's take their place."""


class _Names(NamedTuple):
    """The files of a split of Ros et al., by key."""

    images: dict[str, str]
    masks: dict[str, str]
    decode: Decode


def read(directory: str, findings: Findings) -> Dataset:
    """The images of Ros et al., from a folder that holds the .zip or the folders, or from the .zip.

    Raises: UserError if neither is there, an archive is damaged, or a split has no example.
    """
    files = _open(directory, "Training_00/RGB", "the .zip of Ros et al. (adas.cvc.uab.es/s2uad)")

    train, validation = (_ros(files, split, findings) for split in ("Training_00", "Validation_07"))
    for key in sorted(train.images.keys() & validation.images.keys()):
        # Each drive numbers its frames anew: a name that both have says nothing yet.
        ours, theirs = train.images[key], validation.images[key]
        if _same(files, ours, theirs):
            findings.fault(f"{files.where(ours)}: is {theirs} again, a validation image; remove it")
            del train.images[key]
            train.masks.pop(key, None)

    def source(split: str, names: _Names) -> FileSource:
        images, masks = Keyed(files, names.images), Keyed(files, names.masks)
        return paired(split, images, masks, names.decode, findings)

    train, validation = source("Training_00", train), source("Validation_07", validation)
    return Dataset(
        name="kitti",
        classes=KITTI.names,
        train=train,
        validation=validation,
        mean=MEAN,
        std=IMAGENET_STD,
        colors=KITTI.colors,
        train_sizes=train.sizes,
        validation_sizes=validation.sizes,
    )


def read_semantics(directory: str, findings: Findings) -> Dataset:
    """The semantic benchmark, from a folder that holds the .zip or the folders, or from the .zip,
    with ImageNet's mean and standard deviation: none are published.

    Raises: as `read`.
    """
    files = _open(directory, "training/semantic", "data_semantics.zip (cvlibs.net/datasets/kitti)")
    pngs = [_frames(files, f"training/{kind}", findings) for kind in ("image_2", "semantic")]

    def source(split: str, validation: bool) -> FileSource:
        images, masks = (
            Keyed(files, {k: v for k, v in names.items() if _is_validation(k) == validation})
            for names in pngs
        )
        return paired(split, images, masks, MappedIds(CITYSCAPES.ids()), findings)

    train, validation = source("training", False), source("validation", True)
    return Dataset(
        name="kitti_semantics",
        classes=CITYSCAPES.names,
        train=train,
        validation=validation,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        colors=CITYSCAPES.colors,
        train_sizes=train.sizes,
        validation_sizes=validation.sizes,
    )


def _ros(files: Files, split: str, findings: Findings) -> _Names:
    images, masks = (_pngs(files, f"{split}/{kind}", findings) for kind in ("RGB", "GT_ind"))
    if masks:
        return _Names(images, masks, MappedIds(KITTI.ids()))
    return _Names(images, _pngs(files, f"{split}/GT", findings), Colors(KITTI.color_ids()))


def _same(files: Files, a: str, b: str) -> bool:
    """Whether two files hold the same; what can't be read is left to those who read it."""
    try:
        return files.head(a, HEADER) == files.head(b, HEADER) and files.read(a) == files.read(b)
    except UserError:
        return False


def _frames(files: Files, folder: str, findings: Findings) -> dict[str, str]:
    """The images or masks of the semantic benchmark, by key."""
    pngs = _pngs(files, folder, findings)
    return {key: name for key, name in pngs.items() if re.fullmatch(r"(.*/)?\d+_10", key)}


def _is_validation(key: str) -> bool:
    """Whether the image is a fifth one. By its number, not by its place: so the split stays what it
    is when an image is missing."""
    return int(key.rpartition("/")[2].removesuffix("_10")) % 5 == 4


def _open(directory: str, folder: str, archive: str) -> Files:
    """The files around a folder of the layout: in `directory`, in a folder or a .zip in it, or in
    the .zip that it is itself."""
    if not places.exists(directory):
        raise UserError(f"{directory}: no such folder or .zip; check the path")
    if places.is_file(directory):
        tops, zips = [], [directory]
    else:
        entries = sorted(places.entries(directory).items())
        below = [(places.join(directory, name), is_folder) for name, is_folder in entries]
        tops = [directory, *(path for path, is_folder in below if is_folder)]
        zips = [
            path for path, is_folder in below if not is_folder and path.lower().endswith(".zip")
        ]
    for top in tops:
        if places.is_folder(places.join(top, *folder.split("/"))):
            return folder_files(top)
    for path in zips:
        files = zip_files(path)
        top = files.above(folder)
        if top is not None:
            return files.inside(top)
    raise UserError(
        f"{directory}: neither has the folder {folder} nor holds {archive}; fetch it and put it "
        "there"
    )


def _pngs(files: Files, folder: str, findings: Findings) -> dict[str, str]:
    """The PNGs of a folder by what follows it in their names, without .png."""
    pngs: dict[str, str] = {}
    for name in files.under(folder):
        stem, suffix = os.path.splitext(name)
        key = stem.removeprefix(f"{folder}/")
        if suffix.lower() != ".png":
            continue
        if key in pngs:
            findings.fault(f"{files.where(name)}: is {pngs[key]} again; keep one of them")
        else:
            pngs[key] = name
    return pngs
