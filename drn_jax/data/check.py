"""Everything that can be told of a set by decoding it: faults, statistics, how often each class."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from drn_jax.data.dataset import IGNORED, Dataset, Example, Source
from drn_jax.data.decoding import each
from drn_jax.data.findings import Findings
from drn_jax.data.prepare import Progress
from drn_jax.data.sources import FileSource, Remark
from drn_jax.errors import UserError

MEAN_TOLERANCE = 0.03
STD_TOLERANCE = 1.5
"""A mean further from the stated one than that, or a deviation greater or smaller by that factor,
is a warning."""


@dataclass
class Tally:
    """What the examples of a split add up to."""

    classes: int
    images: int = 0
    """That could be decoded."""
    boxes: int = 0
    ignored: int = 0
    """Pixels that belong to no class."""
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """Images of each (height, width)."""

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.classes, np.int64)
        """Images of each class, or pixels, int64 [classes]."""
        self.levels = np.zeros((3, 256), np.int64)
        """Pixels of each value in each channel, int64 [3, 256]."""

    @property
    def mean(self) -> np.ndarray:
        """Of the channels over all pixels, in [0, 1], float64 [3]."""
        return self._expected(np.arange(256) / 255)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation, likewise."""
        return np.sqrt(self._expected((np.arange(256) / 255 - self.mean[:, None]) ** 2))

    def _expected(self, values: np.ndarray) -> np.ndarray:
        """The mean of what each of the 256 levels stands for, [256] or [3, 256]."""
        return (self.levels * values).sum(1) / max(1, self.levels[0].sum())


@dataclass(frozen=True)
class _Facts:
    """What is kept of an example once it was decoded."""

    size: tuple[int, int]
    digest: bytes
    levels: np.ndarray
    labels: np.ndarray
    """int64 [classes]: pixels of each class, or 1 for the image's."""
    ignored: int
    boxes: int
    warnings: tuple[str, ...]
    """Kinds."""


def check(
    dataset: Dataset,
    task: str,
    findings: Findings,
    progress: Progress = lambda items, total, title: items,
) -> dict[str, Tally]:
    """Decode every example of a set, and add what is wrong to the findings.

    Args:
      task: "classification" or "segmentation": whether labels or masks are looked at.

    Returns: what was found, by split.
    """
    tallies: dict[str, Tally] = {}
    seen: dict[bytes, str] = {}
    for split, source in dataset.splits.items():
        tally = tallies[split] = Tally(len(dataset.classes))
        decoded = _decoded(source, task, findings, tally, split, seen)
        for _ in progress(decoded, len(source), split):
            pass
    _compare(dataset, tallies, findings)
    return tallies


def _decoded(
    source: Source,
    task: str,
    findings: Findings,
    tally: Tally,
    split: str,
    seen: dict[bytes, str],
) -> Iterator[None]:
    """Decodes the examples in threads, in order; yields once for each."""

    remarks = source.remarks if isinstance(source, FileSource) else None

    def facts(index: int) -> tuple[_Facts, tuple[Remark, ...]]:
        return _facts(source[index], task, tally.classes), remarks(index) if remarks else ()

    for index, found in enumerate(each(source, facts)):
        if isinstance(found, UserError):
            findings.fault(str(found))
        else:
            _add(found[0], source.where(index), findings, tally, split, seen)
            for kind, text in found[1]:
                findings.warn(kind, text)
        yield


def _facts(example: Example, task: str, classes: int) -> _Facts:
    """What there is to know of an example. Raises: UserError for what it can't be, without naming
    the example."""
    pixels = example["image"]
    height, width = pixels.shape[:2]
    warnings = []
    labels, ignored = np.zeros(classes, np.int64), 0
    if pixels.size == 0 or (pixels == pixels[0, 0]).all():
        warnings.append("images of one colour")
    if task == "segmentation":
        values = np.bincount(example["mask"].ravel(), minlength=256)
        labels, ignored = values[:classes], int(values[IGNORED])
        if ignored == example["mask"].size:
            warnings.append("masks without any class")
        wrong = np.flatnonzero(values[classes:IGNORED])
        if len(wrong):
            raise UserError(f"its mask holds {classes + wrong[0]}, but there are {classes} classes")
    else:
        label = int(example["label"])
        if not 0 <= label < classes:
            raise UserError(f"its label is {label}, but there are {classes} classes")
        labels = np.bincount([label], minlength=classes)
    boxes = example.get("boxes", np.zeros((0, 4), np.float32))
    if len(boxes):
        x1, y1, x2, y2 = boxes.T
        outside = (boxes < 0).any() or (x2 > width).any() or (y2 > height).any()
        if outside or not np.isfinite(boxes).all():
            raise UserError(f"a box reaches beyond the image of {height}x{width}")
        if (x2 < x1).any() or (y2 < y1).any():
            raise UserError("a box ends before it starts")
        warnings += ["boxes without area"] * int(((x2 == x1) | (y2 == y1)).sum())
    salt = np.array([height, width], np.int64).tobytes()  # The same bytes in another shape differ.
    return _Facts(
        size=(height, width),
        digest=hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=salt).digest(),
        levels=np.stack([np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(3)]),
        labels=labels,
        ignored=ignored,
        boxes=len(boxes),
        warnings=tuple(warnings),
    )


def _add(
    found: _Facts,
    where: str,
    findings: Findings,
    tally: Tally,
    split: str,
    seen: dict[bytes, str],
) -> None:
    """Add an example to its split."""
    tally.images += 1
    tally.boxes += found.boxes
    tally.levels += found.levels
    tally.labels += found.labels
    tally.ignored += found.ignored
    tally.sizes[found.size] = tally.sizes.get(found.size, 0) + 1
    for kind in found.warnings:
        findings.warn(kind, where)
    first = seen.setdefault(found.digest, f"{split}: {where}")
    if first != f"{split}: {where}":
        again = f"{where} shows what {first.partition(': ')[2]} shows"
        twice = first.startswith(f"{split}: ")
        findings.warn(
            f"images that {split} has twice" if twice else "images that two splits have", again
        )


def _compare(dataset: Dataset, tallies: dict[str, Tally], findings: Findings) -> None:
    """Compare what was found with what the set says of itself."""
    train = tallies["train"]
    for split, tally in tallies.items():
        for name, count in zip(dataset.classes, tally.labels, strict=True):
            if not count:
                findings.warn(f"classes without an example in {split}", name)
    if not train.images:
        return
    for name, stated, measured, off in (
        ("mean", dataset.mean, train.mean, abs(train.mean - dataset.mean) > MEAN_TOLERANCE),
        (
            "std",
            dataset.std,
            train.std,
            abs(np.log(np.maximum(train.std, 1e-6) / dataset.std)) > np.log(STD_TOLERANCE),
        ),
    ):
        if off.any():
            findings.warn(
                "statistics unlike the stated ones",
                f"the {name} is stated as {triple(stated)} and measured as {triple(measured)}",
            )


def triple(values: Iterable[float]) -> str:
    """The three channels in words."""
    return " ".join(f"{value:.4f}" for value in values)
