"""Masks of PASCAL VOC images beyond VOC's own: the Semantic Boundaries Dataset, in two layouts.

Original, from http://home.bharathh.info/pubs/codes/SBD/download.html:
  `benchmark.tgz`, with benchmark_RELEASE/dataset/{train.txt,val.txt,cls/ID.mat,img/ID.jpg}; or
  the folder `benchmark_RELEASE` extracted from it, or `dataset` of that.
  A mask is `GTcls.Segmentation` of its .mat, ids 0 to 20 without a border. The .tgz is compressed:
  its masks are read into memory (a few KB each, some 50 MB for the 9,118 that VOC does not have
  itself), which takes a pass over all of its 1.4 GB at every start, some 10 s. Extracting it spares
  both.
Converted, as circulated with DeepLab:
  `SegmentationClassAug`, a folder (at hand, or in VOC2012) or a .zip of ID.png, grey ids 0 to 20
  and 255; and a list `train_aug.txt`, `trainaug.txt` or `aug.txt`, at hand, beside the masks, in
  `list` or in VOC's ImageSets/Segmentation(Aug), of lines `ID` or
  `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`. Without a list, all masks count but those of
  VOC's validation images.
"""

import io
import os
from collections.abc import Set
from dataclasses import dataclass
from itertools import product

import numpy as np

from drn_jax.data.dataset import IGNORED
from drn_jax.data.files import Files, find, folder_files
from drn_jax.data.findings import Findings
from drn_jax.data.labels.pascal_voc import PASCAL_VOC
from drn_jax.data.masks import ClassIds, Decode, known
from drn_jax.data.sets.id_lists import read_ids
from drn_jax.data.tars import unpacked
from drn_jax.data.zips import folder_or_zip
from drn_jax.errors import UserError

CLASSES = len(PASCAL_VOC.classes)


@dataclass(frozen=True)
class Annotations:
    """Masks by the ids of their images, and the lists of those ids."""

    files: Files
    name: str
    """Of a mask's file, with {} for the id."""
    decode: Decode
    lists: dict[str, list[str]]
    """Ids by what findings call their list."""


def find_annotations(
    directory: str, own: Set[str], validation: Set[str], findings: Findings
) -> Annotations:
    """What of the two layouts `directory` has, the original first.

    Args:
      own: the images that VOC itself has masks of; they are not read into memory.
      validation: those of them that a training list must not name.

    Raises: UserError if it has neither, or a list is missing or empty.
    """
    annotations = _original(directory, own, findings)
    annotations = annotations or _converted(directory, validation, findings)
    if annotations is None:
        raise UserError(
            f"{directory}: none of benchmark_RELEASE, benchmark.tgz, SegmentationClassAug or "
            "SegmentationClassAug.zip is here; fetch one of SBD's, or read VOC without it"
        )
    return annotations


def decode_mat(data: bytes, where: str) -> np.ndarray:
    """The mask of an SBD .mat (`GTcls.Segmentation`), uint8 [H, W].

    `scipy.io.loadmat` runs nothing that a file holds: there is no pickle in it.

    Raises: UserError if it is damaged, has no such field, or holds what is no class.
    """
    from scipy.io import loadmat  # Takes a tenth of a second.

    try:
        mask = np.asarray(loadmat(io.BytesIO(data))["GTcls"]["Segmentation"][0, 0])
    # Damaged files make SciPy raise nearly anything (OSError, TypeError, zlib.error, ...).
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{where}: no GTcls.Segmentation can be read ({reason}); fetch it again"
        ) from error
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise UserError(
            f"{where}: GTcls.Segmentation is {mask.dtype} of shape {mask.shape}, not a mask of "
            "whole numbers; fetch it again"
        )
    listed = ((mask >= 0) & (mask < CLASSES)) | (mask == IGNORED)
    otherwise = f"neither a class (0 to {CLASSES - 1}) nor {IGNORED} (ignored)"
    return known(mask, listed, where, otherwise).astype(np.uint8)


def _original(directory: str, own: Set[str], findings: Findings) -> Annotations | None:
    path = find(directory, "benchmark_RELEASE/dataset/cls", "dataset/cls", "benchmark.tgz")
    if path is None:
        return None
    if path.lower().endswith(".tgz"):
        top = "benchmark_RELEASE/dataset/"
        lists = f"{top}train.txt", f"{top}val.txt"
        needless = {f"{top}cls/{id_}.mat" for id_ in own}

        def wanted(name: str) -> bool:
            return name in lists or (name.startswith(f"{top}cls/") and name not in needless)

        files = unpacked(path, wanted)
    else:
        top, files = "", folder_files(os.path.dirname(path))
    ids = {
        f"SBD {split}": read_ids(files, f"{top}{split}.txt", findings) for split in ("train", "val")
    }
    return Annotations(files, f"{top}cls/{{}}.mat", decode_mat, ids)


def _converted(directory: str, validation: Set[str], findings: Findings) -> Annotations | None:
    masks = "SegmentationClassAug"
    tops = "", "VOCdevkit/VOC2012/", "VOC2012/"
    path = find(directory, *(top + masks for top in tops), f"{masks}.zip")
    if path is None:
        return None
    files = folder_or_zip(path, masks)
    places = "", "list/", f"{masks}/", "ImageSets/Segmentation/", "ImageSets/SegmentationAug/"
    names = "train_aug.txt", "trainaug.txt", "aug.txt"
    listed = find(directory, *map("".join, product(tops, places, names)))
    if listed is None:
        ids = [name.removesuffix(".png") for name in files.under("") if name.endswith(".png")]
    else:
        folder, name = os.path.split(listed)
        ids = read_ids(folder_files(folder), name, findings, _id_of_pair)
        for id_ in sorted(validation & set(ids)):
            findings.fault(f"{listed}: lists {id_}, a validation image; take it off the list")
    return Annotations(files, "{}.png", ClassIds(CLASSES), {masks: ids})


def _id_of_pair(line: str) -> str:
    """The id of a line `ID`, or of `/JPEGImages/ID.jpg /SegmentationClassAug/ID.png`."""
    ids = {os.path.splitext(name.rsplit("/", 1)[-1])[0] for name in line.split()}
    if len(ids) > 1:
        raise ValueError(f"pairs files of different images: `{line.strip()}`; mend the line")
    return ids.pop()
