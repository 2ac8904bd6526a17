"""Yu & Koltun's nets trained in stages, from ImageNet's VGG-16: Dilation8, Dilation7, Dilation10.

    python -m drn_jax.convert torch vgg16.pth --model vgg_16 --out runs/vgg_16
    python train.py --config=dilation:camvid --config.dir=FOLDER
    python train.py --config=dilation:cityscapes --config.dir=FOLDER        or kitti, pascal_voc,
                                                                            pascal_voc_coco

FOLDER holds the set as it is distributed: `python -m drn_jax.data list NAME` says which files, for
NAME camvid_640, kitti, cityscapes, pascal_voc_aug, and for pascal_voc_coco that and coco.

Paper:     Multi-Scale Context Aggregation by Dilated Convolutions, sections 4 and 5 and appendix;
           what it leaves open, as in fyu/dilation: weight decay 5e-4, biases at twice the rate and
           without decay, labels and cells at pixel 8k.
             pascal_voc  front end: batch 14, rate 1e-3, momentum 0.9, 60,000 updates, crops 500;
                         context (Large, map padded by 33 once): batch 60, rate 1e-3, maps of 66x66;
                         its number of updates is not stated: 20,000 here. No joint training, which
                         "did not yield a significant improvement".
             pascal_voc_coco  the paper's best: the same front end first on VOC and COCO together,
                         100,000 updates at 1e-3 and 40,000 at 1e-4, then on VOC, 50,000 at 1e-5;
                         batch 14; the context as above.
             camvid      front end: batch 8, crops 628, rate 1e-4, momentum 0.99, 20,000; joint with
                         the identity: crops 852, batch 1, rate 1e-5, momentum 0.9; its number of
                         updates is not stated: 20,000 here.
             kitti       front end: as camvid, 10,000; joint: crops 900, momentum 0.99, 20,000.
             cityscapes  front end: as camvid, 40,000; context: whole images, batch 100, rate 1e-4,
                         momentum 0.99, 24,000; joint: crops 1396, batch 1, rate 1e-5, momentum
                         0.99, 60,000. The loss lies behind the x8 upsampling in the last two.
           Crops are what the net receives: a margin of 186 pixels on each side is part of them.
Published: mean IoU in %: VOC-2012 test, front end 67.6 without COCO (with it: 71.3, context 73.5);
           CamVid test 65.3; KITTI 59.2; Cityscapes validation 68.7.
Hardware:  accelerators; not run in full yet, so neither time nor result of ours is stated.
"""

from typing import Any

from ml_collections import ConfigDict

from drn_jax import staged
from drn_jax.config import check_variant

VARIANTS = ("pascal_voc", "pascal_voc_coco", "camvid", "kitti", "cityscapes")
SETS = {
    "pascal_voc": "pascal_voc_aug",
    "pascal_voc_coco": "pascal_voc_aug",
    "camvid": "camvid_640",
    "kitti": "kitti",
    "cityscapes": "cityscapes",
}

MARGIN = 2 * 186
CELLS = {"alignment": "corner", "interpolate": "probabilities", "loss_at": "cells"}
PIXELS = {"alignment": "centre", "border": "zero"}
CONTEXT_8 = {"layers": 8, "size": "basic", "padding": "layer", "init": "filler"}


def get_config(variant: str = "camvid") -> ConfigDict:
    check_variant(variant, VARIANTS)
    name = SETS[variant]
    if name == "pascal_voc_aug":
        large = {"layers": 8, "size": "large", "padding": "once", "init": "identity"}
        stages = {"front_end": _images(name, 500, 14, 60_000, 1e-3, 0.9)}
        if variant == "pascal_voc_coco":
            first = _images("pascal_voc_coco", 500, 14, 140_000, 1e-3, 0.9)
            first.schedule = ConfigDict({"kind": "step", "steps": 100_000})
            stages = {"coco": first, "front_end": _images(name, 500, 14, 50_000, 1e-5, 0.9)}
            stages["front_end"].init_from = "coco"
        stages["context"] = _maps(large, (66, 66), 60, 20_000, 1e-3, 0.9, CELLS)
    elif variant == "cityscapes":
        context = CONTEXT_8 | {"layers": 10}
        stages = {
            "front_end": _images(name, 628, 8, 40_000, 1e-4, 0.99),
            "context": _maps(context, (0, 0), 100, 24_000, 1e-4, 0.99, PIXELS),
            "joint": _joint(name, context, 1396, 60_000, 0.99, PIXELS, "context"),
        }
    elif variant == "camvid":
        stages = {
            "front_end": _images(name, 628, 8, 20_000, 1e-4, 0.99),
            "joint": _joint(name, CONTEXT_8, 852, 20_000, 0.9, CELLS),
        }
    else:
        stages = {
            "front_end": _images(name, 628, 8, 10_000, 1e-4, 0.99),
            "joint": _joint(name, CONTEXT_8 | {"layers": 7}, 900, 20_000, 0.99, CELLS),
        }
    return staged.complete(f"dilation_{variant}", stages)


def _run(
    task: str, batch: int, steps: int, rate: float, momentum: float, **more: Any
) -> ConfigDict:
    optimizer = {
        "rule": "caffe",
        "learning_rate": rate,
        "momentum": momentum,
        "weight_decay": 5e-4,
    }
    return ConfigDict(
        {
            "task": task,
            "batch_size": batch,
            "eval_batch_size": 1,
            "steps": steps,
            "eval_epochs": 10,
            "optimizer": optimizer,
            "schedule": {"kind": "constant"},
            **more,
        }
    )


def _images(
    data: str, crop: int, batch: int, steps: int, rate: float, momentum: float
) -> ConfigDict:
    return _run(
        "segmentation",
        batch,
        steps,
        rate,
        momentum,
        name="front_end",
        model={"name": "vgg_16_front_end"},
        data={"name": data, "crop": (crop - MARGIN, crop - MARGIN), "grid": CELLS},
        init_from="runs/vgg_16",
    )


def _maps(
    context: dict[str, Any],
    crop: tuple[int, int],
    batch: int,
    steps: int,
    rate: float,
    momentum: float,
    grid: dict[str, str],
) -> ConfigDict:
    return _run(
        "context",
        batch,
        steps,
        rate,
        momentum,
        name="context",
        model={"name": "context", "context": context},
        data={"front_end": "front_end", "crop": crop, "grid": grid},
    )


def _joint(
    data: str,
    context: dict[str, Any],
    crop: int,
    steps: int,
    momentum: float,
    grid: dict[str, str],
    context_from: str = "",
) -> ConfigDict:
    return _run(
        "segmentation",
        1,
        steps,
        1e-5,
        momentum,
        name="joint",
        model={"name": "vgg_16_front_end", "context": context},
        data={"name": data, "crop": (crop - MARGIN, crop - MARGIN), "grid": grid},
        init_from="front_end",
        init_context_from=context_from,
    )
