"""The data sets: what there is, preparing, checking, looking.

    python -m drn_jax.data list                                       every set, what it needs
    python -m drn_jax.data prepare NAME --source DIR --data_dir DIR   archives to records, once
    python -m drn_jax.data check NAME --dir DIR                       decode all, tell what is wrong
    python -m drn_jax.data show NAME --dir DIR                        a picture of some examples

DIR is a folder as the set is distributed, archives and all, or the --data_dir of `prepare`; so is
--config.data.dir of train.py and eval.py. It may lie in a bucket, gs://BUCKET/FOLDER; but `prepare`
writes to a disk, from where its folder can be copied into one. Every set can be trained on in
place; a prepared one needs no look at its files at every start, nor masks to be made of something
else.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from drn_jax import cli, data
from drn_jax.data import check, prepare, records, sound
from drn_jax.data.dataset import Dataset, Source
from drn_jax.data.findings import Findings
from drn_jax.data.sets import DATASETS, Entry
from drn_jax.data.sources import Readable
from drn_jax.errors import UserError, nearest
from drn_jax.report import console, contact_sheet, pictures

SHOWN = 5
"""Warnings of one kind that `check` shows."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m drn_jax.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="every set: classes, download, place, licence")
    listing.add_argument("name", nargs="?", default="", help="one set alone")
    listing.set_defaults(act=list_sets)
    writing = commands.add_parser("prepare", help="a set as distributed to array_record files")
    writing.add_argument("name", help="of the set; see `list`")
    writing.add_argument("--source", default="", help="the set as it is distributed; see `list`")
    writing.add_argument("--data_dir", required=True, help="where NAME/VERSION will lie")
    writing.add_argument(
        "--partial", action="store_true", help="leave out what is missing or faulty, and go on"
    )
    writing.set_defaults(act=prepare_set)
    checking = commands.add_parser("check", help="decode every example; status 1 if any is faulty")
    _add_place(checking)
    checking.set_defaults(act=check_set)
    showing = commands.add_parser("show", help="draw some examples as a PNG")
    _add_place(showing)
    showing.add_argument("--split", default="train", help="train (default), validation, test")
    showing.add_argument("--count", type=int, default=18, help="of examples; default 18")
    showing.add_argument("--seed", type=int, default=0, help="which examples; default 0")
    showing.add_argument("--out", default="", help="the picture; default NAME_SPLIT.png")
    showing.set_defaults(act=show_set)
    arguments = parser.parse_args()
    try:
        sys.exit(arguments.act(arguments))
    except UserError as error:
        cli.fail(str(error))
    except KeyboardInterrupt:
        console.say("stopped")
        sys.exit(130)


def _add_place(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", help="of the set; see `list`")
    command.add_argument(
        "--dir", "--source", "--data_dir", default="", help="the set as distributed, or prepared"
    )
    command.add_argument(
        "--task", default="", help="classification or segmentation, where a set is for both"
    )


def list_sets(arguments: argparse.Namespace) -> int:
    """Print what is to be known of one set, or of all."""
    for name in [arguments.name] if arguments.name else DATASETS:
        entry = _entry(name)
        console.say(f"{name}: {entry.about}")
        for field, text in {
            "classes": entry.classes,
            "for": " or ".join(entry.tasks),
            "download": entry.fetch or "nothing",
            "place": f"--dir={entry.lies_as}"
            if entry.lies_as
            else "made on first use, or in --dir",
            "licence": entry.licence,
        }.items():
            lines = textwrap.wrap(text, 84, break_on_hyphens=False, break_long_words=False)
            for i, line in enumerate(lines):
                console.say(f"  {'' if i else field:<10}{line}")
    return 0


def prepare_set(arguments: argparse.Namespace) -> int:
    """Write a set as array_record files."""
    name, entry = arguments.name, _entry(arguments.name)
    prepare.require_disk(arguments.data_dir)
    if not entry.lies_as:
        for task in entry.tasks:
            entry.read(arguments.data_dir, task, Findings())
        console.say(f"{name} is in {arguments.data_dir}")
        return 0
    if not arguments.source:
        raise UserError(f"data set {name}: give --source={entry.lies_as}")
    if records.find(arguments.source, name, *entry.prepared_as):
        raise UserError(f"--source={arguments.source}: is prepared already; use it as it is")
    if there := records.find(arguments.data_dir, name):
        console.say(f"{there} is there already: delete it to prepare {name} anew")
        return 0
    findings = Findings()
    dataset = entry.read(arguments.source, entry.tasks[0], findings)
    splits = _readable(dataset.splits)
    if not arguments.partial:
        findings.raise_first(f"python -m drn_jax.data check {name} --dir {arguments.source}")
    _print_warnings(findings.warnings)
    try:
        if arguments.partial:
            splits = {
                split: sound.sound(source, findings, console.progress, f"{name}: {split}, check")
                for split, source in splits.items()
            }
            _print_warnings({"faults, left out": findings.faults})
        folder = prepare.prepare(
            name,
            dataset,
            splits,
            arguments.data_dir,
            about=entry.about,
            progress=console.progress,
            say=console.say,
        )
    except KeyboardInterrupt:
        console.say("stopped; what is written stays, and the same command goes on from it")
        return 130
    counts = ", ".join(f"{len(source):,} for {split}" for split, source in splits.items())
    console.say(f"{name}: {counts}; in {folder}")
    console.say(f"use it with --config.data.name={name} --config.data.dir={arguments.data_dir}")
    return 0


def check_set(arguments: argparse.Namespace) -> int:
    """Decode every example, and print what was found. Returns 1 if anything is faulty."""
    findings = Findings()
    dataset, task = _read(arguments, findings)
    tallies = check.check(dataset, task, findings, console.progress)
    console.table(
        ("split", "images", "sizes (height x width)", "boxes", "mean", "std"),
        {
            split: (
                f"{tally.images:,}",
                _sizes(tally.sizes),
                f"{tally.boxes:,}" if tally.boxes else "-",
                check.triple(tally.mean),
                check.triple(tally.std),
            )
            for split, tally in tallies.items()
        },
    )
    console.say(f"stated: mean {check.triple(dataset.mean)}, std {check.triple(dataset.std)}")
    counted = "pixels" if task == "segmentation" else "images"
    columns = [tally.labels for tally in tallies.values()]
    rows = {
        name: tuple(_share(column[i], int(column.sum())) for column in columns)
        for i, name in enumerate(dataset.classes)
    }
    if task == "segmentation":
        rows["(ignored)"] = tuple(
            _share(t.ignored, int(t.labels.sum()) + t.ignored) for t in tallies.values()
        )
    console.table(("class", *(f"{counted}, {split}" for split in tallies)), rows)
    _print_warnings(findings.warnings)
    for fault in findings.faults:
        console.say(f"fault: {fault}")
    warned = sum(map(len, findings.warnings.values()))
    verdict = "failed" if findings.faults else "passed"
    faults = console.counted(len(findings.faults), "fault")
    console.say(f"check {verdict}: {faults}, {console.counted(warned, 'warning')}")
    return 1 if findings.faults else 0


def show_set(arguments: argparse.Namespace) -> int:
    """Draw some examples."""
    findings = Findings()
    dataset, task = _read(arguments, findings)
    if arguments.split not in dataset.splits:
        raise UserError(f"--split={arguments.split}: {nearest(arguments.split, dataset.splits)}")
    source = dataset.splits[arguments.split]
    if arguments.count < 1:
        raise UserError(f"--count={arguments.count}: must be at least 1")
    rng = np.random.default_rng(arguments.seed)
    some = np.sort(rng.permutation(len(source))[: arguments.count]).tolist()
    names = [source.where(index).replace("\\", "/") for index in some]
    other = "label" if task == "segmentation" else "mask"
    examples = [{k: v for k, v in source[index].items() if k != other} for index in some]
    sheet = contact_sheet.draw(
        examples,
        _distinct(names),
        dataset.classes,
        dataset.colors,
        f"{arguments.name}, {arguments.split}: {len(some)} of {len(source):,}",
    )
    out = Path(arguments.out or f"{arguments.name}_{arguments.split}.png")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(pictures.png(sheet))
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror})") from error
    console.say(f"{out}: {sheet.shape[1]}x{sheet.shape[0]} pixels")
    return 0


def _entry(name: str) -> Entry:
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}: {nearest(name, DATASETS)}")
    return DATASETS[name]


def _read(arguments: argparse.Namespace, findings: Findings) -> tuple[Dataset, str]:
    """The set that the command line names, and the task that it is read for."""
    entry = _entry(arguments.name)
    if entry.lies_as and not arguments.dir:
        raise UserError(f"data set {arguments.name}: give --dir={entry.lies_as}")
    task = arguments.task or entry.tasks[-1]
    return data.read(arguments.name, arguments.dir, task, findings), task


def _readable(splits: Mapping[str, Source]) -> dict[str, Readable]:
    readable = {split: source for split, source in splits.items() if isinstance(source, Readable)}
    assert len(readable) == len(splits), "every set that is read in place can be prepared"
    return readable


def _sizes(sizes: Mapping[tuple[int, int], int]) -> str:
    """One size, or the range."""
    if not sizes:
        return "-"
    if len(sizes) == 1:
        ((height, width),) = sizes
        return f"{height} x {width}"
    heights, widths = zip(*sizes, strict=True)
    return f"{min(heights)}-{max(heights)} x {min(widths)}-{max(widths)}"


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.2%})" if count else "-"


def _print_warnings(warnings: Mapping[str, Iterable[str]]) -> None:
    for kind, places in warnings.items():
        places = list(places)
        if not places:
            continue
        console.say(f"warning: {kind} ({len(places):,})")
        for place in places[:SHOWN]:
            console.say(f"  {place}")
        if len(places) > SHOWN:
            console.say(f"  and {len(places) - SHOWN:,} more")


def _distinct(names: list[str]) -> list[str]:
    """The names without the folders that all of them begin with."""
    folders = [name.split("/")[:-1] for name in names]
    common = 0
    while all(len(f) > common and f[common] == folders[0][common] for f in folders):
        common += 1
    return ["/".join(name.split("/")[common:]) for name in names]


if __name__ == "__main__":
    main()
