"""Boxes of ILSVRC's CLS-LOC, of an XML file an image in the format of Pascal VOC.

A file tells the `<size>` that the annotator saw, and an `<object>` a box, with `<name>`, its
WordNet id, and `<bndbox>`: `xmin ymin xmax ymax` in pixels of that size. What they count from is
said nowhere; they are read here as pixel indices from 0 with both ends inside, because boxes start
at 0 and end at width - 1 (0 and 499 are common in images of 500 pixels), and because the kit that
the challenge was evaluated with takes xmax - xmin + 1 for the width. So 1 is added to xmax and ymax
to make them edges (dataset.py). Some training boxes reach out of their image: they are cut at its
border. Some objects are named in words, which counts as the class of the image.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from xml.etree import ElementTree

import numpy as np

from drn_jax.data.files import Files
from drn_jax.data.findings import Findings
from drn_jax.data.sources import FileSource, Remark, by
from drn_jax.data.tars import streamed
from drn_jax.errors import UserError

_WNID = re.compile(r"n\d{8}")
_NONE = np.zeros((0, 4), np.float32)


class Annotation(NamedTuple):
    """What an XML file says of its image."""

    where: str
    """What errors call the file."""
    size: tuple[int, int]
    """(height, width) that the boxes are pixels of."""
    boxes: np.ndarray
    """float32 [n, 4], pixel edges; of the image's class alone"""
    remarks: tuple[Remark, ...]


class Annotations(Protocol):
    """Annotations by the index of their image; None where there is none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Annotation | None: ...

    def missing(self) -> list[int]:
        """The indices of the images that have none."""
        ...


def parse(data: bytes, where: str, wnid: str, strict: bool) -> Annotation:
    """Read an XML file.

    Args:
      where: what errors call it.
      wnid: the class of the image.
      strict: objects of another class are an error, rather than passed over with a remark.

    Raises: UserError for what is malformed.
    """
    try:
        root = ElementTree.fromstring(data)
    # An encoding that is unknown raises LookupError or ValueError.
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{where}: not readable as XML ({error}); fetch it again") from error
    height, width = (int(_number(root, f"size/{side}", where)) for side in ("height", "width"))
    if height < 1 or width < 1:
        raise UserError(f"{where}: size {height}x{width} has no pixel; mend it")
    boxes: list[tuple[float, ...]] = []
    remarks: list[Remark] = []
    for thing in root.iterfind("object"):
        name = (thing.findtext("name") or "").strip()
        if name != wnid and _WNID.fullmatch(name) and _WNID.fullmatch(wnid):
            other = f"{where}: an object is of class {name}, but the image of {wnid}"
            if strict:
                raise UserError(f"{other}; fetch the annotations again")
            remarks.append(("boxes of another class than the image's", other))
            continue
        corners = ("xmin", "ymin", "xmax", "ymax")
        x1, y1, x2, y2 = box = tuple(_number(thing, f"bndbox/{c}", where) for c in corners)
        edges = max(x1, 0.0), max(y1, 0.0), min(x2 + 1, float(width)), min(y2 + 1, float(height))
        kept = x1 <= x2 and y1 <= y2 and edges[0] < edges[2] and edges[1] < edges[3]
        written = " ".join(f"{corner:g}" for corner in box)
        if not kept or x1 == x2 or y1 == y2:
            remarks.append(("boxes without area", f"{where}: {written}"))
        elif min(x1, y1) < 0 or x2 > width or y2 > height:
            size = by((height, width))
            remarks.append(("boxes beyond the image", f"{where}: {written} in {size}, cut off"))
        if kept:
            boxes.append(edges)
    if not boxes:
        remarks.append(("annotations without a box", where))
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Annotation(where, (height, width), array, tuple(remarks))


def _number(element: ElementTree.Element, path: str, where: str) -> float:
    text = element.findtext(path)
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise UserError(f"{where}: <{path}> must be a number, not {text!r}; mend it")
    return value


@dataclass(frozen=True, eq=False)
class XmlFiles:
    """Annotations that are parsed when they are asked for."""

    files: Files
    names: tuple[str | None, ...]
    """Of the XML file of each image."""
    labels: np.ndarray
    """int [N], of the images"""
    wnids: tuple[str, ...]
    """By label."""
    strict: bool

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Annotation | None:
        name = self.names[index]
        if name is None:
            return None
        wnid = self.wnids[self.labels[index]]
        return parse(self.files.read(name), self.files.where(name), wnid, self.strict)

    def missing(self) -> list[int]:
        return [i for i, name in enumerate(self.names) if name is None]


@dataclass(frozen=True, eq=False)
class PackedAnnotations:
    """Annotations that were parsed before, 16 bytes a box: half a million XML files in memory take
    half a gigabyte."""

    path: str
    """Of the archive."""
    sizes: np.ndarray
    """int32 [N, 2], 0 where there is none"""
    starts: np.ndarray
    """int64 [N + 1]: where the boxes of each image start"""
    boxes: np.ndarray
    """float32 [M, 4]"""

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Annotation | None:
        height, width = self.sizes[index].tolist()
        if not height:
            return None
        boxes = self.boxes[self.starts[index] : self.starts[index + 1]]
        return Annotation(self.path, (height, width), boxes, ())

    def missing(self) -> list[int]:
        return np.flatnonzero(self.sizes[:, 0] == 0).tolist()


def packed(
    path: str,
    places: Mapping[str, int],
    labels: np.ndarray,
    wnids: tuple[str, ...],
    strict: bool,
    findings: Findings,
) -> PackedAnnotations:
    """The annotations in a .tar of any compression; what is wrong with one becomes a finding.

    Args:
      places: the index of an image by its name without folder and ending.
      labels, wnids, strict: see `XmlFiles`.

    Raises: UserError if the archive can't be read.
    """
    sizes = np.zeros((len(labels), 2), np.int32)
    found = [_NONE] * len(labels)
    for name, data in streamed(path, lambda name: name.endswith(".xml")):
        index = places.get(name.rpartition("/")[2].removesuffix(".xml"))
        if index is None:
            continue
        try:
            annotation = parse(data, f"{path}/{name}", wnids[labels[index]], strict)
        except UserError as error:
            findings.fault(str(error))
            continue
        for kind, text in annotation.remarks:
            findings.warn(kind, text)
        sizes[index], found[index] = annotation.size, annotation.boxes
    starts = np.cumsum([0, *map(len, found)], dtype=np.int64)
    return PackedAnnotations(path, sizes, starts, np.concatenate([_NONE, *found]))


@dataclass(frozen=True, eq=False)
class ImageBoxes:
    """Boxes in pixels of the images themselves, whose size is looked up in their headers."""

    annotations: Annotations
    images: FileSource

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> np.ndarray:
        annotation = self.annotations[index]
        if annotation is None:
            return _NONE
        (height, width), (real_height, real_width) = annotation.size, self.images.image_size(index)
        if _turned(annotation.size, (real_height, real_width)):
            return _NONE
        scale = np.array([real_width / width, real_height / height] * 2)
        return (annotation.boxes * scale).astype(np.float32)

    def remarks(self, index: int) -> tuple[Remark, ...]:
        """What a check should warn of."""
        annotation = self.annotations[index]
        if annotation is None:
            return ()
        real = self.images.image_size(index)
        if annotation.size == real:
            return annotation.remarks
        text = f"{annotation.where}: {by(annotation.size)}, {self.images.where(index)}: {by(real)}"
        if _turned(annotation.size, real):
            return *annotation.remarks, ("boxes of images that are turned, left out", text)
        return *annotation.remarks, ("boxes of images of another size, scaled", text)


def _turned(stated: tuple[int, int], real: tuple[int, int]) -> bool:
    """Whether EXIF turned the image after it was annotated: then where its boxes belong is a
    guess."""
    return stated != real and stated == real[::-1]
