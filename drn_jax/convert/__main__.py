"""Bring published weights in, take ours out.

    python -m drn_jax.convert torch FILE --model NAME --out DIR     a .pth file to a checkpoint
    python -m drn_jax.convert caffe FILE --model NAME --out DIR     a .caffemodel to a checkpoint
    python -m drn_jax.convert dump DIR --out FILE                   a checkpoint to a .pth file

DIR is then a working directory: `eval.py --workdir=DIR --config.data.dir=FOLDER` scores it, and
`train.py --config.init_from=DIR` starts from it, also with other classes. For a context module
alone name its front end, too: `--config.data.front_end=ITS_DIR`.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from ml_collections import ConfigDict

from drn_jax import cli, config, trained
from drn_jax.convert import caffe, torch
from drn_jax.convert.names import CAFFE, LAYOUTS, TORCH
from drn_jax.convert.rules import UNUSED, Variables, num_classes, sha256
from drn_jax.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from drn_jax.data.labels.camvid import CAMVID_DILATION
from drn_jax.data.labels.cityscapes import CITYSCAPES
from drn_jax.data.labels.kitti import KITTI
from drn_jax.data.labels.pascal_voc import PASCAL_VOC
from drn_jax.data.sets import camvid, cityscapes, kitti, pascal_voc
from drn_jax.errors import UserError
from drn_jax.models.dilation import PUBLISHED
from drn_jax.report import console
from drn_jax.tasks.segmentation import PUBLISHED_DILATION, Grid
from drn_jax.training import sharding
from drn_jax.training.checkpoint import Checkpoints

_CAFFE = "caffe"
"""What the metadata of Caffe's weights call the layout."""

_SETS = {
    "dilation8_pascal_voc": "pascal_voc",
    "dilation8_camvid": "camvid_640",
    "dilation7_kitti": "kitti",
    "dilation10_cityscapes": "cityscapes",
}
"""The sets that the dilated nets were published for, with the order of their classes."""

_SPACES = {
    "pascal_voc": (PASCAL_VOC, pascal_voc.MEAN, IMAGENET_STD),
    "camvid_640": (CAMVID_DILATION, camvid.MEAN, camvid.STD),
    "kitti": (KITTI, kitti.MEAN, IMAGENET_STD),
    "cityscapes": (CITYSCAPES, cityscapes.MEAN, cityscapes.STD),
}
"""Classes of the published sets, mean and deviation of their images."""

_IMAGENET = {"name": "imagenet", "crop": 224, "resize": 256}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m drn_jax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser("torch", help="PyTorch's weights to a checkpoint")
    bring.add_argument("file", help="a .pth or .pth.tar file: fyu/drn, torchvision, pytorchcv")
    _describe_model(bring, TORCH)
    bring.add_argument("--variant", default="", help="of DRN-A: paper (default), published_code")
    bring.set_defaults(act=torch_to_checkpoint)
    bring = commands.add_parser("caffe", help="Caffe's weights to a checkpoint")
    bring.add_argument("file", help="a binary .caffemodel file: VGG-16, fyu/dilation")
    _describe_model(bring, CAFFE)
    bring.set_defaults(act=caffe_to_checkpoint)
    take = commands.add_parser("dump", help="a checkpoint to PyTorch's weights")
    take.add_argument("workdir", help="the working directory of a run, or converted weights")
    take.add_argument("--checkpoint", default="best", help="best (default), latest, or a step")
    take.add_argument("--layout", default="", choices=LAYOUTS)
    take.add_argument("--out", required=True, help="the new .pth file")
    take.set_defaults(act=checkpoint_to_torch)
    arguments = parser.parse_args()
    try:
        arguments.act(arguments)
    except UserError as error:
        cli.fail(str(error))


def torch_to_checkpoint(arguments: argparse.Namespace) -> None:
    """Write a PyTorch file's weights as a checkpoint."""
    _check_new(arguments.out)
    torch.table(arguments.model, arguments.width)  # Before the file: it may be Caffe's.
    state = torch.read(arguments.file)
    variables = torch.load(arguments.model, state, arguments.width, arguments.file)
    layout = torch.layout_of(state)
    task, data = "classification", _IMAGENET
    if layout == "fyu_segment":
        name = "cityscapes" if num_classes(variables) == 19 else "list_folder"
        task, data = "segmentation", {"name": name, "crop": (896, 896), "grid": {"border": "zero"}}
    options = {"variant": arguments.variant, "running_variance": "unbiased"}
    _write(arguments, variables, layout, _config(arguments, task, data, options))


def caffe_to_checkpoint(arguments: argparse.Namespace) -> None:
    """Write a Caffe file's weights as a checkpoint."""
    _check_new(arguments.out)
    name = arguments.model
    variables = caffe.load(name, arguments.file, arguments.width)
    net = PUBLISHED.get(name)
    grid = dataclasses.asdict(Grid() if net and net.upsampling else PUBLISHED_DILATION)
    if name == "vgg_16":
        task, data = "classification", _IMAGENET
    elif net and not net.front_end:
        task, data = "context", {"front_end": "", "grid": grid}
    else:
        data = {"name": _SETS.get(name, "list_folder"), "crop": (256, 256), "grid": grid}
        task = "segmentation"
    _write(arguments, variables, _CAFFE, _config(arguments, task, data))


def checkpoint_to_torch(arguments: argparse.Namespace) -> None:
    """Write a checkpoint's weights as a file for PyTorch's `load_state_dict`."""
    with Checkpoints(arguments.workdir, must_exist=True) as checkpoints:
        step = checkpoints.choose(arguments.checkpoint).step
        meta = checkpoints.meta(step)
        mesh = sharding.make_mesh()
        variables = checkpoints.all_variables(step, sharding.replicated(mesh))
    saved = config.parse(meta["config"])
    source = meta.get("source", {}).get("layout")
    layout = arguments.layout or (source if source in LAYOUTS else "")
    state = torch.dump(saved.model.name, jax.device_get(variables), layout, saved.model.width)
    torch.write(arguments.out, state)
    said = f"names as {torch.layout_of(state)}"
    console.say(f"{saved.model.name}, step {step}: {len(state)} arrays, {said}")
    console.say(f"written to {arguments.out}")


def _describe_model(bring: argparse.ArgumentParser, known: Iterable[str]) -> None:
    bring.add_argument("--model", required=True, help=f"one of {', '.join(known)}")
    bring.add_argument("--width", type=float, default=1.0, help="of the network; default 1")
    bring.add_argument("--out", required=True, help="the new working directory")


def _check_new(directory: str) -> None:
    out = Path(directory)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out={directory} is no empty directory: name a new one")


def _write(
    arguments: argparse.Namespace, variables: Variables, layout: str, settings: ConfigDict
) -> None:
    """Write variables as a checkpoint, with the SHA-256 of the file that they come from."""
    digest = sha256(arguments.file)
    source = {"file": Path(arguments.file).name, "sha256": digest, "layout": layout}
    given = settings.to_dict()
    known = _known(given["data"].get("name", ""), num_classes(variables))
    with Checkpoints(arguments.out) as checkpoints:
        checkpoints.save_weights(variables, {"config": given, "source": source, **known})
    count = sum(a.size for a in jax.tree.leaves(variables["params"]))
    unused = sum(a.size for a in jax.tree.leaves(variables.get(UNUSED, {})))
    besides = f" and {unused:,} numbers that take no part" if unused else ""
    classes = num_classes(variables)
    console.say(f"{arguments.model}: {count:,} parameters{besides}, {classes} classes")
    console.say(f"from {source['file']} (SHA-256 {digest}, names as {layout})")
    console.say(f"written to {arguments.out}")


def _known(name: str, classes: int) -> dict[str, Any]:
    """What is known of a set without having it; nothing where it is not the published one."""
    if name == "imagenet":
        numbers = tuple(f"class {i}" for i in range(classes))
        return trained.described(numbers, None, IMAGENET_MEAN, IMAGENET_STD)
    space, mean, std = _SPACES.get(name, (None, IMAGENET_MEAN, IMAGENET_STD))
    if space is None or len(space.classes) != classes:
        return {}
    return trained.described(space.names, space.colors, mean, std)


def _config(
    arguments: argparse.Namespace,
    task: str,
    data: Mapping[str, Any],
    options: Mapping[str, Any] = MappingProxyType({}),
) -> ConfigDict:
    """What eval.py needs to know of converted weights: the sets that they were published for, and
    the network's options."""
    given = {
        "name": f"converted_{arguments.model}",
        "task": task,
        "model": {"name": arguments.model, "width": arguments.width, **options},
        "data": dict(data),
        "batch_size": 1 if arguments.model in CAFFE and task != "classification" else 8,
        "epochs": 1,
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"kind": "poly"},
    }
    return config.complete(ConfigDict(given))


if __name__ == "__main__":
    sys.exit(main())
