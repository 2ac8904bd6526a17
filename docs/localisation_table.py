"""Draw the table and the curves of docs/localisation.md.

    python docs/localisation_table.py digits RUN... [--out docs/localisation_digits.png]

RUN are working directories in which `eval.py --localise` left its results.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

COLUMNS = ("chosen", "oracle", "unthresholded", "whole_image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("title", help="of the picture")
    parser.add_argument("runs", nargs="+", help="working directories")
    parser.add_argument("--protocol", default="localisation", help="folder below RUN/eval")
    parser.add_argument("--out", default="", help="the picture")
    arguments = parser.parse_args()
    found = [
        json.loads((Path(run) / "eval" / arguments.protocol / "results.json").read_text())
        for run in arguments.runs
    ]
    for one in found:
        print(row(one))
    if arguments.out:
        draw(arguments.title, found, arguments.out)


def row(one: dict[str, Any]) -> str:
    """A row of the table, all in %: top-1 accuracy, t, errors (top-1 / top-5) at `COLUMNS`, boxes
    right without t among the images of the right class, MaxBoxAcc."""
    details, scores = one["details"], one["scores"]
    cells = [f"`{one['config']['model']['name']}`", f"{100 * scores['top1']:.2f}"]
    for name in COLUMNS:
        at = details[name]
        cells.append(f"{100 * at['top1_error']:.2f} / {100 * at['top5_error']:.2f}")
    right = 1 - details["unthresholded"]["top1_error"]
    cells.append(f"{100 * right / scores['top1']:.1f}")
    boxes = details["max_box_acc"]
    cells.append(" / ".join(f"{100 * boxes[key]:.1f}" for key in ("0.3", "0.5", "0.7", "mean")))
    t = details["chosen"]["threshold"]
    near = t is not None and 0.999 <= t < 1
    cells.insert(2, "none" if t is None else f"1 - {1 - t:.1g}" if near else f"{t:.4g}")
    return f"| {' | '.join(cells)} |"


def draw(title: str, found: list[dict[str, Any]], out: str) -> None:
    """Errors over t, where 1 - t is drawn by its logarithm: the maps are saturated."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for one in found:
        curves, name = one["details"]["curves"], one["config"]["model"]["name"]
        t = np.array([-1 if x is None else x for x in curves["thresholds"]])
        kept = (t >= 0) & (t < 1)
        for side, key in zip(axes, ("top1_error", "gt_known"), strict=True):
            values = np.array(curves[key])[kept]
            values = 100 * (values if key == "top1_error" else 1 - values)
            side.plot(-np.log10(1 - t[kept]), values, label=name, linewidth=1.4)
    for side, label in zip(
        axes, ("top-1 error (%)", "wrong box of the true class (%)"), strict=True
    ):
        side.set(xlabel="threshold t", ylabel=label)
        named = {0: "0", 1: "0.9", 2: "0.99", **{k: f"$1-10^{{-{k}}}$" for k in (3, 5, 7)}}
        side.set_xticks(list(named), list(named.values()))
        side.tick_params(axis="x", labelsize=8)
        side.grid(alpha=0.2)
        side.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main()
