"""ImageNet: the images of ILSVRC2012's classification task, and the boxes of its CLS-LOC task.

From https://image-net.org/download-images, or Kaggle's `imagenet-object-localization-challenge`.
The first of these layouts that a directory has is read, where it lies:
  1. the official archives
       `ILSVRC2012_img_train.tar`: 1000 of `nXXXXXXXX.tar`, a class each, of
           `nXXXXXXXX_<number>.JPEG`
       `ILSVRC2012_img_val.tar`: `ILSVRC2012_val_00000001.JPEG` to `..._00050000.JPEG`
     They are read in place; to find where the 1.28 million images are takes about a minute on a
     fast disk, each time. On a spinning one, extract them.
  2. Kaggle's tree, `[ILSVRC/]Data/CLS-LOC/` with `train/nXXXXXXXX/*.JPEG` and `val/*.JPEG`
     or the archives extracted, `train/nXXXXXXXX/*.JPEG` and `val/*.JPEG`
  3. `train/<class>/*.JPEG`, `val/<class>/*.JPEG`, which fyu/drn's `classify.py` expects; the labels
     are then the places of the sorted folder names (`class_folder`)
Boxes are read if the same directory has
  `[ILSVRC/]Annotations/CLS-LOC/`, with `train/nXXXXXXXX/*.xml` and `val/*.xml`; or
  `ILSVRC2012_bbox_train_v2.tar.gz`, `ILSVRC2012_bbox_val_v3.tgz`: parsed at once, which takes
      another minute; in an uncompressed .tar of the same name each is parsed when it is needed
Only 42 % of the training images have boxes; the others have [0, 4] of them.

In layouts 1 and 2 a label is the place among all 1000 sorted WordNet ids, whichever classes are
there. They and the labels of the validation images, which no image archive holds, come with
TensorFlow Datasets: the official list by way of the development kit, line i for image i.

`LOC_synset_mapping.txt`, `synset_words.txt` or `words.txt` (`wnid name, other names`) in the
directory names the classes in words. Among the images 22 are CMYK, one is a PNG, some are grey:
they all become RGB (image.py).
"""

import importlib.util
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from drn_jax import places
from drn_jax.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Dataset
from drn_jax.data.files import Files, find, folder_files, require_folder
from drn_jax.data.findings import Findings
from drn_jax.data.image import read_bytes
from drn_jax.data.sets import class_folder
from drn_jax.data.sets.boxes_xml import Annotations, ImageBoxes, XmlFiles, packed
from drn_jax.data.sets.class_folder import SUFFIXES
from drn_jax.data.sources import FileSource
from drn_jax.data.tars import UNENDED, TarFiles, tar_files
from drn_jax.errors import UserError

TRAIN = "ILSVRC2012_img_train.tar"
VALIDATION = "ILSVRC2012_img_val.tar"
TRAIN_BOXES = ("ILSVRC2012_bbox_train_v2.tar", "ILSVRC2012_bbox_train_v2.tar.gz")
VALIDATION_BOXES = (
    "ILSVRC2012_bbox_val_v3.tar",
    "ILSVRC2012_bbox_val_v3.tgz",
    "ILSVRC2012_bbox_val_v3.tar.gz",
)
WORDS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")


class Part(NamedTuple):
    """Where the images, or the annotations, of a split lie."""

    files: Files
    folder: str


def read(directory: str, findings: Findings) -> Dataset:
    """The data set, with fyu/drn's mean and standard deviation; images with `label`, and `boxes`
    if there are any. XML files outside of compressed archives are not opened: what is wrong with
    one is raised, or is among the source's remarks, when its example is read.

    Raises:
      UserError: `directory` has none of the layouts, an archive can't be read, or a split has no
        image.
    """
    require_folder(directory)
    words = _words(directory)
    train_tar, val_tar = (find(directory, name) for name in (TRAIN, VALIDATION))
    tree = find(directory, "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
    if tree is None and _is_flat(places.join(directory, "val")):
        tree = directory
    if train_tar or val_tar:
        for path, name in ((train_tar, TRAIN), (val_tar, VALIDATION)):
            if path is None:
                raise UserError(f"{places.join(directory, name)}: missing; put it beside the other")
        assert train_tar
        assert val_tar
        parts = Part(_whole(train_tar, findings), ""), Part(_whole(val_tar, findings), "")
    elif tree:
        parts = Part(folder_files(tree), "train"), Part(folder_files(tree), "val")
    elif find(directory, "train") and find(directory, "val"):
        dataset = class_folder.read(directory, findings)
        train, validation = dataset.train, dataset.validation
        assert isinstance(train, FileSource)
        assert isinstance(validation, FileSource)
        train, validation = _with_boxes(directory, train, validation, dataset.classes, findings)
        classes = class_names(dataset.classes, words)
        return replace(dataset, classes=classes, train=train, validation=validation)
    else:
        raise UserError(
            f"{directory}: holds neither {TRAIN} and {VALIDATION}, nor ILSVRC/Data/CLS-LOC/, nor "
            "train/CLASS/ and val/CLASS/; name the folder that does"
        )
    wnids = tuple(_shipped("labels.txt"))
    train = _train(*parts[0], wnids, findings)
    validation = _validation(*parts[1], wnids, findings)
    train, validation = _with_boxes(directory, train, validation, wnids, findings)
    return Dataset(
        name=places.name(directory),
        classes=class_names(wnids, words),
        train=train,
        validation=validation,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def _whole(path: str, findings: Findings) -> TarFiles:
    """An archive of images; a fault if it is cut off between two of them."""
    files = tar_files(path)
    if not files.ended:
        findings.fault(f"{path}: ends without the end mark: it is cut off; fetch it again")
    return files


def _is_flat(folder: str) -> bool:
    """Whether this is a folder of validation images without folders of their classes."""
    return places.is_folder(folder) and any(
        _NUMBER.fullmatch(_stem(name)) for name in places.entries(folder)
    )


def class_names(wnids: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """The classes in words, where `words` has them. Two are called `crane`: such have their WordNet
    id behind."""
    names = [words.get(wnid) or wnid for wnid in wnids]
    times = Counter(names)
    return tuple(
        name if times[name] == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    )


def _words(directory: str) -> dict[str, str]:
    """The first name of each WordNet id."""
    path = find(directory, *WORDS)
    if path is None:
        return {}
    lines = read_bytes(path).decode("utf-8-sig", errors="replace").splitlines()
    parts = [line.split(maxsplit=1) for line in lines]
    return {part[0]: part[1].split(",")[0].strip() for part in parts if len(part) == 2}


def _shipped(name: str) -> list[str]:
    """The lines of a list that TensorFlow Datasets ships; it is not imported, which takes a
    second."""
    spec = importlib.util.find_spec("tensorflow_datasets")
    assert spec is not None
    assert spec.origin is not None
    folder = os.path.dirname(spec.origin)
    return read_bytes(os.path.join(folder, "datasets", "imagenet2012", name)).decode().split()


def _images(part: Part) -> list[str]:
    return [name for name in part.files.under(part.folder) if name.lower().endswith(SUFFIXES)]


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _train(files: Files, folder: str, wnids: Sequence[str], findings: Findings) -> FileSource:
    """Images in a folder of their class."""
    labels = {wnid: i for i, wnid in enumerate(wnids)}
    unknown: Counter[str] = Counter()
    names, ids = [], []
    for name in _images(Part(files, folder)):
        above, _, file = name.rpartition("/")
        wnid = above.rpartition("/")[2]
        of = file.partition("_")[0]
        if wnid not in labels:
            unknown[above] += 1
        elif of != wnid and of in labels:
            findings.fault(
                f"{files.where(name)}: an image of {of} among those of {wnid}; move or remove it"
            )
        else:
            names.append(name)
            ids.append(labels[wnid])
    for above, count in unknown.items():
        findings.fault(
            f"{files.where(above)}: {count} images in a folder that is none of the {len(wnids)} "
            "WordNet ids; move or remove them"
        )
    return _source(files, folder, names, ids)


def _validation(files: Files, folder: str, wnids: Sequence[str], findings: Findings) -> FileSource:
    """Images whose names tell their line in the list of labels."""
    labels = {wnid: i for i, wnid in enumerate(wnids)}
    listed = _shipped("validation_labels.txt")
    names, ids = [], []
    seen: dict[int, str] = {}
    for name in _images(Part(files, folder)):
        match = _NUMBER.fullmatch(_stem(name))
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(listed):
            findings.fault(
                f"{files.where(name)}: not named ILSVRC2012_val_00000001 to "
                f"ILSVRC2012_val_{len(listed):08}, so its label is not known; rename or remove it"
            )
        elif number in seen:
            findings.fault(f"{files.where(name)}: is {seen[number]} again; keep one of them")
        else:
            seen[number] = name
            names.append(name)
            ids.append(labels[listed[number - 1]])
    return _source(files, folder, names, ids)


def _source(files: Files, folder: str, names: list[str], ids: list[int]) -> FileSource:
    if not names:
        where = files.where(folder).rstrip("/")
        raise UserError(f"{where}: holds no image of ILSVRC2012; fetch the set again")
    return FileSource(files, tuple(names), labels=np.array(ids, np.int32))


def _with_boxes(
    directory: str,
    train: FileSource,
    validation: FileSource,
    wnids: tuple[str, ...],
    findings: Findings,
) -> tuple[FileSource, FileSource]:
    """The sources with boxes; as they are if there are none."""
    train_path, val_path = find(directory, *TRAIN_BOXES), find(directory, *VALIDATION_BOXES)
    tree = find(directory, "ILSVRC/Annotations/CLS-LOC", "Annotations/CLS-LOC")
    if tree is None and train_path is None and val_path is None:
        return train, validation

    def boxed(source: FileSource, split: str, path: str | None) -> FileSource:
        annotations = _annotations(source, wnids, split, tree, path, findings)
        boxes = ImageBoxes(annotations, source)
        return replace(source, boxes=boxes, remarks=boxes.remarks)

    train, validation = boxed(train, "train", train_path), boxed(validation, "val", val_path)
    kind = "validation images without annotation"
    if tree is None and val_path is None:
        findings.warn(kind, f"{places.join(directory, VALIDATION_BOXES[1])}: missing, so all are")
    else:
        assert isinstance(validation.boxes, ImageBoxes)
        for index in validation.boxes.annotations.missing():
            findings.warn(kind, validation.where(index))
    return train, validation


def _annotations(
    source: FileSource,
    wnids: tuple[str, ...],
    split: str,
    tree: str | None,
    archive: str | None,
    findings: Findings,
) -> Annotations:
    """The annotations of a split, from the tree or else the archive; all None without either."""
    assert source.labels is not None
    strict = split == "val"
    files, inside = source.files, []
    if tree is not None:
        files = folder_files(tree)
        inside = files.under(split)
    elif archive is not None and archive.lower().endswith(".tar"):
        files = tar_files(archive)
        if not files.ended:
            findings.warn(UNENDED, archive)
        inside = files.under("")
    elif archive is not None:
        places = {_stem(name): i for i, name in enumerate(source.names)}
        return packed(archive, places, source.labels, wnids, strict, findings)
    xml = {_stem(name): name for name in inside if name.endswith(".xml")}
    names = tuple(xml.get(_stem(name)) for name in source.names)
    return XmlFiles(files, names, source.labels, wnids, strict)
