"""Segmentation sets in fyu/drn's list layout.

A folder with
  `train_images.txt`, `train_labels.txt`, `val_images.txt`, `val_labels.txt`: a path a line,
      relative to the folder; line i of the labels belongs to line i of the images
  `info.json`: `mean` and `std` of the training images, RGB in [0, 1]; optionally `classes`, their
      names in the order of the ids, and `colors`, an [r, g, b] each

Everything that can be told without decoding a pixel is checked at once by `load`.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from drn_jax.data import image
from drn_jax.data.dataset import IGNORED, Dataset, Example
from drn_jax.errors import UserError


@dataclass(frozen=True)
class ListSource:
    """Examples with `image` and `mask` of paired files."""

    images: tuple[str, ...]
    masks: tuple[str, ...]
    classes: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        """The example; UserError if a file is damaged or a mask value is no class and not 255."""
        image_path, mask_path = self.images[index], self.masks[index]
        mask = image.decode_mask(image.read_bytes(mask_path), mask_path)
        unknown = (mask >= self.classes) & (mask != IGNORED)
        if unknown.any():
            row, column = np.argwhere(unknown)[0]
            raise UserError(
                f"{mask_path}: value {mask[row, column]} at row {row}, column {column} is neither "
                f"a class (0 to {self.classes - 1}) nor {IGNORED} (ignored); mend the mask, or "
                "the number of classes"
            )
        return {"image": image.decode_rgb(image.read_bytes(image_path), image_path), "mask": mask}


def load(folder: str, classes: tuple[str, ...] | int | None = None) -> Dataset:
    """The data set in `folder`, checked.

    Args:
      folder: see the module.
      classes: the names of the classes in the order of their ids; or how many there are, then their
        names are those of info.json or else `class 0`, `class 1`, ...; or None, then info.json must
        name them.

    Raises:
      UserError: the folder, a list, info.json or a listed file is missing or malformed; lists are
        empty or of unequal length; image and label differ in size; `classes` contradicts info.json.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; check the path")
    info_path = os.path.join(folder, "info.json")
    info = _read_info(info_path)
    names = _class_names(classes, info.get("classes"), info_path)
    train, train_sizes = _source(folder, "train", len(names))
    validation, sizes = _source(folder, "val", len(names))
    return Dataset(
        name=os.path.basename(os.path.abspath(folder)),
        classes=names,
        train=train,
        validation=validation,
        mean=_triple(info, "mean", info_path, _is_fraction, "in [0, 1]"),
        std=_triple(info, "std", info_path, lambda x: _is_fraction(x) and x > 0, "in (0, 1]"),
        colors=_colors(info.get("colors"), len(names), info_path),
        validation_sizes=None if len(set(sizes)) == 1 else sizes,
        train_sizes=None if len(set(train_sizes)) == 1 else train_sizes,
    )


def _source(
    folder: str, split: str, classes: int
) -> tuple[ListSource, tuple[tuple[int, int], ...]]:
    """The examples of a split and their sizes (height, width)."""
    image_list = os.path.join(folder, f"{split}_images.txt")
    label_list = os.path.join(folder, f"{split}_labels.txt")
    images, masks = _read_list(image_list), _read_list(label_list)
    if len(images) != len(masks):
        raise UserError(
            f"{image_list} lists {len(images)} files, {label_list} {len(masks)}: line i of both "
            "must belong together"
        )
    sizes = []
    for image_name, mask_name in zip(images, masks, strict=True):
        image_size = _listed_size(folder, image_name, image_list)
        mask_size = _listed_size(folder, mask_name, label_list)
        if image_size != mask_size:
            raise UserError(
                f"{os.path.join(folder, image_name)} is {_by(image_size)} pixels, its label "
                f"{os.path.join(folder, mask_name)} {_by(mask_size)}: they must be of one size "
                "(height x width)"
            )
        sizes.append(image_size)
    source = ListSource(
        tuple(os.path.join(folder, name) for name in images),
        tuple(os.path.join(folder, name) for name in masks),
        classes,
    )
    return source, tuple(sizes)


def _listed_size(folder: str, name: str, list_path: str) -> tuple[int, int]:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise UserError(f"{path}: listed in {list_path} but missing; restore it or unlist it")
    return image.size(path)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _read_text(path: str) -> str:
    if not os.path.exists(path):
        raise UserError(
            f"{path}: missing; the list layout needs train_images.txt, train_labels.txt, "
            "val_images.txt, val_labels.txt and info.json"
        )
    try:
        return image.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason}); save it so") from error


def _read_list(path: str) -> list[str]:
    lines = [line.strip() for line in _read_text(path).splitlines()]
    names = [line for line in lines if line]
    if not names:
        raise UserError(f"{path}: lists no file; write one path a line, relative to its folder")
    return names


def _read_info(path: str) -> dict[str, Any]:
    text = _read_text(path)
    try:
        info = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: malformed JSON at line {error.lineno}, column {error.colno} ({error.msg})"
        ) from error
    if not isinstance(info, dict):
        raise UserError(f"{path}: must be a JSON object with mean and std")
    return info


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1


def _triple(
    info: dict[str, Any], field: str, path: str, accepts: Callable[[Any], bool], span: str
) -> tuple[float, float, float]:
    if field not in info:
        raise UserError(f"{path}: field {field} is missing; add the three channel values, RGB")
    value = info[field]
    if not isinstance(value, list) or len(value) != 3 or not all(accepts(x) for x in value):
        raise UserError(f"{path}: {field} must be three numbers {span}, not {json.dumps(value)}")
    red, green, blue = (float(x) for x in value)
    return red, green, blue


def _class_names(asked: tuple[str, ...] | int | None, listed: Any, path: str) -> tuple[str, ...]:
    """The names, from what the caller and info.json say, which must agree."""
    if listed is None:
        if asked is None:
            raise UserError(f"{path}: field classes is missing; add the names of the classes")
        names = tuple(f"class {i}" for i in range(asked)) if isinstance(asked, int) else asked
    elif not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise UserError(f"{path}: classes must be a list of names")
    else:
        names = tuple(listed)
    if not 1 <= len(names) <= IGNORED:
        raise UserError(
            f"{path}: {len(names)} classes; the ids of a mask leave room for 1 to {IGNORED}"
        )
    count = len(asked) if isinstance(asked, tuple) else asked
    if count is not None and len(names) != count:
        raise UserError(f"{path}: names {len(names)} classes, but {count} were asked for")
    if isinstance(asked, tuple):
        for i, (ours, theirs) in enumerate(zip(asked, names, strict=True)):
            if ours != theirs:
                raise UserError(
                    f"{path}: class {i} is {theirs!r}, but {ours!r} was asked for; use one order"
                )
    return names


def _colors(value: Any, classes: int, path: str) -> tuple[tuple[int, int, int], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != classes:
        raise UserError(f"{path}: colors must be a list of {classes} [r, g, b], one a class")
    for i, color in enumerate(value):
        if (
            not isinstance(color, list)
            or len(color) != 3
            or not all(isinstance(x, int) and 0 <= x <= 255 for x in color)
        ):
            raise UserError(
                f"{path}: color {i} must be three integers in 0..255, not {json.dumps(color)}"
            )
    return tuple((red, green, blue) for red, green, blue in value)
