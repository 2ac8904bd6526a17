"""Score a trained network on its validation set, from the working directory alone.

    python eval.py --workdir=runs/quickstart
    python eval.py --workdir=runs/quickstart --checkpoint=latest     best (default), latest, or STEP
    python eval.py --workdir=runs/camvid --config.data.dir=FOLDER    where the images now lie

The configuration is the one that was trained with, but for `mesh`: each of the devices that are
there takes images of its own (--config.mesh.spatial=N where an image does not fit into one).
--config.FIELD=VALUE overrides a field. The scores are those that training printed; on other
devices, or another mesh, but for rounding.
"""

import dataclasses
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from drn_jax import cli, config, experiment, program, run_report, runtime
from drn_jax.report import console
from drn_jax.training import sharding
from drn_jax.training.checkpoint import Checkpoints


def define_flags() -> None:
    flags.DEFINE_string("workdir", "runs/quickstart", "the working directory of a training run")
    flags.DEFINE_string("checkpoint", "best", "best, latest, or a step")
    runtime.define_flags()
    flags.adopt_module_key_flags(runtime)  # --help tells of them.
    # The saved configuration must be known before its overrides can be parsed.
    saved = ConfigDict()
    if not cli.asks_for_help():
        flags.FLAGS(sys.argv, known_only=True)
        runtime.start()
        with Checkpoints(flags.FLAGS.workdir, must_exist=True) as checkpoints:
            step = checkpoints.choose(flags.FLAGS.checkpoint).step
            saved = config.parse(checkpoints.meta(step)["config"])
        saved = dataclasses.replace(saved, mesh=sharding.MeshShape())
        saved = ConfigDict(dataclasses.asdict(saved))
    config_flags.DEFINE_config_dict("config", saved, "the saved configuration")


def main() -> int:
    run = experiment.build(config.parse(flags.FLAGS.config))
    mesh = sharding.make_mesh(run.config.mesh)
    with Checkpoints(flags.FLAGS.workdir, must_exist=True) as checkpoints:
        chosen = checkpoints.choose(flags.FLAGS.checkpoint)
        variables = checkpoints.restore_variables(
            chosen.step, program.abstract_variables(run, mesh)
        )
    totals = program.validator(run, mesh)(variables)
    console.class_table(run_report.class_rows(run, totals))
    console.say(
        f"{run.config.model.name}, step {chosen.step}, on the {len(run.dataset.validation):,} "
        f"validation images of {run.dataset.name}"
    )
    console.say(console.scores(run.task.scores(totals)))
    return 0


if __name__ == "__main__":
    cli.run(define_flags, main)
