"""Score a trained network on its validation set, from the working directory alone.

    python eval.py --workdir=runs/quickstart
    python eval.py --workdir=runs/quickstart --checkpoint=latest     best (default), latest, or STEP
    python eval.py --workdir=runs/camvid --config.data.dir=FOLDER    where the images now lie

The configuration is the one that was trained with; --config.FIELD=VALUE overrides a field. The
scores are those that training printed, to the last digit.
"""

from absl import flags
from ml_collections import ConfigDict, config_flags

from drn_jax import cli, config, experiment, program, run_report
from drn_jax.report import console
from drn_jax.training import sharding
from drn_jax.training.checkpoint import Checkpoints

WORKDIR, CHECKPOINT = "runs/quickstart", "best"


def define_flags() -> None:
    flags.DEFINE_string("workdir", WORKDIR, "the working directory of a training run")
    flags.DEFINE_string("checkpoint", CHECKPOINT, "best, latest, or a step")
    # The saved configuration must be known before its overrides can be parsed.
    saved = ConfigDict()
    if not cli.asks_for_help():
        with Checkpoints(cli.early_value("workdir", WORKDIR), must_exist=True) as checkpoints:
            step = checkpoints.choose(cli.early_value("checkpoint", CHECKPOINT)).step
            saved = config.complete(checkpoints.meta(step)["config"])
    config_flags.DEFINE_config_dict("config", saved, "the saved configuration")


def main() -> int:
    run = experiment.build(config.parse(flags.FLAGS.config))
    mesh = sharding.make_mesh()
    with Checkpoints(flags.FLAGS.workdir, must_exist=True) as checkpoints:
        chosen = checkpoints.choose(flags.FLAGS.checkpoint)
        variables = checkpoints.restore_variables(
            chosen.step, program.abstract_variables(run), sharding.replicated(mesh)
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
