"""Tiny-ImageNet: 64x64 images with a label and a box each, from its folder or its .zip.

The layout is the published one:
  `wnids.txt`: the WordNet ids in use, one a line; sorted, they are the label ids
  `words.txt`: `wnid <tab> name, other names`; the first name is the class name
  `train/<wnid>/<wnid>_boxes.txt`: `name x1 y1 x2 y2`, of images in `train/<wnid>/images`
  `val/val_annotations.txt`: `name wnid x1 y1 x2 y2`, of images in `val/images`
Images that these lists don't name are passed over.

The boxes are pixel indices with both ends inside: they run from 0 to 63, 63 is by far their most
frequent end, 64 never occurs, and a few start and end on the same pixel. To make them pixel edges
(dataset.py), 1 is added to x2 and y2: 0 0 63 63 becomes the whole image, (0, 0, 64, 64).

A .zip is read in place. Its directory is read once, by `load`; each example then opens the file,
seeks and reads, so that a source holds no open file: it can be pickled, forked and used by several
threads at once, without a lock.
"""

import os
import zipfile
import zlib
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from drn_jax.data import image
from drn_jax.data.class_folder import IMAGENET_MEAN, IMAGENET_STD
from drn_jax.data.dataset import Dataset, Example
from drn_jax.errors import UserError


class Files(Protocol):
    """Where the layout lies; names are relative to its top, with forward slashes."""

    def where(self, name: str) -> str:
        """What errors call the file."""
        ...

    def __contains__(self, name: str) -> bool: ...

    def read(self, name: str) -> bytes:
        """The content; UserError if it is missing or damaged."""
        ...


@dataclass(frozen=True)
class FolderFiles:
    """The layout in a folder."""

    folder: str

    def where(self, name: str) -> str:
        return os.path.join(self.folder, *name.split("/"))

    def __contains__(self, name: str) -> bool:
        return os.path.isfile(self.where(name))

    def read(self, name: str) -> bytes:
        return image.read_bytes(self.where(name))


class ZipEntry(NamedTuple):
    """Where a file of a .zip lies: the fields of its directory that a read needs."""

    offset: int
    stored: int
    method: int
    crc: int


@dataclass(frozen=True)
class ZipFiles:
    """The layout in a .zip."""

    path: str
    entries: dict[str, ZipEntry]

    def where(self, name: str) -> str:
        return f"{self.path}/{name}"

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def read(self, name: str) -> bytes:
        if name not in self.entries:
            raise UserError(f"{self.where(name)}: not in the archive; fetch it again")
        offset, stored, method, crc = self.entries[name]
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                # The directory does not tell how long the name and the extra field in front of the
                # data are: the local header does, in its last four bytes.
                header = file.read(30)
                lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(
                    header[28:30], "little"
                )
                file.seek(lengths, os.SEEK_CUR)
                data = file.read(stored)
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompress(data, wbits=-zlib.MAX_WBITS)
        except (OSError, zlib.error) as error:
            raise UserError(f"{self.where(name)}: cannot be read ({error})") from error
        if zlib.crc32(data) != crc:
            raise UserError(f"{self.where(name)}: damaged (checksum differs); fetch the .zip again")
        return data


@dataclass(frozen=True, eq=False)
class TinyImageNetSource:
    """Examples with `image`, `label` and `box`."""

    files: Files
    names: tuple[str, ...]
    labels: np.ndarray
    """int32 [N]"""
    boxes: np.ndarray
    """float32 [N, 4], pixel edges"""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """The example; UserError if its file is missing or damaged."""
        name = self.names[index]
        return {
            "image": image.decode_rgb(self.files.read(name), self.files.where(name)),
            "label": np.array(self.labels[index], np.int32),
            "box": self.boxes[index].copy(),
        }


def load(path: str) -> Dataset:
    """The data set in a folder or a .zip, with ImageNet's mean and standard deviation.

    Args:
      path: the folder that holds wnids.txt, or a .zip of it (with or without a folder on top).

    Raises:
      UserError: `path` is neither, or a part of the layout is missing or malformed.
    """
    files = _open(path)
    wnids = sorted(_text(files, "wnids.txt").split())
    if not wnids:
        raise UserError(f"{files.where('wnids.txt')}: lists no class; one WordNet id a line")
    labels = {wnid: i for i, wnid in enumerate(wnids)}
    if len(labels) < len(wnids):
        raise UserError(f"{files.where('wnids.txt')}: lists an id twice; keep one of each")
    train = []
    for wnid in wnids:
        annotations = f"train/{wnid}/{wnid}_boxes.txt"
        for name, _, box in _annotated(files, annotations, wnid):
            train.append((f"train/{wnid}/images/{name}", labels[wnid], box))
    validation = []
    for name, wnid, box in _annotated(files, "val/val_annotations.txt", None):
        if wnid not in labels:
            raise UserError(
                f"{files.where('val/val_annotations.txt')}: {name} is of class {wnid}, which "
                "wnids.txt does not list; add it there, with training images"
            )
        validation.append((f"val/images/{name}", labels[wnid], box))
    return Dataset(
        name=os.path.splitext(os.path.basename(os.path.abspath(path)))[0],
        classes=_class_names(files, wnids),
        train=_source(files, train),
        validation=_source(files, validation),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _open(path: str) -> Files:
    if os.path.isdir(path):
        return FolderFiles(path)
    if not os.path.exists(path):
        raise UserError(f"{path}: no such folder or .zip; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            listed = archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: neither a folder nor a readable .zip ({error})") from error
    tops = [e.filename.removesuffix("wnids.txt") for e in listed if _is_top(e.filename)]
    if not tops:
        raise UserError(f"{path}: holds no wnids.txt; is it a Tiny-ImageNet archive?")
    for e in listed:
        if e.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or e.flag_bits & 1:
            raise UserError(
                f"{path}/{e.filename}: encrypted, or compressed in a way that is not read here; "
                "make the .zip anew with plain `deflate`, or extract it"
            )
    entries = {
        e.filename.removeprefix(tops[0]): ZipEntry(
            e.header_offset, e.compress_size, e.compress_type, e.CRC
        )
        for e in listed
        if e.filename.startswith(tops[0]) and not e.is_dir()
    }
    return ZipFiles(path, entries)


def _is_top(name: str) -> bool:
    return name.split("/")[-1] == "wnids.txt" and name.count("/") <= 1


def _text(files: Files, name: str) -> str:
    if name not in files:
        raise UserError(f"{files.where(name)}: missing; Tiny-ImageNet's layout needs it")
    return files.read(name).decode("utf-8", errors="replace")


def _class_names(files: Files, wnids: list[str]) -> tuple[str, ...]:
    """The first name of each id in words.txt (which lists all of WordNet)."""
    words = {}
    for line in _text(files, "words.txt").splitlines():
        wnid, _, names = line.partition("\t")
        words[wnid] = names.split(",")[0].strip()
    for wnid in wnids:
        if not words.get(wnid):
            raise UserError(f"{files.where('words.txt')}: does not name {wnid}; add its line")
    return tuple(words[wnid] for wnid in wnids)


def _annotated(
    files: Files, annotations: str, wnid: str | None
) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, wnid, inclusive box) of each line; the wnid is `wnid`, or else a field of the line."""
    rows = []
    for number, line in enumerate(_text(files, annotations).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        if wnid is not None:
            fields.insert(1, wnid)
        try:
            name, of, *corners = fields
            x1, y1, x2, y2 = (int(corner) for corner in corners)
        except ValueError as error:
            form = "name x1 y1 x2 y2" if wnid else "name wnid x1 y1 x2 y2"
            raise UserError(
                f"{files.where(annotations)}: line {number} must read `{form}` with whole "
                f"numbers, not `{line.strip()}`"
            ) from error
        rows.append((name, of, (x1, y1, x2, y2)))
    if not rows:
        raise UserError(f"{files.where(annotations)}: lists no image; fetch the set again")
    return rows


def _source(files: Files, rows: list[tuple[str, int, tuple[int, ...]]]) -> TinyImageNetSource:
    names, labels, boxes = zip(*rows, strict=True)
    for name in names:
        if name not in files:
            raise UserError(f"{files.where(name)}: annotated but missing; fetch the set again")
    edges = np.array(boxes, np.float32) + np.array([0, 0, 1, 1], np.float32)
    return TinyImageNetSource(files, names, np.array(labels, np.int32), edges)
