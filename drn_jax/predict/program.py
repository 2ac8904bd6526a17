"""The program: what the command line asks for, the files that come of it, what is printed."""

import argparse
import csv
import json
import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TextIO

from drn_jax import places, runtime, trained
from drn_jax.config import ClassificationData
from drn_jax.errors import UserError, nearest
from drn_jax.evaluation.crops import Crops
from drn_jax.evaluation.dense import ClassMaps, for_memory
from drn_jax.evaluation.pixels import PixelScores, Scales, factors
from drn_jax.models import rows_of
from drn_jax.predict import classification, files, pipeline, segmentation, summary
from drn_jax.predict.pipeline import Answerer, Row
from drn_jax.report import console
from drn_jax.tasks import Segmentation
from drn_jax.trained import Trained
from drn_jax.training.interrupt import Interrupt

_ENDINGS = {"segmentation": segmentation.ENDINGS, "classification": classification.ENDINGS}
_KINDS = {
    "segmentation": tuple(segmentation.ENDINGS),
    "classification": ("classes", *classification.ENDINGS),
}
_UNASKED = ("mask", "overlay", "classes", "map", "boxes")
"""Kinds that come out unless others are asked for."""

_OPTIONS = {
    "segmentation": ("scales", "flip", "combine", "ids"),
    "classification": ("top", "threshold"),
}
"""Those that are of no use for the other task."""


def run(arguments: argparse.Namespace, start: float) -> int:
    """Predict, and print what came of it. `start`: when the program did, by `time.monotonic`.

    Returns: the exit status, 1 if an image failed.
    Raises: UserError for whatever the command line asks that can't be, before anything is written;
      and if a file can't be written.
    """
    out = arguments.out
    if places.is_remote(out):
        raise UserError(
            f"--out={out}: results are written to a disk, from where they can be copied"
        )
    found, others = files.find(arguments.images, out)
    runtime.keep_compiled()
    network = trained.load(arguments.workdir, arguments.checkpoint, arguments.data_dir)
    task = network.task.name
    kinds = _kinds(arguments.outputs, task)
    answer = answerer(arguments, network, kinds)
    endings = {kind: ending for kind, ending in _ENDINGS[task].items() if kind in kinds}
    jobs = files.plan(found, endings, out)
    rows: list[Row] = []
    remaining = files.remaining(out, jobs)
    with ExitStack() as stack:
        writers = [_row_writer(stack.enter_context(_opened(out, files.ROWS)))]
        if "classes" in kinds:
            writers.append(_rank_writer(stack.enter_context(_opened(out, files.RANKS))))
        interrupt = stack.enter_context(Interrupt())
        made = pipeline.rows(jobs, answer, out, interrupt.asked)
        for row in console.progress(made, len(jobs), "predicting"):
            for write in writers:
                write(row)
            rows.append(row)
    summary.print_rows(rows, others, out)
    if remaining:
        console.say(f"of an earlier run {console.counted(remaining, 'file')} remain in {out}")
    failures = sum("error" in row for row in rows)
    figures = (
        console.counted(len(rows) - failures, "image"),
        console.counted(failures, "failure"),
        f"{time.monotonic() - start:.1f} seconds",
        f"{console.counted(answer.compiled, 'program')} compiled",
    )
    console.say(f"{', '.join(figures)}; in {out}")
    if len(rows) < len(jobs):
        console.say(f"stopped before the last {len(jobs) - len(rows):,} of {len(jobs):,} images")
        return interrupt.exit_code
    return 1 if failures else 0


def answerer(arguments: argparse.Namespace, network: Trained, kinds: tuple[str, ...]) -> Answerer:
    """The network with the options of its task. Raises: UserError for one that can't be."""
    task, data = network.task, network.config.data
    for other, options in _OPTIONS.items():
        for option in options:
            if other != task.name and getattr(arguments, option) is not None:
                raise UserError(
                    f"--{option} is for {other}, but {arguments.workdir} is a run of {task.name}"
                )
    preprocess, sides = network.preprocess, None
    if arguments.memory is not None:
        sides = for_memory(rows_of(network.model), arguments.memory, preprocess.margin)
    class_maps = ClassMaps(network.model, preprocess, network.variables, sides)
    if isinstance(task, Segmentation):
        combine = {"combine": arguments.combine} if arguments.combine else {}
        scales = Scales(factors(arguments.scales or ""), bool(arguments.flip), **combine)
        return segmentation.Segmenter(
            pixels=PixelScores(class_maps, task, scales),
            classes=network.classes,
            colors=network.colors,
            kinds=kinds,
            ids=segmentation.set_ids(network.classes) if arguments.ids == "set" else None,
        )
    assert isinstance(data, ClassificationData)
    top = 5 if arguments.top is None else arguments.top
    if top < 1:
        raise UserError(f"--top={top}: must be at least 1")
    threshold = -math.inf if arguments.threshold is None else arguments.threshold
    if arguments.threshold is not None and not 0 <= threshold < 1:
        raise UserError(f"--threshold={threshold}: is a probability, at least 0 and below 1")
    views = Crops(data.resize, data.crop)
    return classification.Classifier(network, class_maps, views, kinds, top, threshold)


def _kinds(asked: str, task: str) -> tuple[str, ...]:
    """The kinds of output, in the order in which they are documented."""
    kinds = [kind.strip() for kind in asked.split(",")] if asked else _UNASKED
    for kind in kinds if asked else ():
        if kind not in _KINDS[task]:
            raise UserError(
                f"--outputs={asked}: no {kind!r} of {task}: {nearest(kind, _KINDS[task])}"
            )
    return tuple(kind for kind in _KINDS[task] if kind in kinds)


def _opened(out: str, name: str) -> TextIO:
    try:
        os.makedirs(out, exist_ok=True)
        return open(os.path.join(out, name), "w", encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"--out={out}: {name} cannot be written ({error.strerror})") from error


def _row_writer(file: TextIO) -> Callable[[Row], None]:
    """A line an image, on the disk as soon as it is known: a run may be stopped."""

    def write(row: Row) -> None:
        file.write(json.dumps(row) + "\n")
        file.flush()

    return write


def _rank_writer(file: TextIO) -> Callable[[Row], None]:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(("file", "rank", "id", "class", "probability"))

    def write(row: Row) -> None:
        for rank, found in enumerate(row.get("top", ()), 1):
            name = pipeline.printable(row["file"])
            p = f"{found['probability']:.6g}"
            table.writerow((name, rank, found["id"], found["class"], p))
        file.flush()

    return write
