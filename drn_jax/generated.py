"""Scores for generated images: mean IoU and pixel accuracy of a trained network's answers.

    python -m drn_jax.generated --workdir RUN --out DIR --images FOLDER \\
        --labels_dir FOLDER --labels labelIds

RUN is the working directory of train.py, or of python -m drn_jax.convert. Each image is segmented
and scored against the label map of its name, found at any depth: what is left of the file's name
without its ending and _leftImg8bit, _gtFine_labelIds, _synthesized_image, _fake_B and the like. The
scores are printed and written to DIR/results.json, with every choice that changes them. Published
papers choose differently, and often do not say what:

    --resolution   the size at which the network sees the images: label (default), that of the
                   label map, as in pix2pix and where SPADE's scores were reproduced; image, the
                   generated one, as in OASIS and CLADE (256x512); or HxW, 128x256 in CUT and NEGCUT
    --resize       the filter by which they get that size
    --score_at     label (default): predictions are resized to the label map's size; seen: the label
                   map is resized to the size that the network saw, as in OASIS and CLADE. Both by
                   nearest neighbour: neither is ever interpolated.
    --scales       1 (default), or published, the six of what fyu/drn calls --ms

Score real images the same way, too: theirs is the ceiling.
"""

import argparse
import json
import re
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

from drn_jax import cli
from drn_jax.errors import UserError

if TYPE_CHECKING:
    from drn_jax.evaluation.generated import Protocol
    from drn_jax.evaluation.pixels import Scales
    from drn_jax.trained import Trained


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m drn_jax.generated",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workdir", required=True, help="of a run, or of converted weights")
    parser.add_argument("--checkpoint", default="best", help="best (default), latest, or a step")
    parser.add_argument(
        "--data_dir", default="", help="the data set, where a checkpoint does not tell its classes"
    )
    parser.add_argument("--images", required=True, help="the folder of the generated images")
    parser.add_argument("--labels_dir", required=True, help="the folder of their label maps")
    parser.add_argument(
        "--labels",
        required=True,
        choices=("trainIds", "labelIds", "colors", "ids"),
        metavar="KIND",
        help="what the label maps hold: Cityscapes' trainIds, labelIds or colors; or ids, the "
        "network's own class ids, 255 ignored",
    )
    parser.add_argument("--out", required=True, help="folder of results.json")
    parser.add_argument("--resolution", default="label", help="label (default), image, or HxW")
    parser.add_argument(
        "--resize",
        default="bicubic",
        choices=("nearest", "bilinear", "bicubic", "lanczos"),
        metavar="FILTER",
        help="nearest, bilinear, bicubic (default) or lanczos, as in PIL",
    )
    parser.add_argument("--score_at", default="label", choices=("label", "seen"), metavar="SIZE")
    parser.add_argument("--scales", default="1", help="of the seen image, with commas; default 1")
    parser.add_argument("--flip", action="store_true", help="answer for the mirrored image, too")
    parser.add_argument(
        "--image_ending", default="", help="take only images whose names end so: _fake.png"
    )
    parser.add_argument("--label_ending", default="", help="likewise for label maps")
    parser.add_argument(
        "--partial", action="store_true", help="leave out what has no partner, and go on"
    )
    arguments = parser.parse_args()
    try:
        run(arguments)
    except UserError as error:
        cli.fail(str(error))
    except KeyboardInterrupt:
        print("stopped")
        sys.exit(130)


def run(arguments: argparse.Namespace) -> None:
    """Score, print, write. Raises: UserError for whatever can't be, before anything is computed
    where that can be told."""
    # A second that --help need not wait for.
    from drn_jax import places, runtime, trained
    from drn_jax.data.files import folder_files, require_folder
    from drn_jax.evaluation import generated
    from drn_jax.evaluation.cityscapes import require_classes
    from drn_jax.evaluation.dense import ClassMaps
    from drn_jax.evaluation.pixels import PixelScores, Scales, factors
    from drn_jax.report import console
    from drn_jax.tasks import Segmentation

    start = time.monotonic()
    protocol = generated.Protocol(
        _resolution(arguments.resolution), arguments.resize, arguments.score_at
    )
    scales = Scales(factors(arguments.scales), arguments.flip)
    for folder in (arguments.images, arguments.labels_dir):
        require_folder(folder)
    images, labels = folder_files(arguments.images), folder_files(arguments.labels_dir)
    endings = arguments.image_ending, arguments.label_ending
    matched = generated.match(images, labels, arguments.labels, endings, arguments.partial)
    named = matched.pairs
    for what, count in zip(("image", "label map"), matched.passed_over, strict=True):
        if count:
            console.say(f"{what}s: passed over {count} with another ending than the rest")
    runtime.keep_compiled()
    network = trained.load(arguments.workdir, arguments.checkpoint, arguments.data_dir)
    if not isinstance(network.task, Segmentation):
        raise UserError(
            f"--workdir={arguments.workdir}: holds a classifier; name a run of segmentation"
        )
    if arguments.labels != "ids":
        require_classes(network.classes)
    maps = ClassMaps(network.model, network.preprocess, network.variables)
    pairs = generated.read_pairs(
        images, labels, named, generated.decoder(arguments.labels, len(network.classes))
    )
    found = generated.score(
        console.progress(pairs, len(named), "scoring"),
        PixelScores(maps, network.task, scales).mask,
        len(network.classes),
        protocol,
        lambda index: images.where(named[index][0]),
    )
    choices = _choices(arguments, protocol, scales)
    choices["left_out"] = dict(zip(("images", "label_maps"), matched.alone, strict=True))
    choices["passed_over"] = dict(zip(("images", "label_maps"), matched.passed_over, strict=True))
    results = _results(arguments, network, found, choices, time.monotonic() - start)
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    try:
        places.write(places.join(arguments.out, "results.json"), text.encode())
    except OSError as error:
        raise UserError(
            f"--out={arguments.out}: cannot be written to ({error.strerror})"
        ) from error
    _print(results)


def _resolution(text: str) -> Any:
    """(height, width), "label" or "image"."""
    if text in ("label", "image"):
        return text
    size = re.fullmatch(r"(\d+)x(\d+)", text)
    if size is None or not min(int(size[1]), int(size[2])):
        raise UserError(f"--resolution={text}: must be label, image, or HEIGHTxWIDTH like 256x512")
    return int(size[1]), int(size[2])


def _choices(
    arguments: argparse.Namespace, protocol: "Protocol", scales: "Scales"
) -> dict[str, Any]:
    """All that changes a number."""
    single = scales.scales == (1.0,) and not scales.flip
    return {
        "name": "generated images",
        **protocol.as_json(),
        "labels": arguments.labels,
        "scales": list(scales.scales),
        "flip": scales.flip,
        "combine": None if single else scales.combine,
        "image_ending": arguments.image_ending,
        "label_ending": arguments.label_ending,
        "partial": arguments.partial,
    }


def _results(
    arguments: argparse.Namespace,
    network: "Trained",
    found: dict[str, Any],
    choices: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """The content of results.json."""
    from drn_jax.data.labels.cityscapes import CITYSCAPES
    from drn_jax.data.sources import by
    from drn_jax.evaluation import scores
    from drn_jax.evaluation.results import computed_by

    matrix = found["confusion"]
    details: dict[str, Any] = {
        "sizes": [
            {**dict(zip(("image", "seen", "scored"), map(by, sizes), strict=True)), "images": count}
            for sizes, count in found["sizes"].items()
        ],
        "confusion": matrix.tolist(),
    }
    if network.classes == CITYSCAPES.names:
        categories = scores.category_iou(matrix, CITYSCAPES)
        details["categories"] = {name: _number(value) for name, value in categories.items()}
    columns = scores.per_class(matrix)
    return {
        "model": f"{network.config.model.name}, width {network.config.model.width:g}",
        "data": {"images": found["images"]},
        "inputs": {"images": arguments.images, "labels": arguments.labels_dir},
        "protocol": choices,
        "scores": found["scores"],
        "per_class": [
            {
                "class": name,
                "pixels": int(matrix[i].sum()),
                **{key: _number(column[i]) for key, column in columns.items()},
            }
            for i, name in enumerate(network.classes)
        ],
        "details": details,
        # No checkpoint of what is judged: several generators may have one judge.
        "judge": {
            "workdir": arguments.workdir,
            "step": network.step,
            "sha256": network.digest,
        },
        **computed_by(),
        "seconds": round(seconds, 3),
        "command": shlex.join(["python", "-m", "drn_jax.generated", *sys.argv[1:]]),
    }


def _number(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return None if value != value else float(value)


def _print(results: dict[str, Any]) -> None:
    from drn_jax.report import console
    from drn_jax.report.html import ClassRow

    def shown(value: float | None) -> float:
        return float("nan") if value is None else value

    console.class_table(
        [
            ClassRow(
                row["class"],
                None,
                {
                    "pixels": row["pixels"],
                    "IoU": shown(row["iou"]),
                    "recall": shown(row["recall"]),
                    "precision": shown(row["precision"]),
                },
            )
            for row in results["per_class"]
        ]
    )
    for row in results["details"]["sizes"]:
        console.say(
            f"{console.counted(row['images'], 'image')} of {row['image']}, "
            f"seen at {row['seen']}, scored at {row['scored']}"
        )
    choices = results["protocol"]
    scales = ", ".join(f"{scale:g}" for scale in choices["scales"])
    console.say(
        f"resized by {choices['resize']}; scales {scales}{', flipped' * choices['flip']}; "
        f"label maps hold {choices['labels']}"
    )
    console.say("  ".join(f"{name} {value:.4f}" for name, value in results["scores"].items()))


if __name__ == "__main__":
    main()
