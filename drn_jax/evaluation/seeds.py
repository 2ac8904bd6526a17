"""What several runs of one recipe say together: mean, spread and the mean's confidence interval.

Runs differ in their seed alone: results of different networks, under different protocols or on
different data are not put together, and no weights count twice.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from drn_jax.errors import UserError

CONFIDENCE = 0.95
ENOUGH = 3
"""Runs from which an interval is given: that of two reaches 9 deviations to either side."""

SAME = ("model", "data", "protocol")
"""What must be the same in all results: the network in words; the set, its split and size; every
choice of the evaluation that changes a number."""


@dataclass(frozen=True)
class Summary:
    """One score of several runs."""

    runs: int
    mean: float
    std: float
    """Of the sample: over runs - 1."""
    interval: tuple[float, float] | None
    """That holds the true mean with 95 % confidence, by Student's t, where runs scatter normally;
    None: too few runs."""

    def words(self, percent: bool = False) -> str:
        """The summary in one line; `percent`: of scores in [0, 1]."""

        def number(value: float) -> str:
            return f"{100 * value:.2f}" if percent else f"{value:.4f}"

        told = f"{number(self.mean)} ± {number(self.std)} over {self.runs} runs"
        if self.interval is None:
            return f"{told}, too few for an interval"
        low, high = map(number, self.interval)
        return f"{told}, {CONFIDENCE:.0%} interval {low} to {high}"

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def summarise(
    results: Sequence[Mapping[str, Any]], names: Sequence[str] = ()
) -> dict[str, Summary]:
    """Every score of the runs together.

    Args:
      results: of each run what its results.json holds: `scores`, numbers by name, also in groups,
        which become `GROUP.NAME`; `SAME`, which must be the same in all; `checkpoint.sha256`, which
        must not. Scores that are missing (None, NaN) in any run, or are no number, are left out.
      names: what errors call the runs; else `run 1`, `run 2`, ...

    Raises:
      UserError: there are fewer than two results; two differ in what must be the same, or are of
        the same weights; or one has a score that another has not.
    """
    names = names or [f"run {i + 1}" for i in range(len(results))]
    if len(results) < 2:
        raise UserError(
            f"{len(results)} results can't be put together: give two or more, better {ENOUGH}, of "
            "runs that differ in their seed"
        )
    settings = [dict(_flat({k: run[k] for k in SAME if k in run})) for run in results]
    scores = [dict(_flat(run.get("scores", {}))) for run in results]
    weights: dict[str, str] = {}
    for name, run, ours, own in zip(names, results, settings, scores, strict=True):
        _require_same(settings[0], ours, names[0], name)
        if odd := sorted(own.keys() ^ scores[0].keys()):
            lacking = names[0] if odd[0] in own else name
            raise UserError(
                f"{lacking}: has no score {odd[0]}, unlike the others; evaluate all runs alike"
            )
        digest = run.get("checkpoint", {}).get("sha256")
        if digest and weights.setdefault(digest, name) != name:
            raise UserError(
                f"{name} and {weights[digest]} are of the same weights (checkpoint.sha256); give "
                "runs that differ in their seed"
            )
    columns = {key: [own[key] for own in scores] for key in scores[0]}
    return {key: of(values) for key, values in columns.items() if all(map(_is_number, values))}


def of(values: Sequence[float]) -> Summary:
    """The summary of one score of two or more runs."""
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    interval = None
    if len(values) >= ENOUGH:
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * std
        reach /= math.sqrt(len(values))
        interval = (mean - reach, mean + reach)
    return Summary(len(values), mean, std, interval)


def _require_same(
    first: Mapping[str, Any], other: Mapping[str, Any], first_name: str, name: str
) -> None:
    missing = "nothing"
    for field in (*first, *(field for field in other if field not in first)):
        ours, theirs = first.get(field, missing), other.get(field, missing)
        if ours != theirs:
            raise UserError(
                f"{field} is {theirs} in {name} and {ours} in {first_name}: only runs that differ "
                "in nothing but their seed are put together; evaluate both alike"
            )


def _flat(group: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values by their names, those of groups within as GROUP.NAME."""
    for name, value in group.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
