"""Tiny-ImageNet, or a part of it: photographs of 64x64, classified.

    python train.py --config=tiny_imagenet --config.data.dir=FOLDER_OR_ZIP

Paper:     none; the networks are those of Dilated Residual Networks, at a quarter of their width.
Hardware:  two CPU cores; 456 s on a busy machine.
Expected:  24.3 % top-1 on 50 of the classes (seed 0).
"""

from ml_collections import ConfigDict

from drn_jax.config import complete


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "tiny_imagenet"
    config.task = "classification"
    config.model = ConfigDict({"name": "drn_d_22", "width": 0.25})
    config.data = ConfigDict({"name": "tiny_imagenet", "crop": 64, "resize": 64})
    config.data.crop_area = (0.5, 1.0)
    config.batch_size = 50
    config.epochs = 3
    config.optimizer = ConfigDict({"learning_rate": 0.1, "weight_decay": 5e-4, "warmup_steps": 100})
    config.schedule = ConfigDict({"kind": "poly"})
    return complete(config)
