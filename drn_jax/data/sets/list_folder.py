"""Segmentation sets in fyu/drn's list layout.

A folder with
  `train_images.txt`, `train_labels.txt`, `val_images.txt`, `val_labels.txt`: a path a line,
      relative to the folder; line i of the labels belongs to line i of the images; optionally
      `test_images.txt` and `test_labels.txt`
  `info.json`: `mean` and `std` of the training images, RGB in [0, 1]; optionally `classes`, their
      names in the order of the ids, and `colors`, an [r, g, b] each

A file may be listed once in all of the lists; where training has what validation has, it loses it.
Everything that can be told without decoding a pixel is checked at once by `read`, with a look into
the header of every file.
"""

import bisect
import os
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from drn_jax import places
from drn_jax.data.dataset import Dataset, Sizes
from drn_jax.data.files import Files, folder_files, require_folder
from drn_jax.data.findings import Findings
from drn_jax.data.masks import Decode, MaskFiles
from drn_jax.data.pairs import common_sizes
from drn_jax.data.sets.list_info import Classes, read_info, read_text
from drn_jax.data.sources import FileSource
from drn_jax.errors import UserError

NEARLY_ALL = 0.9
"""The part of the lines that must follow a rule for the others to count as mistakes."""


class Line(NamedTuple):
    """A line of a list."""

    number: int
    """From 1."""
    name: str
    """The path, with forward slashes."""

    @property
    def stem(self) -> str:
        """The file's name without its folder and its ending."""
        return os.path.splitext(self.name.rpartition("/")[2])[0]


def read(
    folder: str, findings: Findings, classes: Classes = None, order: tuple[str, ...] = ()
) -> Dataset:
    """The data set in `folder`.

    Args:
      folder: see the module.
      classes: the names of the classes in the order of their ids; or how many there are, then their
        names are those of info.json or else `class 0`, `class 1`, ...; or the label space that
        they belong to, then info.json may name them in any order and by their aliases, and the
        masks are mapped to the space's own order, which they have if info.json names none; or None,
        then info.json must name them.
      order: the names that stand in for those of info.json if it has none: the order in which sets
        of this kind are in circulation.

    Raises:
      UserError: the folder, a list or info.json is missing or malformed; `classes` contradicts
        info.json; a split has no example.
    """
    require_folder(folder)
    info = read_info(folder, classes, order)
    splits = _Splits(folder_files(folder), info.decode, findings, {})
    # Validation stays whole: of an image that is listed twice, it is the others that lose it.
    validation = splits.read("val")
    test = splits.read("test").source if places.exists(splits.lists("test")[0]) else None
    train = splits.read("train")
    return Dataset(
        name=places.name(folder),
        classes=info.classes,
        train=train.source,
        validation=validation.source,
        test=test,
        mean=info.mean,
        std=info.std,
        colors=info.colors,
        validation_sizes=validation.sizes,
        train_sizes=train.sizes,
    )


class _Split(NamedTuple):
    """The examples of a split, and (height, width) of each."""

    source: FileSource
    shapes: Sizes

    def sizes(self) -> Sizes | None:
        """None if they are all alike."""
        return self.shapes if len(set(self.shapes)) > 1 else None


@dataclass(frozen=True)
class _Splits:
    """Reads the splits one after the other."""

    files: Files
    decode: Decode
    findings: Findings
    listed: dict[str, str]
    """The files that were read already, by their real paths, and the line that lists each."""

    def lists(self, split: str) -> tuple[str, str]:
        """The paths of the lists of images and labels."""
        return self.files.where(f"{split}_images.txt"), self.files.where(f"{split}_labels.txt")

    def read(self, split: str) -> "_Split":
        """The examples that hold what they should."""
        image_list, label_list = self.lists(split)
        images, labels = _read_list(image_list), _read_list(label_list)
        before = len(self.findings.faults)
        if len(images) != len(labels):
            self.findings.fault(
                f"{image_list} lists {len(images)} files, {label_list} {len(labels)}: line i of "
                "both must belong together; mend the lists"
            )
            pairs = self._by_stem(image_list, images, label_list, labels)
        else:
            pairs = self._by_line(image_list, images, label_list, labels)
        found = common_sizes(self.files, [(image.name, label.name) for image, label in pairs])
        kept, sizes = [], []
        for (a, b), size in zip(pairs, found, strict=True):
            if self._is_new(a, image_list) and self._is_new(b, label_list):
                if isinstance(size, UserError):
                    self._say(size, (a, image_list), (b, label_list))
                else:
                    kept.append((a.name, b.name))
                    sizes.append(size)
        if not kept:
            first, *others = self.findings.faults[before:]
            raise UserError(
                f"{image_list}: no example is left of it; the first of {1 + len(others)} faults: "
                f"{first}"
            )
        names, masks = zip(*kept, strict=True)
        source = FileSource(self.files, names, masks=MaskFiles(self.files, masks, self.decode))
        return _Split(source, tuple(sizes))

    def _by_line(
        self, image_list: str, images: list[Line], label_list: str, labels: list[Line]
    ) -> list[tuple[Line, Line]]:
        """The pairs, but for those whose stems don't belong together where nearly all others do, or
        which belong to others."""
        pairs = list(zip(images, labels, strict=True))
        endings = [_endings(a.stem, b.stem) for a, b in pairs]
        usual, count = Counter(endings).most_common(1)[0]
        kept = [pair for pair, ending in zip(pairs, endings, strict=True) if ending == usual]
        why = "but in nearly all other lines the names belong together"
        if count < NEARLY_ALL * len(pairs):
            matched = _matched(images, labels)
            if matched is None:
                return pairs
            kept = [pair for pair in pairs if pair in matched]
            why = "but nearly all names belong to those of other lines"
        for a, b in sorted(set(pairs).difference(kept)):
            self.findings.fault(
                f"{image_list}: line {a.number} pairs {a.name} with {b.name} in {label_list}, "
                f"{why}; mend the lists"
            )
        return kept

    def _by_stem(
        self, image_list: str, images: list[Line], label_list: str, labels: list[Line]
    ) -> list[tuple[Line, Line]]:
        """The pairs of lists of unequal length: by their stems, or if few match, line by line."""
        matched = _matched(images, labels)
        if matched is None:
            return list(zip(images, labels, strict=False))
        for path, lines, paired, what in (
            (image_list, images, {a for a, _ in matched}, "label"),
            (label_list, labels, {b for _, b in matched}, "image"),
        ):
            for line in lines:
                if line not in paired:
                    self.findings.fault(
                        f"{path}: line {line.number}: {line.name} has no {what} of its name; add "
                        "it or unlist the file"
                    )
        return sorted(matched)

    def _is_new(self, line: Line, path: str) -> bool:
        """Whether a file was not listed before, by this or another name."""
        here, file = f"{path}: line {line.number}", places.real(self.files.where(line.name))
        first = self.listed.setdefault(file, here)
        if first != here:
            self.findings.fault(
                f"{here}: {line.name} is listed before, in {first}; a file may serve once, in one "
                "split: unlist it"
            )
        return first == here

    def _say(self, error: UserError, *listed: tuple[Line, str]) -> None:
        """Add what is wrong with a pair: the files that are missing, or else the error."""
        missing = [(line, path) for line, path in listed if line.name not in self.files]
        for line, path in missing:
            self.findings.fault(
                f"{self.files.where(line.name)}: listed in {path}, line {line.number}, but "
                "missing; restore it or unlist it"
            )
        if not missing:
            self.findings.fault(str(error))


def _matched(images: list[Line], labels: list[Line]) -> set[tuple[Line, Line]] | None:
    """The pairs whose stems differ as most do, at their ends or at their starts, if these are
    nearly all of the shorter list; only stems that occur once count."""
    for key in (lambda line: line.stem, lambda line: line.stem[::-1]):
        stems = sorted(map(key, labels))
        ends = Counter(_nearest(key(a), stems) for a in images).most_common(1)[0][0]
        cores: list[dict[str, Line]] = []
        for lines, end in zip((images, labels), ends, strict=True):
            ending = [line for line in lines if key(line).endswith(end)]
            times = Counter(map(key, ending))
            cores.append({key(x).removesuffix(end): x for x in ending if times[key(x)] == 1})
        of_images, of_labels = cores
        pairs = {(of_images[core], of_labels[core]) for core in of_images.keys() & of_labels.keys()}
        if len(pairs) >= NEARLY_ALL * min(len(images), len(labels)):
            return pairs
    return None


def _endings(a: str, b: str) -> tuple[str, str]:
    """What is left of two names behind what they have in common at their start."""
    common = next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    return a[common:], b[common:]


def _nearest(stem: str, stems: list[str]) -> tuple[str, str]:
    """The endings of a name and of the one, in a sorted list, that shares most of its start."""
    place = bisect.bisect_left(stems, stem)
    around = stems[max(0, place - 1) : place + 2]
    return min((_endings(stem, other) for other in around), key=lambda ends: len(ends[0]))


def _read_list(path: str) -> list[Line]:
    stripped = enumerate(map(str.strip, read_text(path).splitlines()), start=1)
    lines = [Line(number, name) for number, name in stripped if name]
    if not lines:
        raise UserError(f"{path}: lists no file; write one path a line, relative to its folder")
    return lines
