"""The protocols by which eval.py judges a checkpoint, each to one `Outcome`."""

import math
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
from drn_jax.evaluation import boxed, full_resolution, localise, scores
from drn_jax.evaluation import crops as classification
from drn_jax.evaluation.boundary import BoundaryF
from drn_jax.evaluation.crops import Crops
from drn_jax.evaluation.localisation import Localisation
from drn_jax.evaluation.pixels import PUBLISHED, PixelScores, Scales
from drn_jax.evaluation.results import Outcome
from drn_jax.experiment import Experiment
from drn_jax.report import ClassRow, Panel, Table, console, curves, pictures
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
        "name": "1_crop" if crops.count == 1 else "10_crops" + _unless(crops.average, "softmax"),
        "resize": crops.resize,
        "crop": crops.crop,
        "crops": crops.count,
        "average": crops.average,
    }
    outcome = _classified(run, totals, protocol, time.perf_counter() - began, ())
    return replace(outcome, devices=mesh.size)


def localised(
    run: Experiment, mesh: Mesh, variables: Variables, crops: Crops, protocol: Localisation
) -> Outcome:
    """Weakly supervised localisation, see `localise`."""
    began = time.perf_counter()
    report = localise.report(run, variables, mesh, crops, protocol)
    found = report.as_json()
    chosen = found["chosen"]
    given = protocol.threshold
    name = "localisation"
    if crops.count == 10:
        name += "_10_crops" + _unless(crops.average, "softmax", "averaged_")
    name += _unless(protocol.map, "softmax")
    name += _unless(protocol.image, "crop") + ("" if given is None else f"_above_{given:g}")
    named = {
        "name": name,
        "resize": crops.resize,
        "crop": crops.crop,
        "crops": crops.count,
        "average": crops.average,
        "map": protocol.map,
        "map_of": protocol.image,
        "iou_above": protocol.iou,
        "threshold": "tuned" if given is None else given,
        **_tuning(run, report),
        "cell": "stride * k to stride * (k + 1) pixels of what the map is of",
        "empty_mask": "whole image",
        "images_without_box": f"{report.curves.left_out} left out",
    }
    headline = {
        "localisation_top1_error": chosen["top1_error"],
        "localisation_top5_error": chosen["top5_error"],
        "gt_known": chosen["gt_known"],
        "oracle_top1_error": found["oracle"]["top1_error"],
        "max_box_acc": found["max_box_acc"]["mean"],
        "top1": report.curves.top1,
        "top5": report.curves.top5,
    }
    return Outcome(
        protocol=named,
        scores=headline,
        per_class=_localised_classes(run, report),
        split="validation",
        images=report.curves.count,
        seconds=time.perf_counter() - began,
        devices=mesh.size,
        details=found,
        curves=_localisation_curves(report),
        curves_title="Error against the threshold",
        tables=(_localisation_table(found, given is not None),),
        panels=_boxed_panels(run, mesh, variables, crops, protocol, chosen["threshold"]),
        heat="probability of the predicted class",
    )


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
    return name + ("_flip" if scales.flip else "") + _unless(scales.combine, "log_probabilities")


def _unless(choice: str, default: str, before: str = "") -> str:
    """What a choice adds to the name of a protocol; its default nothing."""
    return "" if choice == default else f"_{before}{choice}"


def _tuning(run: Experiment, report: localise.Report) -> dict[str, Any]:
    """What the threshold was chosen on."""
    if report.tuning is None:
        return {}
    kept = run.dataset.held_out is not None
    return {
        "tuned_on": "images held out from training" if kept else "training images",
        "tuning_images": report.tuning.count,
    }


def _localised_classes(run: Experiment, report: localise.Report) -> list[ClassRow]:
    found, at = report.curves, report.chosen
    shares = found.class_localised[:, at], found.class_known[:, at]
    rows = []
    for i, (name, count) in enumerate(zip(run.dataset.classes, found.class_count, strict=True)):
        right, known = (float(share[i]) / count if count else None for share in shares)
        values = {"images": int(count), "class and box right": right, "box right": known}
        rows.append(ClassRow(name, None, values))
    return rows


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


def _localisation_curves(report: localise.Report) -> str:
    found = report.curves
    # The last is a number above all, at which every box is the whole image.
    places = [*found.thresholds[:-1].tolist(), math.nan]
    errors = {
        "top-1 error": (places, (100 * found.top1_error).tolist()),
        "top-5 error": (places, (100 * found.top5_error).tolist()),
        "wrong box of the true class": (places, (100 * (1 - found.gt_known)).tolist()),
    }
    if report.tuning is not None:
        tuning = (100 * report.tuning.top1_error).tolist()
        errors["top-1 error, tuning images"] = (places, tuning)
    accuracies = {
        f"overlap {delta:g}": (localise.SCORE_THRESHOLDS.tolist(), (100 * row).tolist())
        for delta, row in zip(localise.DELTAS, found.box_accuracy, strict=True)
    }
    return "\n".join(
        (
            curves.lines("errors", "Localisation error", "threshold t", "error (%)", errors),
            curves.lines("boxes", "MaxBoxAcc", "threshold", "box accuracy (%)", accuracies),
        )
    )


def _localisation_table(found: Mapping[str, Any], given: bool) -> Table:
    chosen = "t as given" if given else "t of the tuning images"
    rows = []
    for key, words in (
        ("chosen", chosen),
        ("oracle", "best t on these images"),
        ("unthresholded", "no t"),
        ("whole_image", "whole images as boxes"),
    ):
        at = found[key]
        t = "" if key == "whole_image" else _threshold(at["threshold"])
        shares = (f"{at[name]:.2%}" for name in ("top1_error", "top5_error", "gt_known"))
        rows.append((words, t, *shares))
    boxes = ", ".join(f"{acc:.2%} at {name}" for name, acc in found["max_box_acc"].items())
    columns = ("threshold", "t", "top-1 error", "top-5 error", "GT-known accuracy")
    return Table(
        "Localisation", columns, rows, (f"MaxBoxAcc: {boxes.replace('at mean', 'mean')}.",)
    )


def _threshold(t: float | None) -> str:
    """t in words; those of saturated probabilities by how much 1 is above."""
    if t is None:
        return "none"
    if t >= np.finfo(np.float32).max:
        return "above all"
    return f"1 - {1 - t:.1g}" if 0.999 <= t < 1 else f"{t:.4g}"


def _boxed_panels(
    run: Experiment,
    mesh: Mesh,
    variables: Variables,
    crops: Crops,
    protocol: Localisation,
    threshold: float | None,
) -> list[Panel]:
    """Images with the true box, the predicted one, and the map that it was read from."""
    names, shown = run.dataset.classes, []
    here = program.here(variables, mesh)
    indices = run_report.spread(len(run.dataset.validation))
    for one in boxed.of_images(run, here, crops, protocol, threshold, indices):
        factor = max(1, -(-run_report.ENLARGED // min(one.image.shape[:2])))
        large = pictures.enlarge(one.image, factor * min(one.image.shape[:2]))
        drawn = large
        for box, color in ((one.box, (217, 112, 44)), *((b, (58, 157, 110)) for b in one.truth)):
            drawn = pictures.draw_box(drawn, factor * np.asarray(box), color, max(2, factor))
        right = one.predicted == one.label and one.overlap > protocol.iou
        caption = (
            f"{names[one.label]}, predicted {names[one.predicted]} "
            f"({one.probability:.0%}), overlap {one.overlap:.0%}"
        )
        crop = pictures.enlarge(one.crop, run_report.ENLARGED)
        times = len(crop) // len(one.crop)
        heat = pictures.class_map(crop, one.map, times * run.stride)
        images = [
            ("true box green, predicted orange", drawn),
            (f"where it sees {names[one.predicted]}", heat),
        ]
        shown.append(Panel(caption, right, images))
    return shown
