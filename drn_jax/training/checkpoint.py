"""Checkpoints with Orbax: the newest and the best of a run, its configuration beside each.

A checkpoint is one directory a step under `WORKDIR/checkpoints`, written whole or not at all. It
holds the whole `TrainState`; JSON metadata holds the scores and what is needed to rebuild the run.
"""

import math
import os
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from etils import epath
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from orbax.checkpoint import v1 as ocp

from drn_jax import places
from drn_jax.errors import UserError
from drn_jax.training.sharding import placed
from drn_jax.training.state import TrainState
from drn_jax.trees import Shapes, differences, shapes

_policies = ocp.training.preservation_policies

RANK = "rank"
"""The score by which the best is chosen, among those of a checkpoint."""


_ASIDE = ".aside"
_UNFINISHED = ".orbax-checkpoint-tmp"


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
        """Open `workdir`, to write; with `must_exist` to read what is there.

        Raises: UserError if it must hold a checkpoint and has none, or can't be made.
        """
        self.directory = epath.Path(places.real(os.path.expanduser(workdir))) / "checkpoints"
        there = places.exists(os.fspath(self.directory))
        if must_exist and not there:
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
        self._writes = not must_exist
        self._tidy()
        # Orbax's own policies do not fit its own protocol's types.
        policy: Any = keep
        try:
            self._orbax = ocp.training.Checkpointer(self.directory, preservation_policy=policy)
        except OSError as error:
            raise UserError(
                f"{self.directory}: can't be made or opened ({error.strerror or error})"
            ) from error
        if must_exist and not self.saved():
            raise UserError(f"no complete checkpoint in {self.directory}")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error and jax.process_count() > 1:
            return  # The others may not come to where all would have to meet.
        self._orbax.close()
        self._tidy()

    def save(
        self,
        state: TrainState,
        meta: Mapping[str, Any],
        scores: Mapping[str, float] | None = None,
        primary: str = "",
    ) -> None:
        """Begin to write the checkpoint of `state.step`; returns before it is on disk.

        Where that step is already saved, scores replace it and no scores leave it. `meta` must be
        JSON; `primary` names the score that ranks checkpoints. All processes must call this.
        """
        step = int(jax.device_get(state.step))
        self._orbax.wait()  # Orbax skips a save while another is under way.
        exists = any(c.step == step for c in self._orbax.checkpoints)
        if exists and scores is None:
            return
        if exists:
            self._set_aside(step)
        self._orbax.save_checkpointables_async(
            step,
            {"variables": state.variables, "progress": state.progress},
            force=True,
            overwrite=exists and places.is_remote(self.directory),
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

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The whole state of a step, every array where `abstract` says, on whatever devices it was
        saved from.

        A run that kept no average of its parameters so far begins with one here, if it is to.

        Raises: UserError if names or shapes of the model differ from `abstract`, naming those, or
          if the optimiser is another.
        """
        variables = self.restore_variables(step, abstract.variables)
        stored = self._metadata(step).metadata
        if "progress" not in stored:
            raise UserError(
                f"{self.directory} holds weights alone, no run to go on with: name its folder in "
                "--config.init_from and give another --workdir"
            )
        progress = {"step": abstract.step, "opt_state": abstract.opt_state}
        # A run that keeps averages keeps what they are of as well.
        progress |= {k: v for k, v in abstract.trained.items() if k in stored["progress"]}
        if shapes(stored["progress"]) != shapes(progress):
            raise UserError(
                f"the checkpoint of step {step} in {self.directory} holds the state of another "
                "optimiser: leave config.optimizer as it was, or name the run in "
                "--config.init_from and give another --workdir"
            )
        return abstract.holding(variables, self._load(step, {"progress": progress})["progress"])

    def restore_variables(self, step: int, abstract: Mapping[str, Any]) -> dict[str, Any]:
        """What `model.apply` takes, every array where `abstract` says, without the optimiser's
        state; and `unused`, where converted weights brought it. Raises as `restore`."""
        stored = self._metadata(step).metadata["variables"]
        self._check(step, shapes(_network(stored)), shapes(_network(abstract)))
        beside = {name: tree for name, tree in stored.items() if name not in abstract}
        wanted = {**abstract, **placed(beside, _everywhere(abstract))}
        return self._load(step, {"variables": wanted})["variables"]

    def all_variables(self, step: int, sharding: Sharding) -> dict[str, Any]:
        """The variables of a step, whatever the network, all placed by one `sharding`."""
        stored = self._metadata(step).metadata["variables"]
        return self._load(step, {"variables": placed(stored, sharding)})["variables"]

    def transfer(
        self, step: int, variables: dict[str, Any], part: str = ""
    ) -> tuple[dict[str, Any], bool]:
        """`variables` with all that the checkpoint holds, for another task or class count.

        Where only the classifier's shape differs, it keeps the values of `variables`. All arrays
        lie like those of `variables`.

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
        loaded = _part(self.all_variables(step, _everywhere(variables)), theirs)
        if fresh_head:
            loaded["params"]["head"] = inner["params"]["head"]
        loaded = {
            name: jax.device_put(tree, jax.tree.map(lambda a: a.sharding, inner[name]))
            if name in inner
            else tree
            for name, tree in loaded.items()
        }
        if part:
            loaded = {
                name: {**tree, part: loaded[name]} if name in loaded else tree
                for name, tree in variables.items()
            }
        return loaded, fresh_head

    def _set_aside(self, step: int) -> None:
        """Keep a checkpoint that is about to be overwritten, which Orbax begins by deleting it,
        until the new one is whole. Remote stores can't rename: there it is deleted."""
        if not places.is_remote(self.directory) and jax.process_index() == 0:
            os.rename(self.directory / str(step), self.directory / f"{step}{_ASIDE}")
        _all_are_here("aside")
        self._orbax.reload()

    def _tidy(self) -> None:
        """Put back what was set aside by a process that was then killed, or delete it if its
        successor is whole; delete what it left half written, of which Orbax would warn. Not in a
        directory that is only read: its run may be under way."""
        if not self._writes:
            return
        if not places.is_remote(self.directory) and jax.process_index() == 0:
            for kept in self.directory.glob(f"*{_ASIDE}"):
                place = kept.with_suffix("")
                if place.exists():
                    shutil.rmtree(kept)
                else:
                    os.rename(kept, place)
            for unfinished in self.directory.glob(f"*{_UNFINISHED}"):
                shutil.rmtree(unfinished)
        _all_are_here("tidy")

    def _check(self, step: int, saved: Shapes, wanted: Shapes) -> None:
        if saved != wanted:
            raise UserError(
                f"the checkpoint of step {step} in {self.directory} does not fit the model: "
                f"{differences(saved, wanted)}"
            )

    def _metadata(self, step: int) -> Any:
        self._orbax.wait()  # The step may be the one that is being written.
        return self._orbax.checkpointables_metadata(step)

    def _load(self, step: int, abstract: Any) -> Any:
        return self._orbax.load_checkpointables(step, abstract)


def _all_are_here(what: str) -> None:
    """Wait for all processes."""
    if jax.process_count() > 1:
        sync_global_devices(f"checkpoints: {what}")


def _everywhere(tree: Any) -> Sharding:
    """An array whole on every device that a pytree's arrays lie on."""
    first = jax.tree.leaves(tree)[0].sharding
    return first.update(spec=PartitionSpec()) if isinstance(first, NamedSharding) else first


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
