"""Tiny-ImageNet: 64x64 images with a label and a box each, from its folder or its .zip.

The layout is the published one (http://cs231n.stanford.edu/tiny-imagenet-200.zip):
  `wnids.txt`: the WordNet ids in use, one a line; sorted, they are the label ids
  `words.txt`: `wnid <tab> name, other names`; the first name is the class name
  `train/<wnid>/<wnid>_boxes.txt`: `name x1 y1 x2 y2`, of images in `train/<wnid>/images`
  `val/val_annotations.txt`: `name wnid x1 y1 x2 y2`, of images in `val/images`
Train folders that wnids.txt doesn't list are passed over, and so is the test split, which has no
labels.

The boxes are pixel indices with both ends inside: they run from 0 to 63, 63 is by far their most
frequent end, 64 never occurs, and a few start and end on the same pixel. To make them pixel edges
(dataset.py), 1 is added to x2 and y2: 0 0 63 63 becomes the whole image, (0, 0, 64, 64).
"""

import os
from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from drn_jax import places
from drn_jax.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Dataset
from drn_jax.data.files import Files, folder_files
from drn_jax.data.findings import Findings
from drn_jax.data.sets.imagenet import class_names
from drn_jax.data.sources import FileSource
from drn_jax.data.zips import ZipFiles, zip_files
from drn_jax.errors import UserError

SIDE = 64
"""Height and width of every image."""

_LIST = "wnids.txt"
_USUAL = "tiny-imagenet-200"
_VALIDATION = "val/val_annotations.txt"


class Row(NamedTuple):
    """A line of an annotation file."""

    where: str
    """The file and the line, for findings."""
    image: str
    """Its file."""
    wnid: str
    box: tuple[int, int, int, int]
    """x1 y1 x2 y2, pixel indices, both ends inside."""


def read(path: str, findings: Findings) -> Dataset:
    """The data set, with ImageNet's mean and standard deviation; images with `label` and `boxes`,
    one each.

    Args:
      path: the folder that holds wnids.txt; or a .zip of it, with or without a folder on top; or a
        folder that holds one of these.

    Raises:
      UserError: `path` is none of these, or a split has no example.
    """
    files = _open(path)
    wnids = _wnids(files, findings)
    labels = {wnid: i for i, wnid in enumerate(wnids)}
    train, validation = [], []
    present = [name for name in files.under("train") if _is_image_of(labels, name)]
    for wnid in wnids:
        annotations = f"train/{wnid}/{wnid}_boxes.txt"
        if annotations in files:
            train += _rows(files, annotations, wnid, findings)
        else:
            where = files.where(annotations)
            findings.fault(f"{where}: missing; fetch the set again, or take {wnid} off {_LIST}")
    for row in _rows(files, _VALIDATION, None, findings):
        if row.wnid in labels:
            validation.append(row)
        else:
            findings.fault(
                f"{row.where} is of class {row.wnid}, which {_LIST} does not list; add it there, "
                "with training images"
            )
    return Dataset(
        name=os.path.splitext(places.name(path))[0],
        classes=_class_names(files, wnids, findings),
        train=_source(files, "train", train, present, labels, findings),
        validation=_source(files, "val", validation, files.under("val/images"), labels, findings),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _is_image_of(wnids: Container[str], name: str) -> bool:
    """Whether a file in `train` lies where the images of one of the classes do."""
    _, wnid, *below = name.split("/")
    return wnid in wnids and len(below) > 1 and below[0] == "images"


def _open(path: str) -> Files:
    if not places.exists(path):
        raise UserError(f"{path}: no such folder or .zip; check the path")
    if not places.is_folder(path):
        files = _zip(path)
        if files is None:
            raise UserError(f"{path}: holds no {_LIST}; is it a Tiny-ImageNet archive?")
        return files
    if places.is_file(places.join(path, _LIST)):
        return folder_files(path)
    inside = sorted(name for name in places.entries(path) if not name.startswith("."))
    # The usual name first, and there the folder, which is quicker to read than the .zip.
    usual = [name for name in (_USUAL, f"{_USUAL}.zip") if name in inside]
    found = [files for name in usual or inside if (files := _candidate(places.join(path, name)))]
    if not found:
        raise UserError(
            f"{path}: holds neither {_LIST} nor {_USUAL}.zip, nor a folder or .zip with {_LIST}; "
            "check the path"
        )
    if len(found) > 1 and not usual:
        names = " and ".join(files.where(_LIST) for files in found[:2])
        raise UserError(f"{path}: holds several sets ({names}); name the one to read")
    return found[0]


def _candidate(path: str) -> Files | None:
    if places.is_folder(path):
        return folder_files(path) if places.is_file(places.join(path, _LIST)) else None
    return _zip(path) if path.lower().endswith(".zip") else None


def _zip(path: str) -> ZipFiles | None:
    """The layout in a .zip, at its top or in a folder; None if it holds something else."""
    files = zip_files(path)
    lists = [name for name in files.entries if name == _LIST or name.endswith(f"/{_LIST}")]
    if not lists:
        return None
    return files.inside(min(lists, key=len).removesuffix(_LIST))


def _text(files: Files, name: str) -> str:
    if name not in files:
        raise UserError(f"{files.where(name)}: missing; Tiny-ImageNet's layout needs it")
    return files.read(name).decode("utf-8-sig", errors="replace")


def _wnids(files: Files, findings: Findings) -> list[str]:
    listed = _text(files, _LIST).split()
    if not listed:
        raise UserError(f"{files.where(_LIST)}: lists no class; one WordNet id a line")
    for wnid in sorted({wnid for wnid in listed if listed.count(wnid) > 1}):
        findings.fault(f"{files.where(_LIST)}: lists {wnid} twice; keep one of each")
    return sorted(set(listed))


def _class_names(files: Files, wnids: list[str], findings: Findings) -> tuple[str, ...]:
    """The first name of each id in words.txt (which lists all of WordNet)."""
    words = {}
    for line in _text(files, "words.txt").splitlines():
        wnid, _, names = line.partition("\t")
        words[wnid] = names.split(",")[0].strip()
    for wnid in wnids:
        if not words.get(wnid):
            findings.fault(f"{files.where('words.txt')}: does not name {wnid}; add its line")
    return class_names(wnids, words)


def _rows(files: Files, annotations: str, wnid: str | None, findings: Findings) -> Iterator[Row]:
    """The lines of an annotation file; their class is `wnid`, or else a field of the line."""
    folder = f"{annotations.rpartition('/')[0]}/images"
    form = "name x1 y1 x2 y2" if wnid else "name wnid x1 y1 x2 y2"
    lines = _text(files, annotations).splitlines()
    if not any(map(str.strip, lines)):
        findings.fault(f"{files.where(annotations)}: lists no image; fetch the set again")
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if wnid is not None:
            fields.insert(1, wnid)
        where = f"{files.where(annotations)}: line {number}"
        try:
            name, of, *corners = fields
            x1, y1, x2, y2 = (int(corner) for corner in corners)
        except ValueError:
            findings.fault(
                f"{where} must read `{form}` with whole numbers, not `{line.strip()}`; mend it"
            )
            continue
        yield Row(f"{where}: {name}", f"{folder}/{name}", of, (x1, y1, x2, y2))


def _source(
    files: Files,
    split: str,
    rows: list[Row],
    present: Iterable[str],
    labels: dict[str, int],
    findings: Findings,
) -> FileSource:
    """The examples of the rows that hold what they should; `present` are the images there are."""
    present = dict.fromkeys(present, False)
    """Whether an image was annotated."""
    kept = []
    for row in rows:
        if row.image not in present:
            findings.fault(
                f"{files.where(row.image)}: annotated but missing ({row.where}); fetch the set "
                "again"
            )
            continue
        if present[row.image]:
            findings.fault(f"{row.where} is annotated twice; keep one of the lines")
            continue
        present[row.image] = True
        if _is_sound(row, findings):
            kept.append(row)
    for name, annotated in present.items():
        if not annotated:
            findings.warn("images without annotation", files.where(name))
    if not kept:
        raise UserError(f"{files.where(split)}: no example is left; fetch the set again")
    boxes = np.array([row.box for row in kept], np.float32) + np.array([0, 0, 1, 1], np.float32)
    return FileSource(
        files,
        tuple(row.image for row in kept),
        labels=np.array([labels[row.wnid] for row in kept], np.int32),
        boxes=tuple(boxes[:, None]),
    )


def _is_sound(row: Row, findings: Findings) -> bool:
    x1, y1, x2, y2 = row.box
    if x2 < x1 or y2 < y1:
        findings.fault(f"{row.where}: box {row.box} ends before it begins; mend it")
        return False
    if min(row.box) < 0 or max(row.box) >= SIDE:
        findings.fault(f"{row.where}: box {row.box} leaves the image, 0 to {SIDE - 1}; mend it")
        return False
    if x2 == x1 or y2 == y1:
        findings.warn("boxes without area", f"{row.where}: {row.box}")
    return True
