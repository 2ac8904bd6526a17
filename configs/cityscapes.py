"""Cityscapes segmentation by the recipes of fyu/drn, from ImageNet weights.

    python train.py --config=cityscapes:drn_d_22 --config.data.dir=FOLDER
    python train.py --config=cityscapes:drn_d_105 --config.data.dir=FOLDER

FOLDER holds the two zips as they are, or what else `python -m drn_jax.data list cityscapes` says,
or that prepared. The weights come from runs/imagenet_MODEL (--config.init_from=WORKDIR for another
place).

Paper:     Dilated Residual Networks, section 5.3, and fyu/drn. Most models: crop 896, batch 32,
           250 epochs, learning rate 0.01, a tenth of it after every 100. DRN-D-105: crop 840,
           batch 16, 500 epochs, poly 0.9 by epoch, random scale 0.5 to 2, rotation up to 10
           degrees. fyu/drn once stated batch 16 and momentum 0.99 for the former.
Published: mean IoU in %, validation: drn_a_50 67.3, drn_c_26 68.0, drn_c_42 70.9 (paper,
           Table 3); drn_d_22 68.0, drn_d_38 71.4, drn_d_105 75.6 (fyu/drn).
Hardware:  accelerators; not run in full yet, so neither time nor result of ours is stated.
"""

from ml_collections import ConfigDict

from drn_jax.config import check_variant, complete

VARIANTS = ("drn_a_50", "drn_c_26", "drn_c_42", "drn_d_22", "drn_d_38", "drn_d_105")


def get_config(variant: str = "drn_d_22") -> ConfigDict:
    check_variant(variant, VARIANTS)
    config = ConfigDict()
    config.name = f"cityscapes_{variant}"
    config.task = "segmentation"
    config.init_from = f"runs/imagenet_{variant}"
    config.model = ConfigDict({"name": variant, "running_variance": "unbiased"})
    config.data = ConfigDict({"name": "cityscapes", "crop": (896, 896), "grid": {"border": "zero"}})
    config.batch_size = 32
    config.eval_batch_size = 8
    config.epochs = 250
    config.eval_epochs = 5
    config.optimizer = ConfigDict({"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 1e-4})
    config.schedule = ConfigDict({"kind": "step", "epochs": 100})
    if variant == "drn_d_105":
        config.data.crop = (840, 840)
        config.data.scale = 2.0
        config.data.rotate = 10
        config.batch_size = 16
        config.epochs = 500
        config.schedule = ConfigDict({"kind": "poly", "power": 0.9, "per_epoch": True})
    return complete(config)
