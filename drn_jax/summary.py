"""The scores of several runs of one recipe, put together: mean, deviation, interval.

    python -m drn_jax.summary runs/seed0 runs/seed1 runs/seed2            what eval.py wrote there
    python -m drn_jax.summary runs/seed* --protocol multi_scale           by another protocol
    python -m drn_jax.summary a/results.json b/results.json c/results.json --out seeds.json

The interval holds the true mean with 95 % confidence (Student's t), and needs three runs or more.
Runs must be alike in protocol, data, network and recipe, and differ in their seed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from drn_jax import cli, config, places
from drn_jax.errors import UserError
from drn_jax.evaluation import seeds
from drn_jax.evaluation.results import name_of
from drn_jax.report import console

MAY_DIFFER = ("seed", "name", *config.BESIDE)
"""Fields in which the configurations of seeds may differ."""

_WEIGHTS = ("init_from", "init_context_from")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m drn_jax.summary",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", help="working directories, or results.json files")
    parser.add_argument(
        "--protocol", default="validation", help="folder below WORKDIR/eval; default validation"
    )
    parser.add_argument("--out", default="", help="write the summary as JSON, too")
    arguments = parser.parse_args()
    try:
        return summarise(arguments.results, arguments.protocol, arguments.out)
    except UserError as error:
        cli.fail(str(error))
        return 1


def summarise(given: Sequence[str], protocol: str, out: str) -> int:
    """Print the table, and write it if asked to."""
    files = [path_of(name, protocol) for name in given]
    found = [read(file) for file in files]
    _require_alike(files, found)
    summaries = seeds.summarise(found, files)
    rows = {
        name_of(name): (one.words(percent=not name.endswith("loss")),)
        for name, one in summaries.items()
    }
    console.table(("score", "mean ± deviation"), rows)
    if out:
        text = json.dumps(
            {
                "results": files,
                **{name: found[0][name] for name in ("model", "data", "protocol")},
                "scores": {name: one.as_json() for name, one in summaries.items()},
            },
            indent=1,
        )
        try:
            places.write(out, (text + "\n").encode())
        except OSError as error:
            raise UserError(f"--out={out}: can't be written ({error.strerror or error})") from error
        console.say(f"written to {out}")
    return 0


def path_of(given: str, protocol: str) -> str:
    """The results that a working directory, a folder of results, or a file stands for."""
    if given.endswith(".json"):
        return given
    direct = places.join(given, "results.json")
    return direct if places.exists(direct) else places.join(given, "eval", protocol, "results.json")


def read(file: str) -> dict[str, Any]:
    """The content of a results.json. Raises: UserError if it is none."""
    try:
        found = json.loads(places.read(file))
    except FileNotFoundError:
        raise UserError(
            f"{file}: no such file; run eval.py on that run first, by the same protocol"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read as JSON ({error})") from None
    needed = ("scores", "protocol", "data", "model", "config", "checkpoint")
    lacking = [name for name in needed if not isinstance(found, dict) or name not in found]
    if lacking:
        raise UserError(f"{file}: is no results.json of eval.py, it lacks {', '.join(lacking)}")
    return found


def _require_alike(files: Sequence[str], found: Sequence[dict[str, Any]]) -> None:
    """Raise UserError unless these are different runs of one recipe."""
    seen: dict[str, str] = {}
    recipe = _recipe(found[0])
    for file, one in zip(files, found, strict=True):
        digest = one["checkpoint"]["sha256"]
        if digest in seen:
            twice = (
                "was given twice" if file == seen[digest] else f"has the weights of {seen[digest]}"
            )
            raise UserError(f"{file}: {twice}; leave one of them out")
        seen[digest] = file
        differ = config.changes(recipe, _recipe(one))
        if differ:
            raise UserError(
                f"{file}: is no run of the recipe of {files[0]}: {differ[0]}"
                + (f", and {len(differ) - 1} more" if len(differ) > 1 else "")
            )


def _recipe(one: dict[str, Any]) -> config.Config:
    """The configuration but for what seeds may differ in."""
    given = {name: value for name, value in one["config"].items() if name not in MAY_DIFFER}
    places_of = {name: "" for name in ("dir", "front_end") if name in given["data"]}
    # Of a run in stages each seed starts from a folder of its own.
    weights = {name: "another run" if given[name] else "" for name in _WEIGHTS}
    data = {**given["data"], **places_of}
    return config.parse({**given, **weights, "data": data, "name": ""})


if __name__ == "__main__":
    sys.exit(main())
