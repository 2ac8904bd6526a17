"""What is printed of a run's rows: classes, failures."""

from collections import Counter
from collections.abc import Sequence

from drn_jax.predict import files
from drn_jax.predict.pipeline import Row, printable
from drn_jax.report import console

SHOWN = 20
"""Images whose class is printed, and failures."""


def print_rows(rows: Sequence[Row], others: int, out: str) -> None:
    """Print the classes, of the first images or of all pixels, and the failures.

    `others`: files that were passed over.
    """
    answered = [row for row in rows if "error" not in row]
    failed = [row for row in rows if "error" in row]
    if answered and "top" in answered[0]:
        _print_images(answered, out)
    elif answered:
        _print_pixels(answered)
    if others:
        console.say(f"passed over: {console.counted(others, 'file')} not named like images")
    for row in failed[:SHOWN]:
        console.say(f"failed: {printable(row['file'])}: {printable(row['error'])}")
    if len(failed) > SHOWN:
        console.say(f"  and {len(failed) - SHOWN:,} more, all in {out}/{files.ROWS}")


def _print_images(rows: Sequence[Row], out: str) -> None:
    console.table(
        ("image", "class", "probability"),
        {
            printable(row["file"]): (row["top"][0]["class"], f"{row['top'][0]['probability']:.1%}")
            for row in rows[:SHOWN]
        },
    )
    if len(rows) > SHOWN:
        console.say(f"and {len(rows) - SHOWN:,} more, all in {out}/{files.ROWS}")


def _print_pixels(rows: Sequence[Row]) -> None:
    pixels: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for row in rows:
        for found in row["pixels"]:
            pixels[found["class"]] += found["pixels"]
            images[found["class"]] += 1
    console.table(
        ("class", "pixels", "images"),
        {
            name: (f"{count:,} ({count / pixels.total():.2%})", f"{images[name]:,}")
            for name, count in pixels.most_common()
        },
    )
