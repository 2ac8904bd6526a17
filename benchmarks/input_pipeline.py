"""Images a second from files to batches: ours beside the PyTorch pipeline of fyu/drn.

    python benchmarks/input_pipeline.py [--images N] [--seconds S] [--fast] [--memory] [--json FILE]

Two recipes, on images made for the purpose in a temporary directory:
  ImageNet    JPEG 500x375, random resized crop 224, flip
  Cityscapes  PNG 2048x1024 with its mask, rotate 10, scale 2, crop 840, flip (DRN-D-105)
Theirs is written here as fyu/drn's code has it (torch's DataLoader, PIL in worker processes; images
padded threefold before they are turned, resized whole) and ends with normalised floats. Ours ends
with uint8: the device normalises. First it is checked that both make the same pixels of the same
draws. Then each side tries threads and processes within the number of cores, takes its best, and
the sides are measured in turn, each time in a process of its own. Without torch: ours alone.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from drn_jax.data.dataset import Example
from drn_jax.data.fast import FastRandomResizedCrop, FastRotateScaleCrop
from drn_jax.data.image import decode_mask, decode_rgb, read_bytes
from drn_jax.data.loader import training_batches
from drn_jax.data.reading import Reading
from drn_jax.data.transforms import (
    Compose,
    RandomFlip,
    RandomResizedCrop,
    resized_crop_window,
    size_of,
)
from drn_jax.data.windowed import RotateScaleCrop

CORES = len(os.sched_getaffinity(0))
ROUNDS = 3
BATCH = {"ImageNet": 32, "Cityscapes": 4}
IMAGES = {"ImageNet": 256, "Cityscapes": 16}
EPOCH = 10_000
"""Examples a set claims to have, by repetition: the start of an epoch costs grain some 20 ms."""
MEAN, STD = (0.29, 0.33, 0.29), (0.18, 0.19, 0.18)


# Images


def make_images(folder: Path, recipe: str, count: int) -> None:
    """Writes 000.jpg or 000.png with 000_mask.png, and so on."""
    for number in range(count):
        rng = np.random.default_rng(number)
        if recipe == "ImageNet":
            scene(rng, 375, 500, 1.1)[0].save(folder / f"{number:03}.jpg", quality=90)
        else:
            image, mask = scene(rng, 1024, 2048, 1.6)
            image.save(folder / f"{number:03}.png", compress_level=6)
            mask.save(folder / f"{number:03}_mask.png")


def scene(
    rng: np.random.Generator, height: int, width: int, fading: float
) -> tuple[Image.Image, Image.Image]:
    """Shapes with edges, a class id each, and noise of all sizes on them, each octave fainter than
    the coarser one by `fading`: chosen so that files are as large as those of the real sets."""
    noise = np.zeros((height, width, 3), np.float32)
    for octave in range(int(math.log2(height))):
        side = 2 << octave
        cells = rng.normal(0, 40 / fading**octave, (side, 2 * side, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(cells[..., channel])
            noise[..., channel] += np.asarray(
                plane.resize((width, height), Image.Resampling.BICUBIC)
            )
    shapes, mask = Image.new("RGB", (width, height), "gray"), Image.new("L", (width, height))
    for _ in range(40):
        x, y = rng.uniform(-0.1, 1, 2) * (width, height)
        w, h = rng.uniform(0.03, 0.3, 2) * (width, height)
        color, name = tuple(int(v) for v in rng.integers(40, 216, 3)), int(rng.integers(0, 19))
        for canvas, fill in ((shapes, color), (mask, name)):
            draw = ImageDraw.Draw(canvas)
            (draw.ellipse if name % 2 else draw.rectangle)((x, y, x + w, y + h), fill=fill)
    # Structure from both: the shapes' colours, and the noise on them.
    pixels = np.clip(np.asarray(shapes) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels), mask


def image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if not file.stem.endswith("_mask"))


def epoch(folder: Path) -> list[Path]:
    files = image_files(folder)
    return files * -(-EPOCH // len(files))


def mask_file(image: Path) -> Path:
    return image.with_name(f"{image.stem}_mask.png")


# Ours


@dataclass(frozen=True)
class Files:
    """Images with labels or masks."""

    images: list[Path]
    recipe: str

    def __len__(self) -> int:
        return len(self.images)

    def where(self, index: int) -> str:
        return str(self.images[index])

    def __getitem__(self, index: int) -> Example:
        path = self.images[index]
        image = decode_rgb(read_bytes(path), str(path))
        if self.recipe == "ImageNet":
            return {"image": image, "label": np.array(index % 1000, np.int32)}
        mask = mask_file(path)
        return {"image": image, "mask": decode_mask(read_bytes(mask), str(mask))}


def our_crop(recipe: str, fast: bool = False) -> Callable[[Example, np.random.Generator], Example]:
    if recipe == "ImageNet":
        return FastRandomResizedCrop(224) if fast else RandomResizedCrop(224)
    return (FastRotateScaleCrop if fast else RotateScaleCrop)((840, 840), 2.0, 10)


def our_batches(recipe: str, folder: Path, reading: Reading, fast: bool) -> Iterator[Any]:
    return training_batches(
        Files(epoch(folder), recipe),
        ("image", "label" if recipe == "ImageNet" else "mask"),
        batch_size=BATCH[recipe],
        seed=0,
        augment=Compose((our_crop(recipe, fast), RandomFlip())),
        reading=reading,
    )


# Theirs


class TheirFiles:
    """A map-style data set of tensors; draws from `random`, as theirs does."""

    def __init__(self, images: list[Path], recipe: str):
        self.images, self.recipe = images, recipe

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import torch

        path = self.images[index]
        image = Image.open(path).convert("RGB")
        if self.recipe == "ImageNet":
            draws: Any = _Drawn()
            window = resized_crop_window(
                image.height, image.width, (0.08, 1.0), (3 / 4, 4 / 3), draws
            )
            image = their_resized_crop(image, window)
            mirror, label = random.random() < 0.5, index % 1000
        else:
            degrees, ratio = random.randint(-10, 10), random.uniform(0.5, 2.0)
            width, height = (int(side * ratio) for side in image.size)
            image, mask = their_turned_and_scaled(
                image, Image.open(mask_file(path)), degrees, (height, width), ratio < 1
            )
            top, left = (random.randint(0, max(0, side - 840)) for side in (height, width))
            image, mask = their_crop(image, mask, top, left)
            mirror = random.random() < 0.5
            if mirror:
                mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            label = torch.from_numpy(np.array(mask)).long()
        if mirror:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
        mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
        return tensor.sub_(mean).div_(std), label


class _Drawn:
    """`random` in the clothes of NumPy's generator."""

    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)

    def integers(self, high: int) -> int:
        return random.randrange(high)


def their_resized_crop(image: Image.Image, window: tuple[int, int, int, int]) -> Image.Image:
    top, left, height, width = window
    cut = image.crop((left, top, left + width, top + height))
    return cut.resize((224, 224), Image.Resampling.BILINEAR)


def their_turned_and_scaled(
    image: Image.Image, mask: Image.Image, degrees: int, size: tuple[int, int], shrink: bool
) -> tuple[Image.Image, Image.Image]:
    """Padded to three times the size, turned, cut out; then resized whole to (height, width)."""
    width, height = image.size
    window = width, height, 2 * width, 2 * height
    padded = their_padding(np.array(image), height, height, width, width)
    image = Image.fromarray(padded).rotate(degrees, Image.Resampling.BILINEAR).crop(window)
    padded = np.pad(np.array(mask), ((height, height), (width, width)), constant_values=255)
    mask = Image.fromarray(padded).rotate(degrees, Image.Resampling.NEAREST).crop(window)
    kernel = Image.Resampling.LANCZOS if shrink else Image.Resampling.BICUBIC
    tall, wide = size
    return (
        image.resize((wide, tall), kernel),
        mask.resize((wide, tall), Image.Resampling.NEAREST),
    )


def their_crop(
    image: Image.Image, mask: Image.Image, top: int, left: int
) -> tuple[Image.Image, Image.Image]:
    """A window of 840x840; what is smaller is padded first."""
    tall, wide = max(0, 840 - image.height), max(0, 840 - image.width)
    if tall or wide:
        sides = tall // 2, tall - tall // 2, wide // 2, wide - wide // 2
        image = Image.fromarray(their_padding(np.array(image), *sides))
        margins = (sides[:2], sides[2:])
        mask = Image.fromarray(np.pad(np.array(mask), margins, constant_values=255))
    window = left, top, left + 840, top + 840
    return image.crop(window), mask.crop(window)


def their_padding(image: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Mirrored, without the edge at top and left, with it at bottom and right; what is wider than
    the image in several goes."""
    while top or bottom or left or right:
        above, below = (min(n, image.shape[0] - 1) for n in (top, bottom))
        before, after = (min(n, image.shape[1] - 1) for n in (left, right))
        image = np.pad(image, ((above, 0), (before, 0), (0, 0)), "reflect")
        # What has just been added stays out of the mirror image on the other side: it is narrower.
        image = np.pad(image, ((0, below), (0, after), (0, 0)), "symmetric")
        top, bottom, left, right = top - above, bottom - below, left - before, right - after
    return image


def their_batches(recipe: str, folder: Path, workers: int) -> Iterator[Any]:
    import torch
    from torch.utils.data import DataLoader, RandomSampler

    torch.set_num_threads(1)
    files: Any = TheirFiles(epoch(folder), recipe)
    # Without end: nobody waits for workers to start again.
    sampler = RandomSampler(files, replacement=True, num_samples=10**9)
    batch = BATCH[recipe]
    return iter(DataLoader(files, batch_size=batch, sampler=sampler, num_workers=workers))


# Measuring


@dataclass(frozen=True)
class Side:
    """A pipeline with a setting of its threads and processes."""

    name: str
    threads: int
    workers: int

    def __str__(self) -> str:
        if self.name == "fyu/drn":
            return f"{self.workers} processes"
        return f"{self.workers} processes" if self.workers else f"{self.threads} threads"


def candidates(name: str) -> list[Side]:
    """What a side may try, within the number of cores."""
    workers = sorted({max(1, CORES // 2), max(1, CORES - 1), CORES})
    if name == "fyu/drn":
        return [Side(name, 1, count) for count in workers]
    return [Side(name, CORES, 0), *(Side(name, 1, count) for count in workers if count > 1)]


def images_per_second(side: Side, recipe: str, folder: Path, seconds: float) -> float:
    """Of the batches that arrive after the first few, which were made while all started."""
    if side.name == "fyu/drn":
        batches = their_batches(recipe, folder, side.workers)
    else:
        reading = Reading(threads=side.threads, workers=side.workers)
        batches = our_batches(recipe, folder, reading, side.name == "ours, fast")
    for _ in range(max(4, 2 * CORES)):
        next(batches)
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or not count:
        next(batches)
        count += BATCH[recipe]
    return count / passed


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, from a fresh process that takes its threads and workers with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def check_pixels(recipe: str, folder: Path, draws: int = 20) -> dict[str, float]:
    """Both sides' images of the same draws; AssertionError if a pixel differs."""
    source, agreeing = Files(image_files(folder), recipe), []
    for seed in range(draws):
        example = source[seed % len(source)]
        height, width = size_of(example)
        ours = our_crop(recipe)(example, np.random.default_rng(seed))
        rng, picture = np.random.default_rng(seed), Image.fromarray(example["image"])
        if recipe == "ImageNet":
            window = resized_crop_window(height, width, (0.08, 1.0), (3 / 4, 4 / 3), rng)
            theirs = their_resized_crop(picture, window)
        else:
            drawn = RotateScaleCrop((840, 840), 2.0, 10).draw(height, width, rng)
            size, mask = (drawn.height, drawn.width), Image.fromarray(example["mask"])
            shrink = drawn.kernel == Image.Resampling.LANCZOS
            both = their_turned_and_scaled(picture, mask, drawn.degrees, size, shrink)
            theirs, mask = their_crop(*both, drawn.top, drawn.left)
            agreeing.append(float((np.asarray(mask) == ours["mask"]).mean()))
        np.testing.assert_array_equal(ours["image"], np.asarray(theirs), f"{recipe}, {seed=}")
    return {"draws": draws, "mask_agreement": min(agreeing, default=1.0)}


def memory(folder: Path, total: int = 10_000, every: int = 1_000) -> Iterator[tuple[int, float]]:
    """(images so far, resident MiB) while our loader streams the ImageNet recipe."""
    batches = our_batches("ImageNet", folder, Reading(), fast=False)
    count = reported = 0
    while count < total:
        next(batches)
        count += BATCH["ImageNet"]
        if count // every > reported:
            reported = count // every
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            yield count, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def compare(recipe: str, folder: Path, seconds: float, names: list[str], console: Console) -> dict:
    """The best setting of each side, then `ROUNDS` rounds in turn; images a second."""
    best = {}
    for name in names:
        tried = {
            side: apart(images_per_second, side, recipe, folder, max(1.0, seconds / 3))
            for side in candidates(name)
        }
        best[name] = max(tried, key=lambda side: tried[side])
        for side, rate in tried.items():
            console.print(f"{recipe}, {name}: {side}: {rate:.1f} images/s (trial)", highlight=False)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            rates[name].append(apart(images_per_second, best[name], recipe, folder, seconds))
    return {
        name: {"setting": str(best[name]), "rounds": rates[name]}
        | {"median": statistics.median(rates[name])}
        for name in names
    }


def versions() -> dict[str, str]:
    packages = ["numpy", "pillow", "grain", "torch", "opencv-python-headless"]
    found = {"python": platform.python_version(), "cores": str(CORES), "cpu": cpu()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def table(results: dict[str, dict]) -> Table:
    out = Table("recipe", "pipeline", "setting", title="images/s, median (least to most)")
    out.add_column("images/s", justify="right")
    out.add_column("times theirs", justify="right")
    for recipe, sides in results.items():
        theirs = sides.get("fyu/drn")
        for name, side in sides.items():
            low, high = min(side["rounds"]), max(side["rounds"])
            rate = f"{side['median']:.1f} ({low:.1f} to {high:.1f})"
            ratio = f"{side['median'] / theirs['median']:.2f}" if theirs else ""
            out.add_row(recipe, name, side["setting"], rate, ratio)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, help=f"to make of each recipe (default {IMAGES})")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--fast", action="store_true", help="also ours with OpenCV (data.fast)")
    parser.add_argument("--memory", action="store_true", help="only the memory of 10,000 images")
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()

    console, found = Console(), versions()
    console.print(", ".join(f"{name} {version}" for name, version in found.items()))
    names = ["ours"] + ["ours, fast"] * arguments.fast
    names += ["fyu/drn"] * (importlib.util.find_spec("torch") is not None)
    report: dict[str, Any] = {"versions": found, "seconds": arguments.seconds, "results": {}}
    with tempfile.TemporaryDirectory(prefix="drn_jax_input_") as root:
        for recipe in ["ImageNet"] if arguments.memory else list(BATCH):
            folder = Path(root) / recipe
            folder.mkdir()
            make_images(folder, recipe, arguments.images or IMAGES[recipe])
            kilobytes = statistics.mean(f.stat().st_size for f in image_files(folder)) / 1000
            console.print(f"{recipe}: {len(image_files(folder))} images of {kilobytes:.0f} KB")
            if arguments.memory:
                report["memory"] = []
                for count, resident in memory(folder):
                    report["memory"].append((count, resident))
                    console.print(f"{count} images: {resident:.0f} MiB resident")
                continue
            same = check_pixels(recipe, folder)
            console.print(f"{recipe}: the same image pixels in all of {same['draws']} draws")
            if recipe == "Cityscapes":
                console.print(f"masks agree in at least {same['mask_agreement']:.4%} of the pixels")
            report[f"check {recipe}"] = same
            report["results"][recipe] = compare(recipe, folder, arguments.seconds, names, console)
    if not arguments.memory:
        console.print(table(report["results"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
