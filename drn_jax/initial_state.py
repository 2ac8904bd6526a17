"""The state that training begins with, or goes on with."""

import jax
import optax
from jax.sharding import Mesh

from drn_jax import config, program
from drn_jax.errors import UserError
from drn_jax.experiment import Experiment
from drn_jax.models.dilation import ContextNetwork
from drn_jax.report import console
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.state import TrainState


def restored_or_fresh(
    run: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh, checkpoints: Checkpoints
) -> TrainState:
    """The newest state of a working directory, on whatever devices it was made; else a fresh one,
    with the weights that the configuration names. Says which, and what has changed since."""
    newest = checkpoints.latest()
    if newest:
        saved = config.parse(checkpoints.meta(newest.step)["config"])
        for change in config.changes(saved, run.config):
            console.say(f"changed since the checkpoint: {change}")
        console.say(f"going on from step {newest.step} in {checkpoints.directory}")
        return checkpoints.restore(newest.step, program.abstract_state(run, optimizer, mesh))
    state = program.initialiser(run, optimizer, mesh)(jax.random.key(run.config.seed))
    for field, part in sources(run).items():
        with open_source(run, field) as source:
            best = source.choose("best")
            variables, fresh = source.transfer(best.step, state.variables, part)
        state = state.holding(variables, {})
        head = "; the classifier starts fresh, its classes differ" if fresh else ""
        console.say(f"weights from step {best.step} of {getattr(run.config, field)}{head}")
    return state


def sources(run: Experiment) -> dict[str, str]:
    """The fields of the configuration that name weights to start from, and the part of the network
    that each is for; "" is the whole."""
    whole = not isinstance(run.model, ContextNetwork)
    parts = {"init_from": "" if whole else "front_end", "init_context_from": "context"}
    return {field: part for field, part in parts.items() if getattr(run.config, field)}


def open_source(run: Experiment, field: str) -> Checkpoints:
    """The checkpoints that a field names. Raises: UserError if there are none."""
    try:
        return Checkpoints(getattr(run.config, field), must_exist=True)
    except UserError as error:
        raise UserError(f"config.{field}: {error}") from None
