"""The context module in stages, in minutes on two CPU cores.

    python train.py --config=quickstart_context            a narrow dilated VGG as the front end
    python train.py --config=quickstart_context:drn        a narrow DRN instead
    python train.py --config=quickstart_context:context --config.data.front_end=WORKDIR
                                                           one context module on that front end

Stages, each in a folder of its own below the working directory: `classifier` (on close-ups of
digits and of the ground), `front_end` (segmentation, from the classifier's weights), `context` (the
module, on the front end's maps, which stay fixed), `joint` (both together). `--until=STAGE` stops
early; the same command goes on.

Paper:     Multi-Scale Context Aggregation by Dilated Convolutions, section 4 and appendix, made
           small: Caffe's SGD and the published grid (labels and cells at pixel 8k) for VGG.
Hardware:  two CPU cores; 389 s (vgg), 375 s (drn, on a busy machine), all stages and reports.
Expected:  mean IoU, seed 0: vgg 44.9 % front end, 54.6 % context, 53.6 % joint; drn 36.4 %, 57.1 %,
           57.0 %. The best constant answer scores 9.8 %. docs/context.md compares modules.
Data:      ribbon_scenes, 480 + 120 scenes of 256x256 (maps of 32x32), made on first use; nothing is
           downloaded.
"""

from typing import Any

from ml_collections import ConfigDict

from drn_jax import staged
from drn_jax.config import check_variant, complete

VARIANTS = ("vgg", "drn", "context")

VGG = {
    "name": "vgg_16_front_end",
    "width": 0.125,
    "fc_channels": 1024,
    "dropout": 0.0,
    "space": "rgb",  # From random weights; published ones are for bgr.
}
DRN = {"name": "drn_d_22", "width": 0.25}
PUBLISHED_GRID = {
    "alignment": "corner",
    "interpolate": "probabilities",
    "loss_at": "cells",
}


def get_config(variant: str = "vgg") -> ConfigDict:
    check_variant(variant, VARIANTS)
    if variant == "context":
        return complete(_context(PUBLISHED_GRID, front_end=""))
    if variant == "drn":
        stages = {
            "classifier": _classifier(DRN, _sgd(0.1, warmup_steps=50)),
            "front_end": _drn_front_end(),
            "context": _context({}),
            "joint": _joint(_drn_front_end(), 0.002),
        }
    else:
        stages = {
            # Padded with zeros: a margin of 186 pixels would be most of a close-up of 64.
            "classifier": _classifier(
                {**VGG, "padding": "zero", "head_std": 0.5}, _sgd(0.02, warmup_steps=50)
            ),
            "front_end": _vgg_front_end(),
            "context": _context(PUBLISHED_GRID),
            "joint": _joint(_vgg_front_end(), 0.001),
        }
    return staged.complete(f"quickstart_context_{variant}", stages)


def _run(name: str, task: str, **fields: Any) -> ConfigDict:
    schedule = {"kind": "poly"}
    return ConfigDict({"name": name, "task": task, "schedule": schedule, **fields})


def _sgd(rate: float, **fields: Any) -> dict[str, Any]:
    return {"learning_rate": rate, "weight_decay": 5e-4, "warmup_steps": 20} | fields


def _classifier(model: dict[str, Any], optimizer: dict[str, Any]) -> ConfigDict:
    data = {"name": "ribbon_scenes", "crop": 64, "resize": 72, "crop_area": (0.6, 1.0)}
    return _run(
        "quickstart_context_classifier",
        "classification",
        model=model,
        data={**data, "flip": False},
        batch_size=16,
        epochs=3,
        log_steps=50,
        optimizer=optimizer,
    )


def _vgg_front_end() -> ConfigDict:
    return _run(
        "quickstart_context_front_end",
        "segmentation",
        model=dict(VGG),
        data={
            "name": "ribbon_scenes",
            "crop": (256, 256),
            "flip": False,
            "grid": PUBLISHED_GRID,
        },
        batch_size=2,
        eval_batch_size=4,
        steps=360,
        eval_epochs=2,
        init_from="classifier",
        optimizer=_sgd(0.01, rule="caffe"),
    )


def _drn_front_end() -> ConfigDict:
    return _run(
        "quickstart_context_front_end",
        "segmentation",
        model=dict(DRN),
        data={"name": "ribbon_scenes", "crop": (256, 256), "flip": False},
        batch_size=8,
        steps=240,
        eval_epochs=4,
        init_from="classifier",
        optimizer=_sgd(0.02),
    )


def _context(grid: dict[str, str], front_end: str = "front_end") -> ConfigDict:
    return _run(
        "quickstart_context_context",
        "context",
        model={"name": "context", "context": {"layers": 8, "size": "basic", "init": "identity"}},
        data={"front_end": front_end, "grid": grid},
        batch_size=10,
        steps=240,
        eval_epochs=5,
        optimizer=_sgd(0.01, rule="caffe"),
    )


def _joint(front_end: ConfigDict, rate: float) -> ConfigDict:
    """Front end and module together, from the stages before, at a tenth of the front end's rate."""
    front_end.update(
        name="quickstart_context_joint",
        model={"context": {"layers": 8}},
        init_from="front_end",
        init_context_from="context",
        steps=30,
        eval_epochs=1,
        optimizer={"learning_rate": rate},
    )
    return front_end
