"""MS-COCO reduced to PASCAL VOC's classes, alone or joined with VOC: the Context paper's training
data of its best front end.

From https://cocodataset.org/#download, of 2014 (the paper's) or 2017:
  `train2014.zip`, `val2014.zip` and `annotations_trainval2014.zip`; or the folders `train2014`,
  `val2014` and `annotations` extracted from them. Images may lie in a folder `images`.
Joined with VOC, the files that `pascal_voc` and `sbd` name lie in the same directory.

Images without an object of VOC's classes are left out. COCO marks objects, which may overlap; here
a mask is painted of them:
  larger objects first, so that the smaller ones lie in front;
  crowds (one region for many) of VOC's classes are 255, ignored, and lie behind all objects;
  objects of other categories are background, and hide nothing.

The annotations are parsed at every start: 605,000 made-up ones, as many as train2014 has, took some
25 s and 1.1 GB of memory, of which 120 MB stay (see `ObjectMasks`). Prepared sets are spared this.
"""

import json
import os
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from drn_jax.data.dataset import IGNORED, IMAGENET_STD, Dataset
from drn_jax.data.files import Files, find, folder_files, require_folder
from drn_jax.data.findings import Findings
from drn_jax.data.labels.coco import COCO
from drn_jax.data.sets import pascal_voc
from drn_jax.data.sets.coco_objects import ObjectMasks, compressed, pycocotools_mask
from drn_jax.data.sources import FileSource, Joined
from drn_jax.data.zips import folder_or_zip, zip_files
from drn_jax.errors import UserError

YEARS = (2014, 2017)

_OBJECTS = {id_: class_id for id_, class_id in COCO.ids() if class_id}
"""The class id of each COCO category that is no background."""


def read(directory: str, findings: Findings, year: int | None = None) -> Dataset:
    """COCO's images with objects of VOC's classes.

    Args:
      directory: what holds the archives or the folders extracted from them.
      year: 2014 or 2017; None takes what is there, 2014 first.

    Raises: UserError if an archive is missing or malformed, nothing is left of a split, or
      pycocotools is not installed.
    """
    train, validation = _splits(directory, findings, year)
    return Dataset(
        name="coco",
        classes=COCO.names,
        train=train,
        validation=validation,
        mean=pascal_voc.MEAN,
        std=IMAGENET_STD,
        colors=COCO.colors,
        validation_sizes=validation.sizes,
        train_sizes=train.sizes,
    )


def read_with_voc(
    directory: str,
    findings: Findings,
    year: int | None = None,
    counts: Mapping[str, int] | None = pascal_voc.OFFICIAL,
) -> Dataset:
    """The Context paper's VOC + COCO: training is COCO's train and val, as `read` reads them, and
    VOC's augmented training set; validation is VOC's val.

    Args and raises: as `read` and `pascal_voc.read_augmented`.
    """
    voc = pascal_voc.read_augmented(directory, findings, counts)
    assert isinstance(voc.train, FileSource)
    train = Joined((*_splits(directory, findings, year), voc.train))
    return Dataset(
        name="pascal_voc_coco",
        classes=voc.classes,
        train=train,
        validation=voc.validation,
        mean=voc.mean,
        std=voc.std,
        colors=voc.colors,
        validation_sizes=voc.validation_sizes,
        train_sizes=train.sizes,
    )


class _Region(NamedTuple):
    """An annotation; of an object that is background, without its segmentation."""

    id: Any
    image: Any
    category: Any
    crowd: bool
    segmentation: Any


class _Image(NamedTuple):
    """An image of the annotations."""

    name: str
    height: int
    width: int


def _splits(directory: str, findings: Findings, year: int | None) -> tuple[FileSource, FileSource]:
    """Train and val."""
    pycocotools_mask()
    require_folder(directory, "name the one that holds COCO")
    if year is None:
        here = [y for split in ("train", "val") for y in YEARS if _find(directory, f"{split}{y}")]
        if not here:
            raise UserError(
                f"{directory}: holds neither train2014.zip and val2014.zip nor train2017.zip and "
                "val2017.zip, nor folders of those names; fetch the files of one year"
            )
        year = here[0]
    elif year not in YEARS:
        raise UserError(f"COCO has no year {year} with masks of objects: use 2014 or 2017")
    validation = _source(directory, f"val{year}", findings, frozenset())
    assert isinstance(validation.masks, ObjectMasks)
    taken = frozenset(validation.masks.image_ids.tolist())
    return _source(directory, f"train{year}", findings, taken), validation


def _find(directory: str, folder: str) -> str | None:
    return find(
        directory, *(f"{top}{folder}{end}" for top in ("", "images/") for end in ("", ".zip"))
    )


def _source(directory: str, split: str, findings: Findings, taken: frozenset[int]) -> FileSource:
    """The examples of `split` ("train2014"), without images of the ids `taken`."""
    path = _find(directory, split)
    if path is None:
        raise UserError(f"{directory}: neither {split}.zip nor a folder {split} is here; fetch it")
    files = folder_or_zip(path, split)
    annotations, name = _annotations(directory, split)
    where = annotations.where(name)
    images, regions = _parse(where, annotations.read(name), findings)
    for id_ in sorted(taken & images.keys()):
        findings.fault(f"{where}: image {id_} is also one of validation; take it off one of them")
    names, ids, sizes, objects, classes, starts, runs = [], [], [], [0], [], [0], bytearray()
    for id_, image in images.items():
        painted = _painted(id_, image, regions.pop(id_, []), where, findings)
        if not painted or id_ in taken:
            continue
        if image.name not in files:
            findings.fault(
                f"{files.where(image.name)}: annotated in {where} but missing; fetch {split} again"
            )
            continue
        names.append(image.name)
        ids.append(id_)
        sizes.append((image.height, image.width))
        for class_id, piece in painted:
            classes.append(class_id)
            runs += piece
            starts.append(len(runs))
        objects.append(len(classes))
    if not names:
        raise UserError(f"{where}: no image of {path} has an object of PASCAL VOC's classes")
    masks = ObjectMasks(
        where,
        np.array(ids, np.int64),
        np.array(sizes, np.int32),
        np.array(objects, np.int64),
        np.array(classes, np.uint8),
        np.array(starts, np.int64),
        bytes(runs),
    )
    return FileSource(files, tuple(names), masks=masks)


def _annotations(directory: str, split: str) -> tuple[Files, str]:
    """Where the annotations of `split` lie: files, and the name among them."""
    name = f"instances_{split}.json"
    archive = f"annotations_trainval{split[-4:]}.zip"
    path = find(directory, f"annotations/{name}", archive)
    if path is None:
        raise UserError(f"{directory}: neither {archive} nor annotations/{name} is here; fetch it")
    if path.lower().endswith(".zip"):
        return zip_files(path), f"annotations/{name}"
    return folder_files(os.path.dirname(path)), name


def _parse(
    where: str, text: bytes, findings: Findings
) -> tuple[dict[int, _Image], dict[int, list[_Region]]]:
    """The images by id, in that order, and the objects of VOC's classes in each."""
    try:
        content = json.loads(text, object_hook=_compact)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: malformed JSON ({error}); fetch it again") from error
    parts = "images", "annotations", "categories"
    if not isinstance(content, dict) or not all(isinstance(content.get(p), list) for p in parts):
        raise UserError(f"{where}: must have the lists {', '.join(parts)}; fetch it again")
    categories = {label.id: label.name for label in COCO.labels}
    for entry in content["categories"]:
        match entry:
            case {"id": int(id_), "name": name} if categories.get(id_) == name:
                pass
            case _:
                findings.fault(f"{where}: category {entry} is none of COCO's; restore COCO's ids")
    images: dict[int, _Image] = {}
    for entry in content["images"]:
        match entry:
            case {"id": int(id_)} if id_ in images:
                findings.fault(f"{where}: lists image {id_} again; take it off")
            case {"id": int(id_), "file_name": str(name), "height": int(h), "width": int(w)} if (
                min(h, w) > 0
            ):
                images[id_] = _Image(name, h, w)
            case _:
                findings.fault(
                    f"{where}: image {entry} lacks an id, file_name, height or width; mend it"
                )
    regions: dict[int, list[_Region]] = {}
    for entry in content["annotations"]:
        match entry:
            case _Region(image=int(image)) if image not in images:
                findings.fault(f"{where}: annotation {entry.id} is of image {image}, not listed")
            case _Region(image=int(image), category=int(category)) if category in categories:
                if category in _OBJECTS:
                    regions.setdefault(image, []).append(entry)
            case _Region(image=int()):
                findings.fault(
                    f"{where}: annotation {entry.id} is of category {entry.category}, none of "
                    "COCO's; mend it"
                )
            case _Region():
                findings.fault(f"{where}: annotation {entry.id} names no image; mend it")
            case _:
                findings.fault(f"{where}: annotation {entry} has no segmentation; mend it")
    return dict(sorted(images.items())), regions


def _compact(entry: dict[str, Any]) -> Any:
    """What is kept of a JSON object. Called as the parser goes: its lists of numbers, which as
    Python objects take some ten times the room of arrays, never exist all at once."""
    if "segmentation" in entry:
        category = entry.get("category_id")
        needed = isinstance(category, int) and category in _OBJECTS
        return _Region(
            entry.get("id"),
            entry.get("image_id"),
            category,
            bool(entry.get("iscrowd")),
            _packed(entry["segmentation"]) if needed else None,
        )
    if "counts" in entry:
        return {**entry, "counts": _array(entry["counts"], "q")}
    return entry


def _packed(segmentation: Any) -> Any:
    """Polygons as arrays; run lengths, which `_compact` was given before, as they are."""
    if isinstance(segmentation, list):
        return [_array(polygon, "d") for polygon in segmentation]
    return segmentation


def _array(numbers: Any, kind: str) -> Any:
    """An array of a list of numbers; anything else as it is."""
    try:
        return array(kind, numbers) if isinstance(numbers, list) else numbers
    except (TypeError, OverflowError):
        return numbers


def _painted(
    id_: int, image: _Image, regions: list[_Region], where: str, findings: Findings
) -> list[tuple[int, bytes]]:
    """(class id or 255, compressed run lengths) of the objects of an image, hindmost first."""
    mask = pycocotools_mask()
    found = []
    for region in regions:
        annotation = f"{where}: annotation {region.id} (image {id_})"
        try:
            runs = compressed(region.segmentation, image.height, image.width)
        except ValueError as error:
            findings.fault(f"{annotation} has {error}; mend it")
            continue
        area = int(mask.area({"size": [image.height, image.width], "counts": runs}))
        if not area:
            findings.warn("objects without area in their image", f"{annotation} has none")
            continue
        class_id = IGNORED if region.crowd else _OBJECTS[region.category]
        found.append((not region.crowd, -area, class_id, runs))
    found.sort(key=lambda item: item[:2])
    return [(class_id, runs) for _, _, class_id, runs in found]
