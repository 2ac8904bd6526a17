"""ImageNet-2012 classification by the paper's recipe.

    python train.py --config=imagenet:drn_c_26 --config.data.dir=FOLDER
    python train.py --config=imagenet:drn_d_22 --config.data.dir=FOLDER      or any other network

FOLDER holds the set as it is distributed (`python -m drn_jax.data list imagenet`) or prepared.

Paper:     Dilated Residual Networks, section 5.1, and fyu/drn: SGD, momentum 0.9, weight decay
           1e-4, batch 256, 120 epochs, learning rate 0.1 over 10 every 30 epochs; random resized
           crops of 224, mirrored; validation on the central 224 of a shorter side of 256.
Published: top-1 error in %, one crop: resnet_18 30.43, drn_a_18 28.00, drn_b_26 25.19, drn_c_26
           24.86, resnet_34 27.73, drn_a_34 24.81, drn_c_42 22.94, resnet_50 24.01, drn_a_50 22.94,
           resnet_101 22.44 (paper, Table 1); drn_d_22 25.8, drn_d_38 23.8, drn_d_54 21.2, drn_c_58
           21.7, drn_d_105 20.6 (fyu/drn).
Hardware:  accelerators; not run in full yet, so neither time nor result of ours is stated.
"""

from ml_collections import ConfigDict

from drn_jax.config import check_variant, complete
from drn_jax.models import MODELS

VARIANTS = tuple(MODELS)


def get_config(variant: str = "drn_c_26") -> ConfigDict:
    check_variant(variant, VARIANTS)
    config = ConfigDict()
    config.name = f"imagenet_{variant}"
    config.task = "classification"
    config.model = ConfigDict({"name": variant, "running_variance": "unbiased"})
    config.data = ConfigDict({"name": "imagenet", "crop": 224, "resize": 256})
    config.batch_size = 256
    config.epochs = 120
    config.log_steps = 100
    config.optimizer = ConfigDict({"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4})
    config.schedule = ConfigDict({"kind": "step", "epochs": 30})
    return complete(config)
