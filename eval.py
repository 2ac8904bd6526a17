"""Judge a trained network, from the working directory alone.

    python eval.py --workdir=runs/quickstart                     the scores that training printed
    python eval.py --workdir=runs/quickstart --crops=10          ten crops of each image
    python eval.py --workdir=runs/quickstart --localise          boxes from the classifier
    python eval.py --workdir=runs/streets --scales=published     several scales, full resolution
    python eval.py --workdir=runs/streets --flip --boundary      mirrored too; boundaries scored
    python eval.py --workdir=runs/streets --export=DIR           masks for Cityscapes' scripts
    python eval.py --workdir=runs/camvid --config.data.dir=FOLDER    where the images now lie

The configuration is the one that was trained with, but for `mesh`: each of the devices that are
there takes images of its own (--config.mesh.spatial=N where an image does not fit into one).
--config.FIELD=VALUE overrides a field. The scores are those that training printed; on other
devices, or another mesh, but for rounding. --scales, --flip, --boundary, --memory, --export and
--split go image by image, on the first device.

A page and results.json, which names the protocol to the letter, are written to
WORKDIR/eval/PROTOCOL, in place of what the same protocol left there before. docs/evaluation.md
describes the protocols; `python -m drn_jax.summary` puts the results of several seeds together.
"""

import dataclasses
import shlex
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from drn_jax import cli, config, experiment, models, places, program, runtime, trained
from drn_jax.analysis import cost, price, receptive_field
from drn_jax.analysis.price import Price
from drn_jax.data.dataset import Source
from drn_jax.errors import UserError
from drn_jax.evaluation import cityscapes, judge, judge_boxes, results
from drn_jax.evaluation.crops import Crops
from drn_jax.evaluation.dense import ClassMaps, default_sides, for_memory
from drn_jax.evaluation.localisation import Localisation
from drn_jax.evaluation.pixels import PixelScores, Scales, factors, scaled
from drn_jax.evaluation.results import Judged, Outcome
from drn_jax.experiment import Experiment
from drn_jax.report import console
from drn_jax.tasks import Segmentation
from drn_jax.trained import Trained
from drn_jax.training import memory, sharding
from drn_jax.training.checkpoint import Checkpoints
from drn_jax.training.steps import Variables

Write = Callable[[int, np.ndarray], None]
"""What is done with the mask of every image, by its number."""

OF_BOXES = ("map", "map_of", "threshold")
OF_CLASSIFIERS = ("crops", "average", "localise", *OF_BOXES)
OF_SEGMENTERS = ("scales", "flip", "combine", "boundary", "export", "memory", "split")


def define_flags() -> None:
    flags.DEFINE_string("workdir", "runs/quickstart", "the working directory of a training run")
    flags.DEFINE_string("checkpoint", "best", "best, latest, or a step")
    flags.DEFINE_string("out", "", "where results are written; by default WORKDIR/eval/PROTOCOL")
    flags.DEFINE_enum("crops", "1", ["1", "10"], "classifier: the centre crop, or ten crops")
    flags.DEFINE_enum("average", "softmax", ["softmax", "logits"], "of what, over ten crops")
    flags.DEFINE_boolean("localise", False, "classifier: score boxes read from its class map")
    flags.DEFINE_enum("map", "softmax", ["softmax", "logits"], "what the threshold is applied to")
    flags.DEFINE_enum("map_of", "crop", ["crop", "whole"], "what the class map is of")
    flags.DEFINE_float("threshold", None, "the boxes'; by default chosen on training images")
    flags.DEFINE_string("scales", "", "segmenter: factors, as 1,0.5,2; or published")
    flags.DEFINE_boolean("flip", False, "segmenter: the mirrored image as well")
    flags.DEFINE_enum(
        "combine",
        "log_probabilities",
        ["log_probabilities", "probabilities"],
        "what is added up over scales",
    )
    flags.DEFINE_boolean("boundary", False, "segmenter: score boundaries too")
    flags.DEFINE_string("export", "", "segmenter: a folder for masks of Cityscapes' labelIds")
    flags.DEFINE_float("memory", 0.0, "segmenter: GB for activations; tiles as large as that lets")
    flags.DEFINE_enum("split", "validation", ["validation", "test"], "segmenter: what is scored")
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
    given = flags.FLAGS
    settings = config.parse(given.config)
    check_flags(settings)
    run = experiment.build(settings, boxes=given.localise)
    mesh = sharding.make_mesh(settings.mesh)
    if jax.process_index() == 0:
        results.require_folder(given.out or places.join(given.workdir, "eval"))
    with Checkpoints(given.workdir, must_exist=True) as checkpoints:
        chosen = checkpoints.choose(given.checkpoint)
        variables = checkpoints.restore_variables(
            chosen.step, program.abstract_variables(run, mesh)
        )
        meta = checkpoints.meta(chosen.step)
    check_held_out(settings, config.parse(meta["config"]))
    network = whole_network(run, program.here(variables, mesh), chosen.step)
    outcome = judged_by(run, mesh, variables, network)
    if jax.process_index() > 0:
        return 0
    judged = judged_of(run, network, "source" in meta)
    if outcome.per_class:
        console.class_table(outcome.per_class)
    for table in outcome.tables:
        console.table(table.columns, {row[0]: row[1:] for row in table.rows})
        for note in table.notes:
            console.say(note)
    name = outcome.protocol["name"] + ("" if outcome.split == "validation" else f"_{outcome.split}")
    if given.checkpoint != "best":
        name += f"_step_{chosen.step}"
    folder = given.out or places.join(given.workdir, "eval", name)
    replaced = results.save(folder, judged, outcome, shlex.join(["python", *sys.argv]))
    if replaced:
        console.say(f"in place of other results: {replaced}")
    console.say(f"report: {places.join(folder, 'report.html')} and results.json; {memory.peak()}")
    console.say(
        f"{settings.model.name}, step {chosen.step}, on the {outcome.images:,} "
        f"{outcome.split} images of {run.dataset.name}"
    )
    prefix = "val_" if outcome.split == "validation" else f"{outcome.split}_"
    console.say(console.scores(outcome.told, prefix))
    return 0


def check_flags(settings: config.Config) -> None:
    """Raise UserError for a flag that is not for such a run."""
    classifier = settings.task == "classification"
    for name in OF_SEGMENTERS if classifier else OF_CLASSIFIERS:
        if flags.FLAGS[name].present:
            kind = "a segmentation" if classifier else "a classification"
            raise UserError(f"--{name} is for {kind} run, and {flags.FLAGS.workdir} is none")
    for name in OF_BOXES:
        if flags.FLAGS[name].present and not flags.FLAGS.localise:
            raise UserError(f"--{name} is for the boxes of --localise, which is not asked for")
    if jax.process_count() > 1 and not as_trained():
        raise UserError(
            "several processes can only repeat the validation of training: start eval.py once, "
            "without --distributed"
        )


def check_held_out(settings: config.Config, trained_with: config.Config) -> None:
    """Raise UserError where images are to be held out that were trained on."""
    asked, before = (getattr(c.data, "held_out", 0) for c in (settings, trained_with))
    if asked != before:
        raise UserError(
            f"config.data.held_out = {asked}: the network was trained with {before}, which can't "
            "be changed afterwards"
        )


def whole_network(run: Experiment, variables: Variables, step: int) -> Trained:
    """The network from images to pixels; of a context module with its front end."""
    if isinstance(run.config.data, config.MapData):
        return trained.load(flags.FLAGS.workdir, str(step), config=run.config)
    return trained.of_run(run, variables, step)


def judged_of(run: Experiment, network: Trained, converted: bool) -> Judged:
    """What the results say of the checkpoint."""
    judged = Judged(
        config=run.config,
        title=run.title,
        data=getattr(run.config.data, "name", ""),
        dataset=run.dataset.name,
        workdir=flags.FLAGS.workdir,
        step=network.step,
        digest=network.digest,
        converted=converted,
        price=run.price,
        places=run.places,
    )
    front, data = network.front_end, run.config.data
    if front is None or not isinstance(data, config.MapData):
        return judged
    return dataclasses.replace(
        judged,
        model=front.config.model.name,
        data=getattr(front.config.data, "name", ""),
        price=of_both(run, network),
        places="pixels",
        front_end={"workdir": data.front_end, "step": front.step, "sha256": front.digest},
    )


def of_both(run: Experiment, network: Trained) -> Price:
    """The price of a context module and its front end, for an image as large as the maps that the
    module was trained on."""
    rows = models.rows_of(network.model)
    height, width = (side + 2 * network.preprocess.margin for side in run.crop)
    itemsize = jnp.dtype(run.config.model.dtype).itemsize
    costs = cost.of(rows, height, width, pooled=False, itemsize=itemsize)
    return price.of(costs, receptive_field.of_stages(rows), height, width)


def as_trained() -> bool:
    """Whether nothing but the validation of training is asked for."""
    given = flags.FLAGS
    return not any(given[name].present for name in (*OF_CLASSIFIERS, *OF_SEGMENTERS))


def judged_by(run: Experiment, mesh: Mesh, variables: Variables, network: Trained) -> Outcome:
    """The checkpoint by the protocol that the flags say."""
    given, data = flags.FLAGS, run.config.data
    if as_trained():
        return judge.as_trained(run, mesh, variables)
    if isinstance(data, config.ClassificationData):
        crops = Crops(data.resize, data.crop, 10 if given.crops == "10" else 1, given.average)
        if not given.localise:
            return judge.cropped(run, mesh, variables, crops)
        protocol = Localisation(given.map, given.threshold, image=given.map_of)
        return judge_boxes.localised(run, mesh, variables, crops, protocol)
    return full_resolution(run, network)


def full_resolution(run: Experiment, network: Trained) -> Outcome:
    """A segmenter on whole images, one by one."""
    given = flags.FLAGS
    scales = Scales(factors(given.scales), given.flip, given.combine)
    source = run.pictures
    if given.split == "test":
        if run.dataset.test is None:
            raise UserError(
                f"--split=test: {run.dataset.name} has no test images with labels where it lies"
            )
        source = run.dataset.test
    write: Write = exporter(run, source) if given.export else lambda index, mask: None
    if not isinstance(network.task, Segmentation):
        raise UserError(f"{given.workdir} is no segmentation run")
    margin = network.preprocess.margin
    table = models.rows_of(network.model)
    if given.memory:
        sides = for_memory(table, given.memory, margin)
    else:
        sides = (*default_sides(table, margin), *whole(run, source, scales))
    maps = ClassMaps(network.model, network.preprocess, network.variables, sides)
    scorer = PixelScores(maps, network.task, scales)
    return judge.at_full_resolution(run, scorer, scales, source, given.split, given.boundary, write)


def whole(run: Experiment, source: Source, scales: Scales) -> list[tuple[int, int]]:
    """The sizes of the images at every scale, if they are all of one size: each a window of its
    own, of which nothing is computed twice."""
    if run.dataset.validation_sizes() is not None:
        return []
    height, width = source[0]["image"].shape[:2]
    return [scaled((height, width), factor) for factor in scales.scales]


def exporter(run: Experiment, source: Source) -> Write:
    """What writes each mask to --export."""
    cityscapes.require_classes(run.dataset.classes)
    names = cityscapes.image_names(source)

    def write(index: int, mask: np.ndarray) -> None:
        cityscapes.write(flags.FLAGS.export, names[index], mask)

    return write


if __name__ == "__main__":
    cli.run(define_flags, main)
