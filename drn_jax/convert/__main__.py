"""Bring published weights in, take ours out.

    python -m drn_jax.convert torch FILE --model NAME --out DIR     a .pth file to a checkpoint
    python -m drn_jax.convert dump DIR --out FILE                   a checkpoint to a .pth file

DIR is then a working directory: `eval.py --workdir=DIR --config.data.dir=FOLDER` scores it, and
`train.py --config.init_from=DIR` starts from it, also with other classes.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from drn_jax import cli, config, models
from drn_jax.convert import torch as rules
from drn_jax.errors import UserError
from drn_jax.report import console
from drn_jax.training import sharding
from drn_jax.training.checkpoint import Checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m drn_jax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser("torch", help="PyTorch's weights to a checkpoint")
    bring.add_argument("file", help="a .pth or .pth.tar file: fyu/drn, torchvision, pytorchcv")
    bring.add_argument("--model", required=True, help=f"one of {', '.join(models.MODELS)}")
    bring.add_argument("--width", type=float, default=1.0, help="of the network; default 1")
    bring.add_argument("--variant", default="", help="of DRN-A: paper (default), published_code")
    bring.add_argument("--out", required=True, help="the new working directory")
    take = commands.add_parser("dump", help="a checkpoint to PyTorch's weights")
    take.add_argument("workdir", help="the working directory of a run, or converted weights")
    take.add_argument("--checkpoint", default="best", help="best (default), latest, or a step")
    take.add_argument("--layout", default="", choices=("fyu", "fyu_segment", "pytorchcv"))
    take.add_argument("--out", required=True, help="the new .pth file")
    arguments = parser.parse_args()
    try:
        (torch_to_checkpoint if arguments.command == "torch" else checkpoint_to_torch)(arguments)
    except UserError as error:
        cli.fail(str(error))


def torch_to_checkpoint(arguments: argparse.Namespace) -> None:
    """Write the file's weights as a checkpoint, with the file's SHA-256."""
    out = Path(arguments.out)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out={out} is not empty: name a new directory")
    state = rules.read(arguments.file)
    variables = rules.load(arguments.model, state, arguments.width, arguments.file)
    classes = rules.num_classes(variables)
    layout = rules.layout_of(state)
    network = {"name": arguments.model, "width": arguments.width, "variant": arguments.variant}
    settings = _config(network, layout, classes)
    digest = hashlib.sha256(Path(arguments.file).read_bytes()).hexdigest()
    source = {"file": Path(arguments.file).name, "sha256": digest, "layout": layout}
    with Checkpoints(out) as checkpoints:
        checkpoints.save_weights(variables, {"config": settings.to_dict(), "source": source})
    count = sum(a.size for a in jax.tree.leaves(variables["params"]))
    unused = sum(a.size for a in jax.tree.leaves(variables.get(rules.UNUSED, {})))
    besides = f" and {unused:,} numbers that take no part" if unused else ""
    console.say(f"{arguments.model}: {count:,} parameters{besides}, {classes} classes")
    console.say(f"from {source['file']} (SHA-256 {digest}, names as {layout})")
    console.say(f"written to {out}")


def checkpoint_to_torch(arguments: argparse.Namespace) -> None:
    """Write a checkpoint's weights as a file for PyTorch's `load_state_dict`."""
    with Checkpoints(arguments.workdir, must_exist=True) as checkpoints:
        step = checkpoints.choose(arguments.checkpoint).step
        meta = checkpoints.meta(step)
        mesh = sharding.make_mesh()
        variables = checkpoints.all_variables(step, sharding.replicated(mesh))
    saved = config.parse(meta["config"])
    layout = arguments.layout or meta.get("source", {}).get("layout") or "fyu"
    state = rules.dump(saved.model.name, jax.device_get(variables), layout, saved.model.width)
    rules.write(arguments.out, state)
    console.say(f"{saved.model.name}, step {step}: {len(state)} arrays, names as {layout}")
    console.say(f"written to {arguments.out}")


def _config(network: dict[str, Any], layout: str, classes: int) -> ConfigDict:
    """What eval.py needs to know of converted weights: the sets that they were published for."""
    segments = layout == "fyu_segment"
    data: dict[str, Any] = {"name": "imagenet", "crop": 224, "resize": 256}
    if segments:
        name = "cityscapes" if classes == 19 else "list_folder"
        data = {"name": name, "crop": (896, 896), "border": "zero"}
    given = {
        "name": f"converted_{network['name']}",
        "task": "segmentation" if segments else "classification",
        "model": {**network, "running_variance": "unbiased"},
        "data": data,
        "batch_size": 8,
        "epochs": 1,
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"kind": "poly"},
    }
    return config.complete(ConfigDict(given))


if __name__ == "__main__":
    sys.exit(main())
