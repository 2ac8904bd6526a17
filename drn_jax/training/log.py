"""What a run writes down as it goes: `metrics.jsonl`, one flat object a line, and TensorBoard."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read(workdir: str | os.PathLike[str]) -> list[Row]:
    """The rows of `metrics.jsonl`; a last line that was cut short by a kill is left out."""
    path = _path(workdir)
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Log:
    """Appends rows. On resuming at `start_step`, rows beyond it are dropped: they happen again."""

    def __init__(self, workdir: str | os.PathLike[str], start_step: int) -> None:
        from tensorboardX import SummaryWriter  # A second to import.

        path = _path(workdir)
        kept = [row for row in read(workdir) if row["step"] <= start_step]
        draft = path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(row) + "\n" for row in kept))
        os.replace(draft, path)
        self._file = path.open("a")
        self._board = SummaryWriter(str(path.parent / "tensorboard"), purge_step=start_step + 1)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """One row of what is finite, for JSON knows no other numbers (the speed is NaN until it is
        known). Every number also becomes a TensorBoard scalar."""
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in finite.items():
            self._board.add_scalar(name.replace("_", "/", 1), value, step)


def _path(workdir: str | os.PathLike[str]) -> Path:
    return Path(workdir) / "metrics.jsonl"
