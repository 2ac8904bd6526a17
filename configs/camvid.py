"""CamVid: street scenes of 480x360 in 11 classes, segmented from scratch.

    python train.py --config=camvid --config.data.dir=FOLDER

FOLDER holds the set as it is distributed (`python -m drn_jax.data list camvid`): the official zips,
SegNet's folder, or the lists of fyu/drn, which the figures below are from.

Paper:     none for these networks; the split (367 training images) is Sturgess et al. 2009.
Hardware:  two CPU cores, at a quarter of the width; 456 s on a busy machine.
Expected:  26.5 % mean IoU (seed 0); the best constant answer scores 2.7 %.
"""

from ml_collections import ConfigDict

from drn_jax.config import complete


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "camvid"
    config.task = "segmentation"
    config.model = ConfigDict({"name": "drn_d_22", "width": 0.25})
    config.data = ConfigDict({"name": "camvid", "crop": (224, 224), "scale": 1.5})
    config.batch_size = 8
    config.eval_batch_size = 4
    config.epochs = 10
    config.eval_epochs = 5
    config.optimizer = ConfigDict({"learning_rate": 0.05, "weight_decay": 5e-4, "warmup_steps": 50})
    config.schedule = ConfigDict({"kind": "poly"})
    return complete(config)
