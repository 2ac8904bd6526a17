"""Train a network on images, and show what it learned.

    python train.py                                            configs/quickstart.py, two CPU cores
    python train.py --config=quickstart:segmentation           a segmenter from that classifier
    python train.py --config=camvid --config.data.dir=FOLDER   any file in configs/

Every number of a run is a field of its configuration: --config.FIELD=VALUE overrides one. The
working directory receives checkpoints, metrics.jsonl, TensorBoard files and report.html. The same
command again goes on where the run stopped.
"""

import contextlib
import dataclasses
import shlex
import sys
from pathlib import Path

import jax
import optax
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_flags

from drn_jax import cli, config, experiment, program, run_report
from drn_jax.analysis import cost
from drn_jax.errors import UserError
from drn_jax.experiment import Experiment
from drn_jax.models.stages import output_stride
from drn_jax.report import console
from drn_jax.training import log, optim, sharding
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.evaluate import Stopped
from drn_jax.training.interrupt import Interrupt
from drn_jax.training.meter import Meter
from drn_jax.training.state import TrainState


def define_flags() -> None:
    config_flags.DEFINE_config_file(
        "config", str(cli.CONFIGS / "quickstart.py"), "NAME or FILE, with :VARIANT if it has any"
    )
    flags.DEFINE_string("workdir", "", "where the run lives; by default runs/NAME of the config")


def main() -> int:
    run = experiment.build(config.parse(flags.FLAGS.config))
    workdir = Path(flags.FLAGS.workdir or f"runs/{run.config.name}")
    mesh = sharding.make_mesh()
    sharding.check_batch_size(run.config.batch_size, mesh)
    if run.config.init_from and not workdir.exists():
        with open_source(run):
            pass  # It is there: said before anything is written.
    show(run)
    validate = program.validator(run, mesh)
    with Checkpoints(workdir) as checkpoints, Interrupt() as interrupt:
        if not train(run, mesh, workdir, checkpoints, validate, interrupt):
            return interrupt.exit_code
        report(run, mesh, workdir, checkpoints, validate)
    return 0


def show(run: Experiment) -> None:
    """Print the table of the model, and what it will see."""
    pooled = run.config.task == "classification"
    costs = cost.of_stages(run.model.stages, run.model.num_classes, *run.crop, pooled=pooled)
    name = f"{run.config.model.name}, width {run.config.model.width:g}"
    console.model_table(name, costs, output_stride(run.model.stages))
    console.say(
        f"{run.dataset.name}: {len(run.dataset.train):,} training and "
        f"{len(run.dataset.validation):,} validation images, {len(run.dataset.classes)} classes; "
        f"on {jax.device_count()} x {jax.devices()[0].device_kind}"
    )


def start(
    run: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh, checkpoints: Checkpoints
) -> TrainState:
    """The newest state of this working directory; else a fresh one, from `init_from` if given."""
    initialise = program.initialiser(run, optimizer, mesh)
    key = jax.random.key(run.config.seed)
    everywhere = sharding.replicated(mesh)
    newest = checkpoints.latest()
    if newest:
        saved = config.parse(checkpoints.meta(newest.step)["config"])
        for change in config.changes(saved, run.config):
            console.say(f"changed since the checkpoint: {change}")
        console.say(f"going on from step {newest.step} in {checkpoints.directory}")
        return checkpoints.restore(newest.step, jax.eval_shape(initialise, key), everywhere)
    if not run.config.init_from:
        return initialise(key)
    with open_source(run) as source:
        best = source.choose("best")
        state = initialise(key)
        variables, fresh_head = source.transfer(best.step, state.variables, everywhere)
    head = "; the classifier starts fresh, its classes differ" if fresh_head else ""
    console.say(f"weights from step {best.step} of {run.config.init_from}{head}")
    return dataclasses.replace(state, **variables)


def open_source(run: Experiment) -> Checkpoints:
    """The checkpoints that `init_from` names. Raises: UserError if there are none."""
    try:
        return Checkpoints(run.config.init_from, must_exist=True)
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from None


def train(
    run: Experiment,
    mesh: Mesh,
    workdir: Path,
    checkpoints: Checkpoints,
    validate: program.Validate,
    interrupt: Interrupt,
) -> bool:
    """Train to the last epoch; False if stopped by a signal, with the state saved."""
    settings = run.config
    total_steps = settings.epochs * run.steps_per_epoch
    schedule = optim.learning_rate(
        settings.optimizer,
        settings.schedule,
        steps=total_steps,
        steps_per_epoch=run.steps_per_epoch,
    )
    optimizer = optim.sgd(schedule, settings.optimizer.momentum, settings.optimizer.weight_decay)
    state = start(run, optimizer, mesh, checkpoints)
    start_step, newest = int(state.step), checkpoints.latest()
    scored = start_step if (newest and newest.scores) or start_step == 0 else None
    if start_step >= total_steps and scored is not None:
        console.say(
            f"{workdir} holds a finished run of {start_step} steps: to start afresh delete it or "
            "give another --workdir; to train on, raise --config.epochs"
        )
        return True

    train_step = program.trainer(run, optimizer, mesh)
    meter = Meter(settings.batch_size, schedule)
    meta = {"config": dataclasses.asdict(settings), "classes": list(run.dataset.classes)}
    batches = run.training_batches(start_step)
    with (
        log.Log(workdir, start_step) as writer,
        console.RunProgress(start_step, total_steps) as progress,
    ):
        for step in range(start_step, total_steps + 1):
            epoch, last = step / run.steps_per_epoch, step == total_steps
            if step > start_step:
                state, metrics = train_step(state, sharding.to_devices(next(batches), mesh))
                meter.add(step, metrics)
                progress.advance(step, epoch, meter.loss, meter.images_per_second)
                if step % settings.log_steps == 0 or last:
                    row = meter.row(step)
                    writer.write(step, {"epoch": epoch, **row})
                    progress.line(step, epoch, row, settings.batch_size)
            due = step % (settings.eval_epochs * run.steps_per_epoch) == 0 or last
            if due and step != scored and not interrupt.signal:
                meter.fetch()  # Raises if the loss is no number: such a state is not saved.
                with contextlib.suppress(Stopped):
                    totals = validate(state.variables, lambda: interrupt.signal is not None)
                    scores, scored = run.task.scores(totals), step
                    values = {f"val_{name}": value for name, value in scores.items()}
                    writer.write(step, {"epoch": epoch, **values})
                    console.say(f"validation at step {step}: {console.scores(scores)}")
                    checkpoints.save(state, meta, scores, run.task.primary)
                meter.pause()
            if interrupt.signal and not (last and step == scored):
                meter.fetch()
                checkpoints.save(state, meta)
                console.say(f"stopped at step {step} and saved; the same command goes on from it")
                return False
    return True


def report(
    run: Experiment,
    mesh: Mesh,
    workdir: Path,
    checkpoints: Checkpoints,
    validate: program.Validate,
) -> None:
    """Score the best checkpoint once more, and write report.html about it."""
    best = checkpoints.choose("best")
    everywhere = sharding.replicated(mesh)
    variables = checkpoints.restore_variables(
        best.step, program.abstract_variables(run), everywhere
    )
    totals = validate(variables)
    console.say(f"best, of step {best.step}: {console.scores(run.task.scores(totals))}")
    page = workdir / "report.html"
    run_report.write_report(
        page,
        run,
        program.predictor(run, variables),
        totals,
        best.step,
        log.read(workdir),
        command=shlex.join(["python", *sys.argv]),
    )
    console.say(f"report: {page}")


if __name__ == "__main__":
    cli.run(define_flags, main)
