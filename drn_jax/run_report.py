"""The report of a training run: its curves, its scores, and what it makes of validation images."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from drn_jax.config import Config, MapData
from drn_jax.data.dataset import Source
from drn_jax.experiment import Experiment
from drn_jax.report import ClassRow, Panel, Report, curves, pictures, write
from drn_jax.tasks.segmentation import class_iou
from drn_jax.training.evaluate import Totals

SHOWN = 12
"""Validation images on the page: evenly spaced over the set, not chosen by their result."""
LARGEST = 1024
"""Longest side of a picture on the page, pixels: a page of street scenes would be too large."""
ENLARGED = 128
"""Least side of a picture under a heat map, so that the map is smooth."""

Predict = Callable[[Mapping[str, np.ndarray], tuple[int, int]], Mapping[str, Any]]


def write_report(
    path: str | os.PathLike[str],
    experiment: Experiment,
    predict: Predict,
    totals: Totals,
    step: int,
    rows: Sequence[Mapping[str, Any]],
    command: str,
) -> None:
    """Write the page.

    Args:
      predict: the task's predictions for a batch, and the (height, width) of its images.
      totals: sums over the validation set, of the checkpoint of `step`.
      rows: those of `metrics.jsonl`.
      command: what made the run, to show how to make it again.
    """
    scores = experiment.task.scores(totals)
    primary = experiment.task.primary
    examples = len(experiment.dataset.validation)
    report = Report(
        title=f"{experiment.config.model.name} on {experiment.dataset.name}",
        summary=(
            f"{scores[primary]:.2%} {_NAMES[primary]} on {examples:,} validation images that "
            f"training never saw, at step {step:,}."
        ),
        scores={_NAMES[name]: scores[name] for name in (primary, *scores) if name in scores},
        facts=_facts(experiment, step),
        command=command,
        curves=curves.svg(rows),
        per_class=class_rows(experiment, totals),
        panels=[panel(experiment, predict, index) for index in spread(examples)],
        heat="" if _colors(experiment) is not None else "probability of the predicted class",
    )
    write(path, report)


_NAMES = {
    "loss": "validation loss",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "miou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
}


def _facts(experiment: Experiment, step: int) -> dict[str, str]:
    config = experiment.config
    device = jax.devices()[0]
    return {
        "network": experiment.title,
        **experiment.price.words(experiment.places),
        "output stride": str(experiment.stride),
        "data set": (
            f"{experiment.dataset.name}, {len(experiment.dataset.train):,} training and "
            f"{len(experiment.dataset.validation):,} validation images"
        ),
        "weights at the start": _origin(config),
        "checkpoint": f"step {step:,}, the best of the run by {_NAMES[experiment.task.primary]}",
        "schedule": f"{experiment.total_steps:,} steps, "
        f"{experiment.total_steps / experiment.steps_per_epoch:.3g} epochs, "
        f"batch {config.batch_size}, seed {config.seed}",
        "device": f"{jax.device_count()} x {device.device_kind}",
        "versions": f"Python {platform.python_version()}, jax {jax.__version__}, "
        f"flax {version('flax')}, drn-jax {version('drn-jax')}",
    }


def _origin(config: Config) -> str:
    found = [config.init_from] if config.init_from else []
    if isinstance(config.data, MapData):
        found.append(f"{config.data.front_end} (fixed front end)")
    if config.init_context_from:
        found.append(f"{config.init_context_from} (context module)")
    context = config.model.context
    if context.layers and not config.init_context_from:
        found.append(f"{context.init} initialisation (context module)")
    return ", ".join(found) or "random"


def _colors(experiment: Experiment) -> np.ndarray | None:
    """One colour a class, uint8 [classes, 3], where there are masks to paint."""
    if experiment.config.task == "classification":
        return None
    return pictures.palette(len(experiment.dataset.classes), experiment.dataset.colors)


def class_rows(experiment: Experiment, totals: Totals) -> list[ClassRow]:
    """One row a class: its images and accuracy, or its pixels and IoU (NaN if it is nowhere)."""
    names, colors = experiment.dataset.classes, _colors(experiment)
    if colors is None:
        counts, hits = totals["class_count"], totals["class_top1"]
        return [
            ClassRow(name, None, {"images": int(n), "accuracy": int(k) / int(n) if n else None})
            for name, n, k in zip(names, counts, hits, strict=True)
        ]
    matrix = totals["confusion"]
    pixels, ious = matrix.sum(1).tolist(), class_iou(matrix).tolist()
    return [
        ClassRow(name, (r, g, b), {"pixels": count, "IoU": iou})
        for name, (r, g, b), count, iou in zip(names, colors.tolist(), pixels, ious, strict=True)
    ]


def spread(count: int) -> list[int]:
    """The numbers of the examples that are shown, of so many."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(SHOWN, count))})


def panel(experiment: Experiment, predict: Predict, index: int) -> Panel:
    """A validation example beside what the network makes of it."""
    example = experiment.prepare(experiment.dataset.validation[index])
    image = experiment.prepare(experiment.pictures[index])["image"]
    batch = {experiment.keys[0]: example[experiment.keys[0]][None]}
    found = {k: np.asarray(v)[0] for k, v in predict(batch, image.shape[:2]).items()}
    names, colors = experiment.dataset.classes, _colors(experiment)
    if colors is not None:
        masks = {"prediction": found["mask"]}
        if "front_end_mask" in found:
            masks = {"front end": found["front_end_mask"], "with context": found["mask"]}
        return _masks(index, image, example["mask"], masks, colors)
    truth, best = int(example["label"]), int(found["probability"].argmax())
    factor = max(1, -(-ENLARGED // min(image.shape[:2])))
    large = pictures.enlarge(image, factor * min(image.shape[:2]))
    heat = pictures.class_map(large, found["class_map"][..., best], factor * experiment.stride)
    return Panel(
        caption=f"{names[truth]}, predicted {names[best]} ({found['probability'][best]:.0%})",
        correct=truth == best,
        images=[("image", image), (f"where it sees {names[best]}", heat)],
    )


def mask_panel(experiment: Experiment, source: Source, index: int, mask: np.ndarray) -> Panel:
    """An example of a source beside the mask that is predicted for it."""
    example, colors = source[index], _colors(experiment)
    if colors is None:
        raise ValueError("a classifier has no masks")
    return _masks(index, example["image"], example["mask"], {"prediction": mask}, colors)


def _masks(
    index: int,
    image: np.ndarray,
    truth: np.ndarray,
    masks: Mapping[str, np.ndarray],
    colors: np.ndarray,
) -> Panel:
    """An image, its true mask and predicted ones, of which the caption counts the last."""
    counted, last = truth != pictures.IGNORED, list(masks.values())[-1]
    right = float((last == truth)[counted].mean()) if counted.any() else float("nan")

    def paint(mask: np.ndarray) -> np.ndarray:
        return pictures.paint(pictures.shrink(mask.astype(np.uint8), LARGEST), colors)

    painted = {name: paint(mask) for name, mask in masks.items()}
    return Panel(
        caption=f"image {index}: {right:.1%} of the labelled pixels right",
        correct=None,
        images=[
            ("image", pictures.shrink(image, LARGEST)),
            ("truth", paint(truth)),
            *painted.items(),
        ],
    )
