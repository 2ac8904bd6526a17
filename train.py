"""Train a network on images, and show what it learned.

    python train.py                                            configs/quickstart.py, two CPU cores
    python train.py --config=quickstart:segmentation           a segmenter from that classifier
    python train.py --config=camvid --config.data.dir=FOLDER   any file in configs/
    python train.py --config=quickstart_context                a run in stages

Every number of a run is a field of its configuration: --config.FIELD=VALUE overrides one. The
working directory receives checkpoints, metrics.jsonl, TensorBoard files and report.html. The same
command again goes on where the run stopped. The stages of a run in stages lie in folders below it,
and --config.stages.STAGE.FIELD=VALUE overrides a field.
"""

import contextlib
import dataclasses
import re
import shlex
import sys
from pathlib import Path

import jax
import optax
from absl import flags
from jax.sharding import Mesh
from ml_collections import config_flags

from drn_jax import cli, config, experiment, program, run_report, staged
from drn_jax.errors import UserError, nearest
from drn_jax.experiment import Experiment
from drn_jax.models.dilation import ContextNetwork
from drn_jax.report import console
from drn_jax.training import log, memory, optim, sharding
from drn_jax.training.checkpoint import RANK, Checkpoints
from drn_jax.training.evaluate import Stopped
from drn_jax.training.interrupt import Interrupt
from drn_jax.training.meter import Meter
from drn_jax.training.state import TrainState


def define_flags() -> None:
    config_flags.DEFINE_config_file(
        "config", str(cli.CONFIGS / "quickstart.py"), "NAME or FILE, with :VARIANT if it has any"
    )
    flags.DEFINE_string("workdir", "", "where the run lives; by default runs/NAME of the config")
    flags.DEFINE_string("until", "", "of a configuration in stages, the last one to train")


def main() -> int:
    given, until = flags.FLAGS.config, flags.FLAGS.until
    if "stages" not in given:
        if until:
            raise UserError(f"--until={until}: this configuration has no stages")
        settings = config.parse(given)
        return train_run(settings, Path(flags.FLAGS.workdir or f"runs/{settings.name}"))
    plan = staged.parse(given)
    if until and until not in plan.stages:
        raise UserError(f"--until={until}: no such stage; {nearest(until, plan.stages)}")
    workdir = Path(flags.FLAGS.workdir or f"runs/{plan.name}")
    for stage, settings in plan.under(str(workdir)).items():
        console.say(f"stage {stage}")
        place = workdir / stage
        try:
            status = 0 if is_finished(settings, place) else train_run(settings, place)
        except UserError as error:  # Fields have longer names here.
            longer = rf"\1config.stages.{stage}."
            raise UserError(re.sub(r"(^|\s|--)config\.", longer, str(error))) from None
        if status or stage == until:
            return status
    return 0


def is_finished(settings: config.Config, workdir: Path) -> bool:
    """Whether a stage was trained to its end by these settings."""
    if not (workdir / "report.html").exists():
        return False
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        best = checkpoints.choose("best")
        saved = config.parse(checkpoints.meta(best.step)["config"])
    if config.changes(saved, settings):
        return False
    scores = {name: value for name, value in (best.scores or {}).items() if name != RANK}
    console.say(f"finished before, in {workdir}: {console.scores(scores)}")
    return True


def train_run(settings: config.Config, workdir: Path) -> int:
    """Train one network, or go on with it, and write its report. Returns the exit status."""
    run = experiment.build(settings)
    mesh = sharding.make_mesh()
    sharding.check_batch_size(run.config.batch_size, mesh)
    if not workdir.exists():
        for field in sources(run):
            with open_source(run, field):
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
    console.model_table(run.title, run.costs, run.stride)
    console.say(
        f"{run.dataset.name}: {len(run.dataset.train):,} training and "
        f"{len(run.dataset.validation):,} validation images, {len(run.dataset.classes)} classes; "
        f"on {jax.device_count()} x {jax.devices()[0].device_kind}"
    )


def start(
    run: Experiment, optimizer: optax.GradientTransformation, mesh: Mesh, checkpoints: Checkpoints
) -> TrainState:
    """The newest state of this working directory; else a fresh one, with the weights that the
    configuration names."""
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
    state = initialise(key)
    for field, part in sources(run).items():
        with open_source(run, field) as source:
            best = source.choose("best")
            variables, fresh = source.transfer(best.step, state.variables, everywhere, part)
        state = dataclasses.replace(state, **variables)
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
    total_steps = run.total_steps
    schedule = optim.learning_rate(
        settings.optimizer,
        settings.schedule,
        steps=total_steps,
        steps_per_epoch=run.steps_per_epoch,
    )
    optimizer = optim.create(settings.optimizer, schedule)
    state = start(run, optimizer, mesh, checkpoints)
    start_step, newest = int(state.step), checkpoints.latest()
    scored = start_step if (newest and newest.scores) or start_step == 0 else None
    if start_step >= total_steps and scored is not None:
        longer = "steps" if settings.steps else "epochs"
        console.say(
            f"{workdir} holds a finished run of {start_step} steps: to start afresh delete it or "
            f"give another --workdir; to train on, raise --config.{longer}"
        )
        return True

    (workdir / "report.html").unlink(missing_ok=True)  # It says that a run is finished.
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
    console.say(f"report: {page}; {memory.peak()}")


if __name__ == "__main__":
    cli.run(define_flags, main)
