"""What an evaluation found: for programs results.json, for people report.html, beside the published
numbers where there are any."""

import errno
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from drn_jax import places
from drn_jax.analysis.price import Price
from drn_jax.config import Config
from drn_jax.errors import UserError
from drn_jax.evaluation import published, recipes
from drn_jax.evaluation.published import Published
from drn_jax.report import ClassRow, Panel, Report, Table, write

NAMES = {
    "loss": "validation loss",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "localisation_top1_error": "localisation error, top-1",
    "localisation_top5_error": "localisation error, top-5",
    "oracle_top1_error": "localisation error at the best t, top-1",
    "gt_known": "boxes right, class given",
    "max_box_acc": "MaxBoxAcc",
    "instance_miou": "mean iIoU",
    "instance_category_miou": "mean iIoU of categories",
    "miou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "class_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "category_miou": "mean IoU of categories",
    "boundary_f": "boundary F",
    "boundary_f_pooled": "boundary F, pooled",
}
"""What people call the scores."""


@dataclass(frozen=True)
class Outcome:
    """One checkpoint, judged by one protocol on one split of one set."""

    protocol: Mapping[str, Any]
    """`name`, and every choice that changes a number."""
    scores: Mapping[str, float]
    """The first is the headline; in [0, 1], but for `loss`."""
    per_class: Sequence[ClassRow]
    split: str
    images: int
    seconds: float
    devices: int = 1
    """That took part."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More, as JSON: categories, curves, a confusion matrix."""
    curves: str = ""
    curves_title: str = ""
    panels: Sequence[Panel] = ()
    heat: str = ""
    """See `Report`."""
    tables: Sequence[Table] = ()
    printed: Sequence[str] = ()
    """The scores that the terminal is told, in their order; none: all."""

    @property
    def told(self) -> Mapping[str, float]:
        """The scores for the terminal."""
        return {name: self.scores[name] for name in self.printed or self.scores}


@dataclass(frozen=True)
class Judged:
    """What was judged: a checkpoint."""

    config: Config
    title: str
    """The network in words."""
    data: str
    """The set by its name among `data.DATASETS`."""
    dataset: str
    """As the set calls itself."""
    workdir: str
    step: int
    digest: str
    """SHA-256 of the weights, see `trained.digest`."""
    converted: bool
    """Whether the weights were brought in from a file, not trained here."""
    model: str = ""
    """Name of the network for images; "": that of the configuration. Of a context module's run that
    of its front end."""
    front_end: Mapping[str, Any] | None = None
    """Of a context module's run: `workdir`, `step` and `sha256` of the front end."""
    price: Price | None = None
    """Of the network, for one training input; None: not known."""
    places: str = "pixels"
    """What the network's input has, in words."""


def save(folder: str, judged: Judged, outcome: Outcome, command: str) -> str:
    """Write results.json and report.html, each whole or not at all.

    Returns: `replaces`, of those that lay there before.
    Raises: UserError if the folder can't be written to.
    """
    found = as_json(judged, outcome, command)
    replaced = replaces(folder, found)
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    shown = page(judged, outcome, command)
    try:
        places.write(places.join(folder, "results.json"), text.encode())
        write(places.join(folder, "report.html"), shown)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return replaced


def require_folder(folder: str) -> None:
    """Look whether results can be written to a folder, before they are computed; nothing is made.
    Raises: UserError if not."""
    if places.is_remote(folder):
        return
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise _unwritable(folder, NotADirectoryError(errno.ENOTDIR, f"{place} is no folder"))
    if not os.access(place, os.W_OK):
        raise _unwritable(folder, PermissionError(errno.EACCES, f"{place} is read-only"))


def replaces(folder: str, found: Mapping[str, Any]) -> str:
    """In what the results of a folder differ from those that are to replace them, in words; "" if
    in nothing that was asked for, or if there are none."""
    path = places.join(folder, "results.json")
    try:
        before = json.loads(places.read(path))
        groups = {name: (before[name], found[name]) for name in ("data", "protocol", "config")}
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    told = [
        f"{group}.{name} {was.get(name)}, now {now.get(name)}"
        for group, (was, now) in groups.items()
        for name in sorted({*was, *now})
        if was.get(name) != json.loads(json.dumps(now.get(name)))
    ]
    more = f", and {len(told) - 2} more" if len(told) > 2 else ""
    return "; ".join(told[:2]) + more


def _unwritable(folder: str, error: OSError) -> UserError:
    return UserError(
        f"{folder}: results can't be written there ({error.strerror or error}); name another "
        "folder with --out"
    )


def as_json(judged: Judged, outcome: Outcome, command: str) -> dict[str, Any]:
    """The content of results.json; what is not finite is null."""
    rows = [
        {
            "class": row.name,
            **{_key(k): _plain(v) for k, v in row.values.items()},
        }
        for row in outcome.per_class
    ]
    there, reasons = beside(judged, outcome)
    return _finite(
        {
            "model": judged.title,
            "data": {"name": judged.dataset, "split": outcome.split, "images": outcome.images},
            "protocol": dict(outcome.protocol),
            "scores": dict(outcome.scores),
            "per_class": rows,
            "details": dict(outcome.details),
            "published": [asdict(row) for row in there],
            "differences": reasons,
            "checkpoint": {
                "workdir": judged.workdir,
                "step": judged.step,
                "sha256": judged.digest,
                "front_end": judged.front_end,
            },
            "price": asdict(judged.price) if judged.price else None,
            "config": asdict(judged.config),
            **computed_by(outcome.devices),
            "seconds": round(outcome.seconds, 3),
            "command": command,
        }
    )


def computed_by(devices: int = 1) -> dict[str, Any]:
    """What every results.json says of the program and the machine: `code`, `versions`, `device`, of
    which so many took part."""
    packages = ("jax", "jaxlib", "flax", "numpy", "pillow")
    return {
        "code": {"version": version("drn-jax"), "commit": commit()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "device": f"{devices} x {jax.devices()[0].device_kind}",
    }


def page(judged: Judged, outcome: Outcome, command: str) -> Report:
    """The page of one evaluation."""
    scores = {name_of(key): value for key, value in outcome.scores.items()}
    first = next(iter(outcome.scores))
    code = version("drn-jax")
    device = jax.devices()[0]
    facts = {
        "network": judged.title,
        **(judged.price.words(judged.places) if judged.price else {}),
        "checkpoint": f"step {judged.step:,} of {judged.workdir}",
        "SHA-256 of the weights": judged.digest,
        "data set": f"{judged.dataset}, {outcome.split}: {outcome.images:,} images",
        "protocol": _words(outcome.protocol),
        "time": f"{outcome.seconds:,.1f} s, compilation and reading included",
        "device": f"{outcome.devices} x {device.device_kind}",
        "versions": f"Python {platform.python_version()}, jax {jax.__version__}, "
        f"flax {version('flax')}, drn-jax {code}{_of_commit()}",
    }
    return Report(
        title=f"{judged.config.model.name} on {judged.dataset}: {_title(outcome.protocol)}",
        summary=(
            f"{outcome.scores[first]:.2%} {name_of(first)} on {outcome.images:,} "
            f"images of the {outcome.split} split, at step {judged.step:,}."
        ),
        scores=scores,
        tables=(*outcome.tables, _published_table(judged, outcome)),
        facts=facts,
        command=command,
        curves=outcome.curves,
        curves_title=outcome.curves_title or "Curves",
        per_class=outcome.per_class,
        panels=outcome.panels,
        heat=outcome.heat,
    )


def beside(judged: Judged, outcome: Outcome) -> tuple[tuple[Published, ...], list[str]]:
    """The published numbers for the network and set, and in what this run differs, or may differ,
    from what they were measured on, in words."""
    config, model = judged.config, judged.config.model
    context = published.module(model.name, model.context)
    rows = published.for_run(judged.model or model.name, judged.data, config.task, context)
    return rows, list(_reasons(judged, outcome, rows[0].model)) if rows else []


def _reasons(judged: Judged, outcome: Outcome, net: str) -> Iterator[str]:
    """`net`: as `Published.model`."""
    config = judged.config
    if config.model.width != 1:
        yield f"the network has {config.model.width:g} times the published channels"
    if judged.converted:
        yield (
            "the weights come from a file: if they are the published ones, what is left is how "
            "images are decoded and resized, and the protocol"
        )
    else:
        yield from recipes.differences(config, judged.data, net)
        yield from recipes.remarks(judged.data, net)
    if config.model.dtype != "float32":
        yield f"computed in {config.model.dtype}"
    yield f"protocol here: {_words(outcome.protocol)}"


def _published_table(judged: Judged, outcome: Outcome) -> Table:
    rows, reasons = beside(judged, outcome)
    title = "Beside the published numbers"
    if not rows:
        none = (
            f"None was published for {judged.config.model.name} on {judged.dataset}: nothing to "
            "stand beside these scores."
        )
        return Table(title, (), (), (none,))
    drawn = []
    for row in rows:
        alike = row.measured_like(outcome.split, outcome.protocol)
        ours = outcome.scores.get(row.metric) if alike else None
        shown = "-" if ours is None or not math.isfinite(ours) else f"{ours:.2%}"
        what = f"{name_of(row.metric)}, {row.protocol}"
        drawn.append((what, row.split, f"{row.value:.2%}", shown, row.source))
    columns = ("score", "split", "published", "here", "source")
    notes = [f"{reason[0].upper()}{reason[1:]}." for reason in reasons]
    return Table(title, columns, drawn, notes)


def unless(choice: str, default: str, before: str = "") -> str:
    """What a choice adds to the name of a protocol; its default nothing."""
    return "" if choice == default else f"_{before}{choice}"


def name_of(key: str) -> str:
    """What people call a score."""
    return NAMES.get(key, key.replace("_", " "))


def commit() -> str | None:
    """The commit of the working copy that this package lies in, with "+" if it was changed since;
    None where it lies in none."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        found = subprocess.run(
            ["git", "-C", os.fspath(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        return found.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _of_commit() -> str:
    found = commit()
    return f" of commit {found[:12]}{'+' if found.endswith('+') else ''}" if found else ""


def _title(protocol: Mapping[str, Any]) -> str:
    return str(protocol["name"]).replace("_", " ")


def _words(protocol: Mapping[str, Any]) -> str:
    """The protocol in one line."""
    told = [_title(protocol)]
    for name, value in protocol.items():
        if name != "name" and value not in (None, ""):
            shown = ", ".join(f"{v:g}" for v in value) if isinstance(value, list | tuple) else value
            told.append(f"{name.replace('_', ' ')} {shown}")
    return "; ".join(told)


def _key(name: str) -> str:
    return name.lower().replace(" ", "_")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _finite(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    value = _plain(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
