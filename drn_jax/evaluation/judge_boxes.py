"""The protocol of localisation by which eval.py judges a classifier, to one `Outcome`."""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from drn_jax import program, run_report
from drn_jax.evaluation import boxed, localise
from drn_jax.evaluation.crops import Crops
from drn_jax.evaluation.localisation import Localisation
from drn_jax.evaluation.results import Outcome, unless
from drn_jax.experiment import Experiment
from drn_jax.report import ClassRow, Panel, Table, curves, pictures
from drn_jax.training.steps import Variables


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
        name += "_10_crops" + unless(crops.average, "softmax", "averaged_")
    name += unless(protocol.map, "softmax")
    name += unless(protocol.image, "crop") + ("" if given is None else f"_above_{given:g}")
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
        per_class=_class_rows(run, report),
        split="validation",
        images=report.curves.count,
        seconds=time.perf_counter() - began,
        devices=mesh.size,
        details=found,
        curves=_curves(report),
        curves_title="Error against the threshold",
        tables=(_table(found, given is not None),),
        panels=_panels(run, mesh, variables, crops, protocol, chosen["threshold"]),
        heat="probability of the predicted class",
    )


def _tuning(run: Experiment, report: localise.Report) -> dict[str, Any]:
    """What the threshold was chosen on."""
    if report.tuning is None:
        return {}
    kept = run.dataset.held_out is not None
    return {
        "tuned_on": "images held out from training" if kept else "training images",
        "tuning_images": report.tuning.count,
    }


def _class_rows(run: Experiment, report: localise.Report) -> list[ClassRow]:
    found, at = report.curves, report.chosen
    shares = found.class_localised[:, at], found.class_known[:, at]
    rows = []
    for i, (name, count) in enumerate(zip(run.dataset.classes, found.class_count, strict=True)):
        right, known = (float(share[i]) / count if count else None for share in shares)
        values = {"images": int(count), "class and box right": right, "box right": known}
        rows.append(ClassRow(name, None, values))
    return rows


def _curves(report: localise.Report) -> str:
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


def _table(found: Mapping[str, Any], given: bool) -> Table:
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


def _panels(
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
