"""What a run prints: the table of the model, and its progress, as a bar or as plain lines."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table

from drn_jax.analysis import cost
from drn_jax.analysis.cost import StageCost, Total
from drn_jax.analysis.receptive_field import Row
from drn_jax.report.html import ClassRow

_console = Console(highlight=False, soft_wrap=True)


def silence() -> None:
    """Print nothing from here on: for all processes of a run but the first. Errors do not come
    this way."""
    _console.quiet = True


def _is_live() -> bool:
    """Whether there is someone to look at a bar."""
    return _console.is_terminal and not _console.quiet


def say(text: str) -> None:
    """One plain line, as it is."""
    _console.print(text, markup=False)


def model_table(
    title: str, costs: Sequence[StageCost], fields: Sequence[Row], places: str = "pixels"
) -> None:
    """Print the stages with their output size, what a cell of them sees, and what they cost; and
    the sums.

    Args:
      costs, fields: of the same stages.
      places: what the input has.
    """
    table = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("stage")
    names = ("output", "channels", "sees", "parameters", "multiply-\nadds (M)", "maps (MB)")
    for column in names:
        table.add_column(column, justify="right")
    for row, field in zip(costs, fields, strict=True):
        size = f"{row.height}x{row.width}"
        table.add_row(row.name, size, str(row.channels), str(field.size), *_prices(row))
    table.add_section()
    table.add_row("", "", "", "", *_prices(cost.total(costs)))
    stride = fields[-1].stride if fields else 1
    table.caption = (
        f"output stride {stride}; sees: {places} a side; maps: what layers give; per training input"
    )
    _console.print(table)


def _prices(of: StageCost | Total) -> tuple[str, str, str]:
    return (
        f"{of.parameters:,}",
        f"{of.multiply_adds / 1e6:,.1f}",
        f"{of.activation_bytes / 1e6:,.1f}",
    )


def class_table(rows: Sequence[ClassRow]) -> None:
    """Print one line a class; fractions as percentages, a dash for a class that does not occur."""
    table = Table()
    table.add_column("class")
    for column in rows[0].values:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row.name, *(_cell(value) for value in row.values.values()))
    _console.print(table)


def counted(number: int, what: str) -> str:
    """How many of what, in words."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """Print rows of text; the key of a row stands in the first column."""
    drawn = Table()
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for name, cells in rows.items():
        drawn.add_row(name, *cells)
    _console.print(drawn, markup=False, soft_wrap=False)


def _cell(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2%}"


Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    """The items, with a bar on a terminal while they are being made."""
    yield from track(items, title, total, console=_console, disable=not _is_live())


class RunProgress:
    """The course of a run: a live bar on a terminal, a plain line per `line` call elsewhere."""

    def __init__(self, start_step: int, steps: int) -> None:
        self._live = _is_live()
        self._steps = steps
        self._row: Mapping[str, float] = {}
        self._bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=None),  # What the words leave.
            TextColumn("{task.fields[state]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=_console,
            disable=not self._live,
            expand=True,
        )
        self._task = self._bar.add_task(
            "training", total=steps, completed=start_step, state="compiling"
        )

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, step: int, epoch: float, loss: float, images_per_s: float) -> None:
        """Move the bar, which also tells of the last row; prints nothing where there is no
        terminal."""
        told = ["compiling" if math.isnan(loss) else f"epoch {epoch:.1f}  loss {loss:.3f}"]
        room = _console.width - len(f"step {step}/{self._steps}") - _BESIDES
        for word in _pace({**self._row, "images_per_s": images_per_s}):
            if len("  ".join((*told, word))) > room:
                break
            told.append(word)
        self._bar.update(self._task, completed=step, state="  ".join(told))

    def line(self, step: int, epoch: float, row: Mapping[str, float], batch_size: int) -> None:
        """A plain line of a row of metrics.jsonl, where there is no bar."""
        self._row = row
        if self._live:
            return
        told = [f"step {step}/{self._steps}", f"epoch {epoch:.2f}", f"loss {row['train_loss']:.4f}"]
        told += _pace(row)
        speed = row.get("images_per_s", math.nan)
        if not math.isnan(speed):
            minutes, seconds = divmod(round((self._steps - step) * batch_size / speed), 60)
            told.append(f"{minutes}:{seconds:02d} left")
        say("  ".join(told))


INPUT_WORTH_A_WORD = 0.05
"""The share of a step's time from which waiting for input is told."""

_BESIDES = 20  # Columns for the least bar, "left", the time, and the spaces between.


def _pace(row: Mapping[str, float]) -> list[str]:
    """What a row knows of speed and memory, in words."""
    known = {name: value for name, value in row.items() if math.isfinite(value)}
    told = []
    if "images_per_s" in known:
        told.append(f"{known['images_per_s']:.0f} images/s")
    if "step_s" in known:
        step, waited = known["step_s"], known.get("input_s", 0.0)
        text = f"{1000 * step:.{0 if step >= 0.01 else 1}f} ms"
        if waited > INPUT_WORTH_A_WORD * step:
            text += f" ({waited / step:.0%} input)"
        told.append(text)
    if "peak_share" in known:
        told.append(f"{known['peak_share']:.0%} of peak")
    if "memory_gb" in known:
        told.append(f"{known['memory_gb']:.1f} GB")
    return told


def scores(values: Mapping[str, float], prefix: str = "val_") -> str:
    """Scores in one line, by default as `val_*` in metrics.jsonl."""
    return "  ".join(f"{prefix}{name} {value:.4f}" for name, value in values.items())
