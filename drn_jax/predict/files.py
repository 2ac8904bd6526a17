"""Which images to predict, and under which names the results lie."""

import glob
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from drn_jax import places
from drn_jax.data import files
from drn_jax.data.sets.class_folder import SUFFIXES as PHOTOGRAPHS
from drn_jax.errors import UserError

SUFFIXES = (*PHOTOGRAPHS, ".avif", ".gif", ".jfif", ".jp2", ".pbm", ".pnm")
"""What images in a folder end in. A file that is named by itself may end in anything."""

ROWS = "predictions.jsonl"
"""One line an image; that a folder holds it says that it holds results."""
RANKS = "predictions.csv"
"""The likeliest classes of all images, one a line."""


def remaining(out: str, jobs: Sequence["Job"]) -> int:
    """How many files that an earlier run's `ROWS` lists in the output folder these jobs will not
    replace. To be asked before the file is opened anew."""
    try:
        with open(os.path.join(out, ROWS), encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        before = {name for row in rows for name in row.get("outputs", {}).values()}
    except (OSError, ValueError, AttributeError):
        return 0
    kept = before - {name for job in jobs for name in job.outputs.values()}
    return sum(os.path.exists(os.path.join(out, name)) for name in kept)


class Found(NamedTuple):
    """An image."""

    path: str
    """As it was named, or found in a folder that was."""
    name: str
    """Where it lies below what was named, with forward slashes."""


class Job(NamedTuple):
    """An image, and the files that it becomes."""

    path: str
    outputs: Mapping[str, str]
    """By kind, below the output folder, with forward slashes."""


def find(named: Sequence[str], out: str) -> tuple[list[Found], int]:
    """The images in files, folders at any depth, and patterns with * ? or [, in that order.

    The names are those inside a single folder; of several, each folder's begin with its own name;
    of a pattern they begin where it begins to vary. An image that is named twice is found once.
    Hidden files are passed over, and what lies in `out`.

    Returns: the images, and how many files were met on the way that do not end like images.
    Raises: UserError for what does not exist, if there is no image at all, or if `out` is itself
      one of the folders.
    """
    found: dict[str, Found] = {}
    others = 0
    for given in named:
        pattern = glob.has_magic(given) and not places.exists(given)
        for path, name in _matches(given) if pattern else [(given, places.name(given))]:
            if places.is_folder(path):
                inside = _inside(path, out)
                prefix = f"{name}/" if pattern or len(named) > 1 else ""
                images = [Found(where, prefix + below) for where, below in inside]
            elif places.is_file(path):
                images = [Found(path, name)]
            else:
                raise UserError(f"{path}: no such file or folder; check the path")
            for image in images:
                if _ends_like_an_image(image.name) or image.path == given:
                    # Links stay apart: they were put there to be images of their own.
                    found.setdefault(_absolute(image.path), image)
                else:
                    others += 1
    if not found:
        passed_over = f" (of {others:,} files there, none ends like one)" if others else ""
        raise UserError(f"no images in {', '.join(named)}{passed_over}; check the paths")
    return list(found.values()), others


def plan(found: Sequence[Found], endings: Mapping[str, str], out: str) -> list[Job]:
    """The output files of every image: its name without the suffix, and an ending by kind.

    Images of which one would take the other's file (`a.png`, `a.jpg`; `a.png`, `a_overlay.png`)
    keep their suffix in the names: `a.png.png`, `a.jpg.png`. Nothing is written.

    Raises: UserError if two images would still become the same file, a file would replace an image,
      or files in `out` would be replaced that are no results.
    """
    full: set[int] = set()  # Those that keep their suffix.
    while True:
        stems = [f.name if i in full else os.path.splitext(f.name)[0] for i, f in enumerate(found)]
        takers: defaultdict[str, list[int]] = defaultdict(list)
        for i, stem in enumerate(stems):
            for ending in endings.values():
                takers[stem + ending].append(i)
        shared = {name: which for name, which in takers.items() if len(which) > 1}
        longer = {i for which in shared.values() for i in which} - full
        if not longer:
            break
        full |= longer
    for name, (first, second, *_) in shared.items():
        raise UserError(
            f"{found[first].path} and {found[second].path} would both become "
            f"{places.join(out, name)}: name the folder that both lie in, or predict "
            "them in two runs"
        )
    images = {places.real(image.path): image.path for image in found}
    for name in (*takers, ROWS, RANKS):
        if replaced := images.get(places.real(places.join(out, name))):
            raise UserError(
                f"--out={out}: the image {replaced} would be replaced; name another folder"
            )
    if not places.exists(places.join(out, ROWS)):
        for name in (*takers, RANKS):
            if places.exists(places.join(out, name)):
                raise UserError(
                    f"--out={out}: {name} would be replaced, but without a {ROWS} this is no folder"
                    " of results; name another, or delete that file"
                )
    return [
        Job(image.path, {kind: stem + ending for kind, ending in endings.items()})
        for image, stem in zip(found, stems, strict=True)
    ]


def _matches(pattern: str) -> list[tuple[str, str]]:
    """The paths that match, and their names below the part of the pattern that is fixed."""
    if places.is_remote(pattern):
        raise UserError(f"{pattern}: no patterns in buckets; name a folder or a file")
    top = pattern
    while glob.has_magic(top):
        top = os.path.dirname(top)
    paths = sorted(glob.glob(pattern, recursive=True))
    if "**" in pattern:  # Matches folders and what is in them, too.
        paths = [path for path in paths if not os.path.isdir(path)]
    if not paths:
        raise UserError(f"{pattern}: matches nothing; check the pattern")
    return [(path, os.path.relpath(path, top or ".").replace(os.sep, "/")) for path in paths]


def _inside(folder: str, out: str) -> list[tuple[str, str]]:
    """The path and the name of each file in a folder, but for those in `out`."""
    if places.real(folder) == places.real(out):
        raise UserError(
            f"--out={out} holds images to predict, and results among them would be taken for "
            "images the next time: name a folder of its own"
        )
    inside = files.folder_files(folder)
    paths = [(inside.where(name), name) for name in inside.under("")]
    results = places.real(out)
    if not results.startswith(places.join(places.real(folder), "")):
        return paths
    results = places.join(results, "")
    return [(path, name) for path, name in paths if not places.real(path).startswith(results)]


def _ends_like_an_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _absolute(path: str) -> str:
    return path if places.is_remote(path) else os.path.abspath(path)
