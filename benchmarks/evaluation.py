"""Seconds an image for segmentation at full resolution, at one scale or as published at six.

    python benchmarks/evaluation.py [--model NAME] [--size HxW] [--scales 1 0.5 ... | --published]
        [--flip] [--windows whole|default|GB] [--images N] [--json FILE]

The network has random weights, and the images are noise: neither changes the time. An image's time
runs from its pixels on the host to its mask there. The first image pays for compilation: what it
takes more than the median of the others is given as that. "whole" windows hold the image at every
scale in one piece, as the published evaluation does; "default" are those of `dense.default_sides`,
for images of all sizes; a number, those for so many GB of activations (`dense.for_memory`).
"""

import argparse
import importlib.metadata
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from drn_jax import models
from drn_jax.evaluation import dense
from drn_jax.evaluation.dense import ClassMaps, Side
from drn_jax.evaluation.pixels import PUBLISHED, PixelScores, Scales, scaled
from drn_jax.models.context import ContextModule
from drn_jax.models.stages import output_stride
from drn_jax.tasks import Segmentation
from drn_jax.training import memory

CLASSES = 19
"""Cityscapes'."""


def scorer(
    name: str, size: tuple[int, int], scales: Scales, kind: str, batch: int, **options: Any
) -> PixelScores:
    """Of a network with random weights; `options` as for `models.create`."""
    model = models.create(name, CLASSES, **options)
    if isinstance(model, ContextModule):
        raise SystemExit(f"{name} takes maps, not images")
    known = {key: value for key, value in options.items() if key not in ("width", "dtype")}
    preprocess = models.preprocessing(name, **known)
    small = jnp.zeros((1, *(max(64, 1 + 2 * preprocess.margin),) * 2, 3))
    variables = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"), small)
    rows = models.rows_of(model)
    sides: tuple[Side, ...]
    if kind == "whole":
        sides = tuple(scaled(size, scale) for scale in scales.scales)
    elif kind == "default":
        sides = dense.default_sides(rows, preprocess.margin)
    else:
        sides = dense.for_memory(rows, float(kind), preprocess.margin, batch)
    maps = ClassMaps(model, preprocess, variables, sides, batch)
    return PixelScores(maps, Segmentation(CLASSES, output_stride(model.stages)), scales)


def measured(pixels: PixelScores, size: tuple[int, int], images: int) -> dict[str, Any]:
    """Times of masks of `images` images behind the first."""
    rng, seconds = np.random.default_rng(0), []
    for _ in range(images + 1):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        start = time.perf_counter()
        pixels.mask(image)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[1:])
    pieces = [len(pixels.class_maps.pieces(*scaled(size, scale))) for scale in pixels.scales.scales]
    return {
        "seconds_an_image": median,
        "rounds": seconds[1:],
        "images_per_second": 1 / median,
        "compile_seconds": max(0.0, seconds[0] - median),
        "programs": pixels.compiled,
        "windows_an_image": sum(pieces) * (1 + pixels.scales.flip),
        "peak_gb": memory.peak_gb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="drn_d_22")
    parser.add_argument("--width", type=float, default=1.0, help="of the network")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--size", default="1024x2048", help="of the images, HEIGHTxWIDTH")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    parser.add_argument("--published", action="store_true", help="the six scales of fyu/drn")
    parser.add_argument("--flip", action="store_true", help="the mirror image too")
    parser.add_argument("--windows", default="whole", help="whole, default, or gigabytes")
    parser.add_argument("--batch", type=int, default=1, help="windows at a time")
    parser.add_argument("--images", type=int, default=3, help="to time")
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()

    height, width = (int(side) for side in arguments.size.split("x"))
    factors = PUBLISHED.scales if arguments.published else tuple(arguments.scales)
    options = {"width": arguments.width, "dtype": jnp.dtype(arguments.dtype)}
    pixels = scorer(
        arguments.model,
        (height, width),
        Scales(factors, arguments.flip),
        arguments.windows,
        arguments.batch,
        **options,
    )
    found = measured(pixels, (height, width), arguments.images)
    report = {
        "model": arguments.model,
        "width": arguments.width,
        "dtype": arguments.dtype,
        "size": [height, width],
        "scales": factors,
        "flip": arguments.flip,
        "windows": [list(side) for side in pixels.class_maps.sides],
        "batch": arguments.batch,
        "device": jax.devices()[0].device_kind,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "numpy")},
        **found,
    }
    table = Table("", title=f"masks on {report['device']}")
    table.add_column(f"{arguments.model}, {arguments.size}")
    table.add_row("scales", " ".join(f"{s:g}" for s in factors) + ", mirrored" * arguments.flip)
    table.add_row("s/image", f"{found['seconds_an_image']:.3f}")
    table.add_row("images/s", f"{found['images_per_second']:.2f}")
    table.add_row("compilation, s", f"{found['compile_seconds']:.1f}")
    table.add_row("programs", str(found["programs"]))
    table.add_row("windows an image", str(found["windows_an_image"]))
    table.add_row("peak memory, GB", f"{found['peak_gb']:.2f}")
    Console().print(table)
    print(json.dumps(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
