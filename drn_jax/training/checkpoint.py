"""Checkpoints with Orbax: the newest and the best of a run, its configuration beside each.

A checkpoint is one directory a step under `WORKDIR/checkpoints`, written whole or not at all. It
holds the whole `TrainState`; JSON metadata holds the scores and what is needed to rebuild the run.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from etils import epath
from jax.sharding import Sharding
from orbax.checkpoint import v1 as ocp

from drn_jax.errors import UserError
from drn_jax.training.state import TrainState
from drn_jax.trees import Shapes, differences, shapes

_policies = ocp.training.preservation_policies

RANK = "rank"
"""The score by which the best is chosen, among those of a checkpoint."""


class Saved(NamedTuple):
    """One checkpoint on disk: its step, and its validation scores if it was scored."""

    step: int
    scores: dict[str, float] | None

    @property
    def rank(self) -> float:
        """The score by which the best is chosen."""
        return self.scores[RANK] if self.scores else -math.inf


class Checkpoints:
    """The checkpoints of a working directory. Use as a context manager: leaving waits for writes.

    Kept are the best (the latest of equals) and the newest, scored or not.
    """

    def __init__(self, workdir: str | os.PathLike[str], must_exist: bool = False) -> None:
        """Open `workdir`; it need not exist unless `must_exist`.

        Raises: UserError if it must hold a checkpoint and has none.
        """
        self.directory = epath.Path(workdir).resolve() / "checkpoints"
        if must_exist and not self.directory.exists():
            raise UserError(f"no checkpoints in {workdir}: is it the working directory of a run?")
        keep = _policies.AnyPreservationPolicy(
            [
                _policies.LatestN(1),
                _policies.BestN(
                    get_metric_fn=lambda scores: scores[RANK],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        # Orbax's own policies do not fit its own protocol's types.
        policy: Any = keep
        self._orbax = ocp.training.Checkpointer(self.directory, preservation_policy=policy)
        if must_exist and not self.saved():
            raise UserError(f"no complete checkpoint in {self.directory}")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._orbax.close()

    def save(
        self,
        state: TrainState,
        meta: Mapping[str, Any],
        scores: Mapping[str, float] | None = None,
        primary: str = "",
    ) -> None:
        """Begin to write the checkpoint of `state.step`; returns before it is on disk.

        Where that step is already saved, scores replace it and no scores leave it. `meta` must be
        JSON; `primary` names the score that ranks checkpoints.
        """
        step = int(state.step)
        self._orbax.wait()  # Orbax skips a save while another is under way.
        exists = any(c.step == step for c in self._orbax.checkpoints)
        if exists and scores is None:
            return
        self._orbax.save_checkpointables_async(
            step,
            {
                "variables": state.variables,
                "progress": {"step": state.step, "opt_state": state.opt_state},
            },
            force=True,
            overwrite=exists,
            metrics=None if scores is None else {RANK: scores[primary], **scores},
            custom_metadata=dict(meta),
        )

    def save_weights(self, variables: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """Write variables alone, as step 0: to evaluate, or for another run's `init_from`."""
        self._orbax.save_checkpointables(
            0, {"variables": dict(variables)}, force=True, custom_metadata=dict(meta)
        )

    def saved(self) -> list[Saved]:
        """Every complete checkpoint, by step."""
        self._orbax.wait()
        found: Any = self._orbax.checkpoints
        return sorted((Saved(c.step, c.metrics) for c in found), key=lambda c: c.step)

    def latest(self) -> Saved | None:
        """The newest checkpoint, or None."""
        return max(self.saved(), default=None, key=lambda c: c.step)

    def best(self) -> Saved | None:
        """The checkpoint with the highest rank, the latest of equals, or None."""
        return max(self.saved(), default=None, key=lambda c: (c.rank, c.step))

    def choose(self, which: str) -> Saved:
        """The checkpoint that "best", "latest" or a step number names.

        Raises: UserError if there is none, listing those that are.
        """
        named = {"best": self.best(), "latest": self.latest()}
        named |= {str(c.step): c for c in self.saved()}
        found = named.get(which)
        if found is None:
            steps = ", ".join(str(c.step) for c in self.saved())
            raise UserError(
                f"no checkpoint {which!r} in {self.directory}: use best, latest or one of {steps}"
            )
        return found

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON that was saved with a step."""
        meta: Any = self._metadata(step).custom_metadata
        return meta

    def restore(self, step: int, abstract: TrainState, sharding: Sharding) -> TrainState:
        """The whole state of a step, every array placed by `sharding`.

        Raises: UserError if names or shapes of the model differ from `abstract`, naming those.
        """
        variables = self.restore_variables(step, abstract.variables, sharding)
        if "progress" not in self._metadata(step).metadata:
            raise UserError(
                f"{self.directory} holds weights alone, no run to go on with: name its folder in "
                "--config.init_from and give another --workdir"
            )
        progress = {"step": abstract.step, "opt_state": abstract.opt_state}
        loaded = self._load(step, {"progress": progress}, sharding)["progress"]
        return TrainState(
            step=loaded["step"],
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=loaded["opt_state"],
            unused=variables.get("unused", {}),
        )

    def restore_variables(
        self, step: int, abstract: Mapping[str, Any], sharding: Sharding
    ) -> dict[str, Any]:
        """What `model.apply` takes, without the optimiser's state; and `unused`, where converted
        weights brought it. Raises as `restore`."""
        stored = self._metadata(step).metadata["variables"]
        self._check(step, shapes(_network(stored)), shapes(_network(abstract)))
        return self.all_variables(step, sharding)

    def all_variables(self, step: int, sharding: Sharding) -> dict[str, Any]:
        """The variables of a step, whatever the network."""
        stored = self._metadata(step).metadata["variables"]
        return self._load(step, {"variables": stored}, sharding)["variables"]

    def transfer(
        self, step: int, variables: dict[str, Any], sharding: Sharding, part: str = ""
    ) -> tuple[dict[str, Any], bool]:
        """`variables` with all that the checkpoint holds, for another task or class count.

        Where only the classifier's shape differs, it keeps the values of `variables`.

        Args:
          part: "front_end" or "context", to fill that part of the network from a checkpoint of it
            alone, or the context module from one of both; the rest stays as in `variables`. A front
            end's place is taken by a whole network wholly.

        Returns: the variables, and whether the classifier stayed as it was.
        Raises: UserError if anything but the classifier differs, naming what does.
        """
        stored = self._metadata(step).metadata["variables"]
        of_both = "front_end" in stored["params"]
        if of_both and part == "front_end":
            part = ""  # The whole network's: nothing of it is left out.
        theirs = part if of_both else ""
        inner = _part(variables, part)
        saved, wanted = shapes(_network(_part(stored, theirs))), shapes(_network(inner))
        fresh_head = saved != wanted
        self._check(step, _without_head(saved), _without_head(wanted))
        loaded = _part(self.all_variables(step, sharding), theirs)
        if fresh_head:
            loaded["params"]["head"] = inner["params"]["head"]
        if part:
            loaded = {
                name: {**tree, part: loaded[name]} if name in loaded else tree
                for name, tree in variables.items()
            }
        return loaded, fresh_head

    def _check(self, step: int, saved: Shapes, wanted: Shapes) -> None:
        if saved != wanted:
            raise UserError(
                f"the checkpoint of step {step} in {self.directory} does not fit the model: "
                f"{differences(saved, wanted)}"
            )

    def _metadata(self, step: int) -> Any:
        self._orbax.wait()  # The step may be the one that is being written.
        return self._orbax.checkpointables_metadata(step)

    def _load(self, step: int, abstract: Any, sharding: Sharding) -> Any:
        placed = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), abstract
        )
        return self._orbax.load_checkpointables(step, placed)


def _network(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the model itself has, of all that a checkpoint may carry."""
    return {name: variables[name] for name in ("params", "batch_stats") if name in variables}


def _part(variables: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The variables of one part of a network; "" is the whole."""
    if not part:
        return dict(variables)
    return {name: tree[part] for name, tree in variables.items() if part in tree}


def _without_head(named: Shapes) -> Shapes:
    return {name: shape for name, shape in named.items() if not name.startswith("params/head/")}
