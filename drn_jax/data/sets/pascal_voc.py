"""PASCAL VOC 2012 segmentation, and the training set of it that SBD's masks augment.

From http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (training/validation data, 2 GB):
  `VOCtrainval_11-May-2012.tar`, with
  VOCdevkit/VOC2012/{JPEGImages/ID.jpg,SegmentationClass/ID.png,ImageSets/Segmentation/*.txt}; or
  the folder `VOCdevkit` or `VOC2012` extracted from it.
For the masks of SBD see `sbd`; they lie in the same directory.

The augmented training set is that of the Context paper and of nearly all work since: the images of
VOC's train and of SBD's train and val, without those of VOC's val, 10,582 in all, sorted. Images
are VOC's (SBD's are copies of them). Where both have a mask, VOC's own is taken: it is finer, and
has the border that counts for nothing.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from drn_jax import places
from drn_jax.data.dataset import IMAGENET_STD, Dataset
from drn_jax.data.files import Files, find, folder_files, require_folder
from drn_jax.data.findings import Findings
from drn_jax.data.labels.pascal_voc import PASCAL_VOC
from drn_jax.data.masks import ClassIds, MaskFiles
from drn_jax.data.sets import sbd
from drn_jax.data.sets.id_lists import read_ids
from drn_jax.data.sources import FileSource
from drn_jax.data.tars import UNENDED, tar_files
from drn_jax.errors import UserError

MEAN = (116.52 / 255, 111.36 / 255, 102.93 / 255)
"""The Context paper's (its Caffe nets: BGR 102.93, 111.36, 116.52)."""

OFFICIAL = {
    "VOC train": 1464,
    "VOC val": 1449,
    "SBD train": 8498,
    "SBD val": 2857,
    "augmented training": 10582,
}
"""How many images the lists name."""

ARCHIVE = "VOCtrainval_11-May-2012.tar"


@dataclass(frozen=True)
class OwnOrOther:
    """Masks of two kinds: for each image `own` or `other` names a file, and it is "" to the one
    that has none."""

    own: MaskFiles
    other: MaskFiles

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._kind(index)[index]

    def where(self, index: int) -> str:
        return self._kind(index).where(index)

    def _kind(self, index: int) -> MaskFiles:
        return self.own if self.own.names[index] else self.other


class _Voc(NamedTuple):
    """VOC 2012: where it is, and the ids of its splits."""

    files: Files
    top: str
    train: list[str]
    validation: list[str]

    @property
    def own(self) -> frozenset[str]:
        """The images that VOC has masks of."""
        return frozenset([*self.train, *self.validation])

    def image(self, id_: str) -> str:
        return f"{self.top}JPEGImages/{id_}.jpg"

    def mask(self, id_: str) -> str:
        return f"{self.top}SegmentationClass/{id_}.png"


def read(directory: str, findings: Findings) -> Dataset:
    """VOC 2012 segmentation, train and val (1,464 and 1,449 images).

    Args:
      directory: what holds the archive or a folder extracted from it.

    Raises: UserError if VOC is not there, a list is missing, or nothing is left of a split.
    """
    voc = _open(directory, findings)
    return _dataset("pascal_voc", voc, _source(voc, voc.train, None, "train", findings), findings)


def read_augmented(
    directory: str, findings: Findings, counts: Mapping[str, int] | None = OFFICIAL
) -> Dataset:
    """VOC 2012 with the training set that SBD's masks augment (10,582 and 1,449 images).

    Args:
      directory: what holds VOC and SBD, each as an archive or a folder extracted from it.
      counts: how many images the lists must name, else it is a fault; None: any.

    Raises: UserError as `read`, or if SBD is not there.
    """
    voc = _open(directory, findings)
    validation = frozenset(voc.validation)
    others = sbd.find_annotations(directory, voc.own, validation, findings)
    ids = sorted({*voc.train}.union(*others.lists.values()) - validation)
    found = {"VOC train": len(voc.train), "VOC val": len(voc.validation)}
    found |= {name: len(listed) for name, listed in others.lists.items()}
    found["augmented training"] = len(ids)
    expected = {name: counts[name] for name in found if name in counts} if counts else {}
    if any(found[name] != count for name, count in expected.items()):
        told = (f"{name} {found[name]} (expected {count})" for name, count in expected.items())
        findings.fault(
            f"{directory}: the lists name other numbers of images than the official ones: "
            f"{', '.join(told)}; fetch VOC and SBD again, or, for a part on purpose, run "
            "`python -m drn_jax.data prepare pascal_voc_aug --partial` and train on that"
        )
    source = _source(voc, ids, others, "augmented training", findings)
    return _dataset("pascal_voc_aug", voc, source, findings)


def _open(directory: str, findings: Findings) -> _Voc:
    require_folder(directory, "name the one that holds VOC 2012")
    lists = "ImageSets/Segmentation"
    tops = "VOCdevkit/VOC2012/", "VOC2012/", ""
    path = find(directory, *(top + lists for top in tops), ARCHIVE)
    if path is None:
        raise UserError(
            f"{directory}: none of {ARCHIVE}, VOCdevkit or VOC2012 (with {lists}) is here; fetch "
            "VOC 2012's training/validation data"
        )
    if places.is_file(path):
        files, top = tar_files(path), tops[0]
        if not files.ended:
            findings.warn(UNENDED, path)
    else:
        files, top = folder_files(os.path.dirname(os.path.dirname(path))), ""
    train, validation = (
        read_ids(files, f"{top}{lists}/{split}.txt", findings) for split in ("train", "val")
    )
    both = {*train} & {*validation}
    for id_ in sorted(both):
        findings.fault(
            f"{files.where(f'{top}{lists}/train.txt')}: lists {id_}, which val.txt lists too; take "
            "it off one of them"
        )
    train = [id_ for id_ in train if id_ not in both]
    return _Voc(files, top, train, validation)


def _source(
    voc: _Voc, ids: list[str], others: sbd.Annotations | None, split: str, findings: Findings
) -> FileSource:
    """The examples `ids` that are there, with VOC's own masks, or, where it has none, others."""
    own = voc.own
    names: list[tuple[str, str, str]] = []
    for id_ in ids:
        image = voc.image(id_)
        files, mask = voc.files, voc.mask(id_)
        if others is not None and id_ not in own:
            files, mask = others.files, others.name.format(id_)
        missing = [
            f.where(name) for f, name in ((voc.files, image), (files, mask)) if name not in f
        ]
        for where in missing:
            findings.fault(f"{where}: {id_} is listed but this is missing; restore or unlist it")
        if not missing:
            names.append((image, mask, "") if files is voc.files else (image, "", mask))
    if not names:
        raise UserError(f"{voc.files.where(voc.top)}: no example of {split} is complete; fetch it")
    images, own_masks, other_masks = zip(*names, strict=True)
    masks = MaskFiles(voc.files, own_masks, ClassIds(len(PASCAL_VOC.classes)))
    if others is not None:
        masks = OwnOrOther(masks, MaskFiles(others.files, other_masks, others.decode))
    return FileSource(voc.files, images, masks=masks)


def _dataset(name: str, voc: _Voc, train: FileSource, findings: Findings) -> Dataset:
    validation = _source(voc, voc.validation, None, "val", findings)
    return Dataset(
        name=name,
        classes=PASCAL_VOC.names,
        train=train,
        validation=validation,
        mean=MEAN,
        std=IMAGENET_STD,
        colors=PASCAL_VOC.colors,
        validation_sizes=validation.sizes,
        train_sizes=train.sizes,
    )
