"""The protocols by which eval.py judges classes and masks, each to one `Outcome`; those of boxes:
`judge_boxes`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jax.sharding import Mesh

from drn_jax import program, run_report
from drn_jax.config import ClassificationData, SegmentationData
from drn_jax.data.dataset import Source
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.errors import UserError
from drn_jax.evaluation import crops as classification
from drn_jax.evaluation import full_resolution, scores
from drn_jax.evaluation.boundary import BoundaryF
from drn_jax.evaluation.crops import Crops
from drn_jax.evaluation.pixels import PUBLISHED, PixelScores, Scales
from drn_jax.evaluation.results import Outcome, unless
from drn_jax.experiment import Experiment
from drn_jax.report import ClassRow, Table, console
from drn_jax.training.evaluate import Totals
from drn_jax.training.steps import Variables


def as_trained(run: Experiment, mesh: Mesh, variables: Variables) -> Outcome:
    """The validation of training once more: one centre crop, or whole images at one scale."""
    began = time.perf_counter()
    totals = program.validator(run, mesh)(variables)
    predict = program.predictor(run, variables, mesh)
    count = len(run.dataset.validation)
    panels = [run_report.panel(run, predict, index) for index in run_report.spread(count)]
    seconds = time.perf_counter() - began
    if isinstance(run.config.data, ClassificationData):
        data = run.config.data
        protocol = {"name": "validation", "resize": data.resize, "crop": data.crop, "crops": 1}
        outcome = _classified(run, totals, protocol, seconds, panels)
    else:
        protocol = {"name": "validation", **_grid(run)}
        loss = {"loss": run.task.scores(totals)["loss"]}
        outcome = _segmented(run, totals, protocol, seconds, panels, loss)
    return replace(outcome, printed=tuple(run.task.scores(totals)), devices=mesh.size)


def cropped(run: Experiment, mesh: Mesh, variables: Variables, crops: Crops) -> Outcome:
    """Classification by one crop or ten."""
    began = time.perf_counter()
    totals = classification.evaluate(run, variables, mesh, crops)
    protocol = {
        "name": "1_crop" if crops.count == 1 else "10_crops" + unless(crops.average, "softmax"),
        "resize": crops.resize,
        "crop": crops.crop,
        "crops": crops.count,
        "average": crops.average,
    }
    outcome = _classified(run, totals, protocol, time.perf_counter() - began, ())
    return replace(outcome, devices=mesh.size)


def at_full_resolution(
    run: Experiment,
    mask_of: PixelScores,
    scales: Scales,
    source: Source,
    split: str,
    boundary: bool,
    each: Callable[[int, np.ndarray], None],
) -> Outcome:
    """Segmentation image by image: one scale or several, mirrored or not, in tiles where images are
    large; optionally with boundaries."""
    began = time.perf_counter()
    classes = len(run.dataset.classes)
    outlines = BoundaryF(classes) if boundary else None
    shown: dict[int, Any] = dict.fromkeys(run_report.spread(len(source)))

    def keep(index: int, mask: np.ndarray) -> None:
        each(index, mask)
        if index in shown:
            shown[index] = mask

    totals = full_resolution.evaluate(
        source,
        mask_of.mask,
        classes,
        outlines,
        keep,
        lambda items, total: console.progress(items, total, "images"),
    )
    seconds = time.perf_counter() - began
    single = scales.scales == (1.0,) and not scales.flip
    protocol = {
        "name": _scaled(scales) + ("_boundary" if boundary else ""),
        "scales": list(scales.scales),
        "flip": scales.flip,
        "combine": None if single else scales.combine,
        **_grid(run),
    }
    extra: dict[str, float] = {}
    values: dict[str, np.ndarray] = {}
    if outlines:
        start = "boundary_"
        sums = {k.removeprefix(start): a for k, a in totals.items() if k.startswith(start)}
        extra = outlines.scores(sums)
        values = {"boundary F": outlines.per_class(sums)}
        protocol["boundary_tolerance"] = outlines.theta
    panels = [run_report.mask_panel(run, source, index, mask) for index, mask in shown.items()]
    return _segmented(run, totals, protocol, seconds, panels, extra, values, split, len(source))


def _scaled(scales: Scales) -> str:
    """The name of a protocol of full resolution."""
    if scales.scales == (1.0,):
        name = "full_resolution"
    elif scales.scales == PUBLISHED.scales:
        name = "multi_scale"
    else:
        name = "scales_" + "_".join(f"{scale:g}" for scale in scales.scales)
    return name + ("_flip" if scales.flip else "") + unless(scales.combine, "log_probabilities")


def _classified(
    run: Experiment,
    totals: Totals,
    protocol: Mapping[str, Any],
    seconds: float,
    panels: Any,
) -> Outcome:
    found = run.task.scores(totals)
    return Outcome(
        protocol=protocol,
        scores={name: found[name] for name in ("top1", "top5", "loss")},
        per_class=run_report.class_rows(run, totals),
        split="validation",
        images=int(totals["count"]),
        seconds=seconds,
        panels=panels,
        heat="probability of the predicted class" if panels else "",
    )


def _segmented(
    run: Experiment,
    totals: Totals,
    protocol: Mapping[str, Any],
    seconds: float,
    panels: Any,
    extra: Mapping[str, float],
    values: Mapping[str, np.ndarray] | None = None,
    split: str = "validation",
    images: int = 0,
) -> Outcome:
    matrix = totals["confusion"]
    categories = _categories(run, matrix)
    found = scores.summary(matrix)
    if categories:
        found["category_miou"] = float(np.nanmean(list(categories.values())))
    columns = scores.per_class(matrix)
    more = {"recall": columns["recall"], "precision": columns["precision"], **(values or {})}
    rows = [
        ClassRow(row.name, row.color, {**row.values, **{k: float(v[i]) for k, v in more.items()}})
        for i, row in enumerate(run_report.class_rows(run, totals))
    ]
    tables = ()
    if categories:
        shown = [(name, f"{iou:.2%}") for name, iou in categories.items()]
        tables = (Table("Categories", ("category", "IoU"), shown),)
    return Outcome(
        protocol=protocol,
        scores={**found, **extra},
        per_class=rows,
        split=split,
        images=images or len(run.dataset.validation),
        seconds=seconds,
        details={"confusion": matrix.tolist(), "categories": categories},
        panels=panels,
        tables=tables,
    )


def _categories(run: Experiment, matrix: np.ndarray) -> dict[str, float]:
    """IoU of the groups of classes; of all sets here Cityscapes alone has groups."""
    if run.dataset.classes != CITYSCAPES.names:
        return {}
    return dict(scores.category_iou(matrix, CITYSCAPES))


def _grid(run: Experiment) -> dict[str, Any]:
    """How the class map lies on the image."""
    data = run.config.data
    if isinstance(data, ClassificationData):
        raise UserError("this protocol is for segmentation; the run is a classifier")
    grid = asdict(data.grid)
    del grid["loss_at"]  # Of training.
    upsampled = isinstance(data, SegmentationData) and getattr(run.model, "upsampling", 0)
    return {"upsampling": "by the network"} if upsampled else grid
