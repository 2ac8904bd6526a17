"""Train a network on images, and show what it learned.

    python train.py                                            configs/quickstart.py, two CPU cores
    python train.py --config=quickstart:segmentation           a segmenter from that classifier
    python train.py --config=camvid --config.data.dir=FOLDER   any file in configs/
    python train.py --config=quickstart_context                a run in stages

Every number of a run is a field of its configuration: --config.FIELD=VALUE overrides one. The
working directory receives checkpoints, metrics.jsonl, TensorBoard files and report.html. The stages
of a run in stages lie in folders below it, and --config.stages.STAGE.FIELD=VALUE overrides a field.

The same command again goes on where the run stopped. Ctrl-C and SIGTERM save first; the exit status
is then 130 and 143. Many processes, Slurm, Kubernetes, TPUs: docs/hosts.md.
"""

import contextlib
import dataclasses
import os
import re
import shlex
import sys

import jax
from absl import flags
from etils import epath
from jax.sharding import Mesh
from ml_collections import config_flags

from drn_jax import (
    cli,
    config,
    experiment,
    initial_state,
    places,
    program,
    run_report,
    runtime,
    staged,
    trained,
)
from drn_jax.analysis import halo
from drn_jax.errors import UserError, nearest
from drn_jax.experiment import Experiment
from drn_jax.models.stages import output_stride
from drn_jax.report import console
from drn_jax.training import log, memory, optim, peak, sharding
from drn_jax.training.checkpoint import RANK, Checkpoints
from drn_jax.training.evaluate import Stopped
from drn_jax.training.interrupt import Interrupt
from drn_jax.training.meter import Meter
from drn_jax.training.profile import Trace


def define_flags() -> None:
    config_flags.DEFINE_config_file(
        "config", str(cli.CONFIGS / "quickstart.py"), "NAME or FILE, with :VARIANT if it has any"
    )
    flags.DEFINE_string("workdir", "", "where the run lives; by default runs/NAME of the config")
    flags.DEFINE_string("until", "", "of a configuration in stages, the last one to train")
    flags.DEFINE_boolean("profile", False, "trace a few steps into WORKDIR/profile")
    runtime.define_flags()
    flags.adopt_module_key_flags(runtime)  # --help tells of them.


def main() -> int:
    runtime.keep_memory()
    runtime.start()
    given, until = flags.FLAGS.config, flags.FLAGS.until
    if "stages" not in given:
        if until:
            raise UserError(f"--until={until}: this configuration has no stages")
        settings = config.parse(given)
        return train_run(settings, place_of(settings.name))
    plan = staged.parse(given)
    if until and until not in plan.stages:
        raise UserError(f"--until={until}: no such stage; {nearest(until, plan.stages)}")
    workdir = place_of(plan.name)
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


def place_of(name: str) -> epath.Path:
    """The working directory of a configuration."""
    given = os.path.expanduser(flags.FLAGS.workdir or f"runs/{name}")
    if places.is_file(given):
        raise UserError(f"--workdir={given}: is a file; name a folder, which need not exist")
    return epath.Path(given)


def is_finished(settings: config.Config, workdir: epath.Path) -> bool:
    """Whether a stage was trained to its end by these settings."""
    if not places.exists(os.fspath(workdir / "report.html")):
        return False
    with Checkpoints(workdir, must_exist=True) as checkpoints:
        best = checkpoints.choose("best")
        saved = config.parse(checkpoints.meta(best.step)["config"])
    beside = {name: getattr(settings, name) for name in config.BESIDE}
    if config.changes(dataclasses.replace(saved, **beside), settings):
        return False
    scores = {name: value for name, value in (best.scores or {}).items() if name != RANK}
    console.say(f"finished before, in {workdir}: {console.scores(scores)}")
    return True


def train_run(settings: config.Config, workdir: epath.Path) -> int:
    """Train one network, or go on with it, and write its report. Returns the exit status."""
    run = experiment.build(settings)
    mesh = sharding.make_mesh(settings.mesh)
    sharding.share(mesh)  # Refuses what the processes can't share.
    sharding.check_batch(settings.batch_size, settings.accumulate, mesh)
    settings.model.norm.check_batch(settings.batch_size // settings.accumulate)
    margin = run.preprocess.margin
    rows, stride = run.input_shape[0] - 2 * margin, output_stride(run.model.table)
    sharding.check_rows("config.data.crop", rows, margin, stride, mesh)
    if not places.exists(os.fspath(workdir)):
        for field in initial_state.sources(run):
            with initial_state.open_source(run, field):
                pass  # It is there: said before anything is written.
    show(run, mesh)
    validate = program.validator(run, mesh)
    with Checkpoints(workdir) as checkpoints, Interrupt() as interrupt:
        if not train(run, mesh, workdir, checkpoints, validate, interrupt):
            return interrupt.exit_code
        with contextlib.suppress(Stopped):  # The same command writes the report.
            report(run, mesh, workdir, checkpoints, validate, interrupt)
        return interrupt.exit_code if interrupt.asked() else 0


def show(run: Experiment, mesh: Mesh) -> None:
    """Print the table of the model, what it will see, and on what it will run."""
    console.model_table(run.title, run.costs, run.fields, run.places)
    console.say(
        f"{run.dataset.name}: {len(run.dataset.train):,} training and "
        f"{len(run.dataset.validation):,} validation images, {len(run.dataset.classes)} classes; "
        f"on {sharding.described(mesh)}"
    )
    console.say(runtime.compiled_place())
    rows, parts = run.input_shape[0], mesh.shape["spatial"]
    unit = parts * output_stride(run.model.table)
    if parts > 1 and rows % unit:
        console.say(
            f"the {rows} rows of the network's input are no multiple of {unit}, "
            "config.mesh.spatial times the network's stride: some maps won't split evenly, and "
            "may be gathered"
        )
    for row in halo.outgrown(run.model.table, rows, parts):
        console.say(
            f"{row.name}: its convolutions reach {row.rows} rows beyond the {row.held} that a "
            "device holds, so rows travel over several devices: lower config.mesh.spatial or use "
            "taller crops"
        )


def train(
    run: Experiment,
    mesh: Mesh,
    workdir: epath.Path,
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
    state = initial_state.restored_or_fresh(run, optimizer, mesh, checkpoints)
    start_step, newest = int(jax.device_get(state.step)), checkpoints.latest()
    scored = start_step if (newest and newest.scores) or start_step == 0 else None
    longer = "steps" if settings.steps else "epochs"
    if start_step > total_steps and scored is None:
        raise UserError(
            f"{workdir} was stopped at step {start_step}, beyond the {total_steps} steps of "
            f"config.{longer}: raise it, or give another --workdir"
        )
    if start_step >= total_steps and scored is not None:
        console.say(
            f"{workdir} holds a finished run of {start_step} steps: to start afresh delete it or "
            f"give another --workdir; to train on, raise --config.{longer}"
        )
        return True

    first_process = jax.process_index() == 0
    if first_process:
        (workdir / "report.html").unlink(missing_ok=True)  # It says that a run is finished.
    train_step = program.trainer(run, optimizer, mesh)
    meter = Meter(
        settings.batch_size,
        schedule,
        flops=peak.training_flops(run.costs),
        peak=peak.together(),
    )
    meta = {"config": dataclasses.asdict(settings), **trained.known(run.dataset)}
    batches = run.training_batches(start_step, sharding.share(mesh))
    traced = workdir / "profile" if flags.FLAGS.profile and first_process else None
    with (
        log.Log(workdir, start_step, first_process, scored is not None) as writer,
        console.RunProgress(start_step, total_steps) as progress,
        Trace(traced, start_step, console.say) as trace,
    ):

        def save(scores: dict[str, float] | None = None) -> None:
            meter.fetch()  # Raises if the loss is no number: such a state is not saved.
            writer.flush()  # First: what is lost of the rows before a checkpoint never returns.
            checkpoints.save(state, meta, scores, run.task.primary)
            meter.pause()

        for step in range(start_step, total_steps + 1):
            epoch, last = step / run.steps_per_epoch, step == total_steps
            due = step % (settings.eval_epochs * run.steps_per_epoch) == 0 or last
            if step > start_step:
                with meter.input():
                    batch = sharding.to_devices(next(batches), mesh)
                with jax.transfer_guard("disallow"):
                    state, metrics = train_step(state, batch)
                    meter.add(step, metrics)
                progress.advance(step, epoch, meter.loss, meter.images_per_second)
                if step % settings.log_steps == 0 or last:
                    row = meter.row(step)
                    writer.write(step, {"epoch": epoch, **row})
                    progress.line(step, epoch, row, settings.batch_size)
                if trace.after(step, pausing=due):
                    meter.pause()
            stop = interrupt.asked()
            if due and step != scored and not stop:
                meter.fetch()
                with contextlib.suppress(Stopped):
                    totals = validate(state.variables, interrupt.asked)
                    scores, scored = run.task.scores(totals), step
                    values = {f"val_{name}": value for name, value in scores.items()}
                    writer.write(step, {"epoch": epoch, **values})
                    console.say(f"validation at step {step}: {console.scores(scores)}")
                    save(scores)
                meter.pause()  # Also if the validation was stopped.
                stop = interrupt.asked()
            elif settings.save_steps and step % settings.save_steps == 0 and step > start_step:
                save()
            if stop and not (last and step == scored):
                save()
                console.say(f"stopped at step {step} and saved; the same command goes on from it")
                return False
    return True


def report(
    run: Experiment,
    mesh: Mesh,
    workdir: epath.Path,
    checkpoints: Checkpoints,
    validate: program.Validate,
    interrupt: Interrupt,
) -> None:
    """Score the best checkpoint once more, and write report.html about it. Raises: Stopped."""
    best = checkpoints.choose("best")
    variables = checkpoints.restore_variables(best.step, program.abstract_variables(run, mesh))
    totals = validate(variables, interrupt.asked)
    console.say(f"best, of step {best.step}: {console.scores(run.task.scores(totals))}")
    page = workdir / "report.html"
    predict = program.predictor(run, variables, mesh)
    if jax.process_index() > 0:
        return
    run_report.write_report(
        page,
        run,
        predict,
        totals,
        best.step,
        log.read(workdir),
        command=shlex.join(["python", *sys.argv]),
    )
    console.say(f"report: {page}; {memory.peak()}")


if __name__ == "__main__":
    cli.run(define_flags, main)
