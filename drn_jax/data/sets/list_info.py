"""`info.json` of fyu/drn's list layout: the classes, how masks hold them, statistics, colours."""

import json
from collections import Counter
from collections.abc import Callable
from reprlib import repr as brief
from typing import Any, NamedTuple

from drn_jax import places
from drn_jax.data import image
from drn_jax.data.dataset import IGNORED
from drn_jax.data.labels.space import RGB, LabelSpace
from drn_jax.data.masks import ClassIds, Decode, MappedIds
from drn_jax.errors import UserError

Classes = tuple[str, ...] | int | LabelSpace | None
"""What a caller knows of the classes, see `list_folder.read`."""


class ListInfo(NamedTuple):
    """What the file says, and the caller."""

    classes: tuple[str, ...]
    decode: Decode
    """Makes class ids of a mask's file."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colors: tuple[RGB, ...] | None


def read_info(folder: str, classes: Classes, order: tuple[str, ...]) -> ListInfo:
    """`info.json` of a folder; the arguments are those of `list_folder.read`.

    Raises: UserError if it is missing or malformed, or `classes` contradicts it.
    """
    path = places.join(folder, "info.json")
    info = _read_json(path)
    names, decode = _classes(classes, _listed_classes(info, order), path)
    colors = _colors(info.get("colors"), len(names), path)
    return ListInfo(
        names,
        decode,
        _triple(info, "mean", path, _is_fraction, "in [0, 1]"),
        _triple(info, "std", path, lambda x: _is_fraction(x) and x > 0, "in (0, 1]"),
        classes.colors if isinstance(classes, LabelSpace) else colors,
    )


def read_text(path: str) -> str:
    """A file of the layout; UserError if it is missing or is no text."""
    if not places.exists(path):
        raise UserError(
            f"{path}: missing; the list layout needs train_images.txt, train_labels.txt, "
            "val_images.txt, val_labels.txt and info.json"
        )
    try:
        return image.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason}); save it so") from error


def _read_json(path: str) -> dict[str, Any]:
    text = read_text(path)
    try:
        info = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: malformed JSON at line {error.lineno}, column {error.colno} ({error.msg})"
        ) from error
    except (ValueError, RecursionError) as error:  # A number of thousands of digits, say.
        raise UserError(f"{path}: malformed JSON ({error}); mend it") from error
    if not isinstance(info, dict):
        raise UserError(f"{path}: must be a JSON object with mean and std")
    return info


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _triple(
    info: dict[str, Any], field: str, path: str, accepts: Callable[[Any], bool], span: str
) -> tuple[float, float, float]:
    if field not in info:
        raise UserError(f"{path}: field {field} is missing; add the three channel values, RGB")
    value = info[field]
    if not isinstance(value, list) or len(value) != 3 or not all(accepts(x) for x in value):
        raise UserError(f"{path}: {field} must be three numbers {span}, not {brief(value)}")
    red, green, blue = (float(x) for x in value)
    return red, green, blue


def _listed_classes(info: dict[str, Any], order: tuple[str, ...]) -> Any:
    listed = info.get("classes")
    return list(order) if listed is None and order else listed


def _classes(asked: Classes, listed: Any, path: str) -> tuple[tuple[str, ...], Decode]:
    """The names of the classes and what decodes the masks, from what the caller and info.json
    say, which must agree."""
    if listed is not None and (
        not isinstance(listed, list) or not all(isinstance(name, str) for name in listed)
    ):
        raise UserError(f"{path}: classes must be a list of names")
    if not isinstance(asked, LabelSpace):
        names = _class_names(asked, listed, path)
        return names, ClassIds(len(names))
    if listed is None or tuple(listed) == asked.names:
        return asked.names, ClassIds(len(asked.names))
    return asked.names, MappedIds(asked.reordered(listed, path))


def _class_names(
    asked: tuple[str, ...] | int | None, listed: list[str] | None, path: str
) -> tuple[str, ...]:
    if listed is not None:
        names = tuple(listed)
    elif asked is None:
        raise UserError(f"{path}: field classes is missing; add the names of the classes")
    else:
        names = tuple(f"class {i}" for i in range(asked)) if isinstance(asked, int) else asked
    if not 1 <= len(names) <= IGNORED:
        raise UserError(
            f"{path}: {len(names)} classes; the ids of a mask leave room for 1 to {IGNORED}"
        )
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"{path}: names class {name!r} {times} times; give each its own name")
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


def _colors(value: Any, classes: int, path: str) -> tuple[RGB, ...] | None:
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
                f"{path}: color {i} must be three integers in 0..255, not {brief(color)}"
            )
    return tuple((red, green, blue) for red, green, blue in value)
