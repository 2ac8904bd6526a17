"""What a run writes down as it goes: `metrics.jsonl`, one flat object a line, and TensorBoard."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from drn_jax import places

Row = dict[str, Any]


def read(workdir: str | os.PathLike[str]) -> list[Row]:
    """The rows of `metrics.jsonl`; a last line that was cut short by a kill is left out."""
    try:
        text = places.read(_path(workdir)).decode()
    except FileNotFoundError:
        return []
    rows = []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Log:
    """Appends rows. On resuming at `start_step`, rows beyond it are dropped: they happen again.

    On a disk a row is there once it is written. In a bucket, where nothing can be appended to a
    file, all rows are written anew by `flush`: whoever saves a checkpoint calls it before.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        start_step: int,
        writes: bool = True,
        scored: bool = True,
    ) -> None:
        """With `writes` False, as it is for all processes of a run but one, nothing is done. Unless
        `scored`, the validation of `start_step` happens again too: its row is dropped."""
        self._writes = writes
        if not writes:
            return
        from tensorboardX import SummaryWriter  # A second to import.

        self._path = _path(workdir)
        kept = [row for row in read(workdir) if row["step"] <= start_step]
        if not scored:
            kept = [r for r in kept if r["step"] < start_step or "train_loss" in r]
        self._lines = [json.dumps(row) + "\n" for row in kept]
        self._file: IO[str] | None = None
        self._board_folder = places.join(workdir, "tensorboard")
        self._draft: TemporaryDirectory[str] | None = None
        if places.is_remote(workdir):
            # tensorboardX writes to some buckets, each through one more package.
            self._draft = TemporaryDirectory(prefix="tensorboard")
        else:
            path = Path(self._path)
            places.write(path, "".join(self._lines).encode())
            self._file = path.open("a")
        self._board = SummaryWriter(
            self._draft.name if self._draft else self._board_folder, purge_step=start_step + 1
        )

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._writes:
            return
        self._board.close()
        if self._file is not None:
            self._file.close()
        if self._draft is not None:
            with self._draft:
                self._upload(self._draft.name)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """One row of what is finite, for JSON knows no other numbers (the speed is NaN until it is
        known). Every number also becomes a TensorBoard scalar."""
        if not self._writes:
            return
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        line = json.dumps({"step": step, **finite}) + "\n"
        if self._file is None:
            self._lines.append(line)
        else:
            self._file.write(line)
            self._file.flush()
        for name, value in finite.items():
            self._board.add_scalar(name.replace("_", "/", 1), value, step)

    def flush(self) -> None:
        """Make sure that all rows are where they belong."""
        if self._writes and self._draft is not None:
            self._board.flush()
            self._upload(self._draft.name)

    def _upload(self, board: str) -> None:
        places.write(self._path, "".join(self._lines).encode())
        for name in places.entries(board):
            places.upload(places.join(board, name), places.join(self._board_folder, name))


def _path(workdir: str | os.PathLike[str]) -> str:
    return places.join(workdir, "metrics.jsonl")
