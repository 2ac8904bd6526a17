"""The main job: digits on cluttered scenes, in a few minutes on two CPU cores.

    python train.py                                      the classifier
    python train.py --config=quickstart:segmentation     then a segmenter, from its weights

Paper:     the recipe of Dilated Residual Networks made small: SGD with momentum, a classifier
           first, its weights then the start of the segmentation network.
Hardware:  two CPU cores; 210 s for the classifier, 202 s for the segmenter.
Expected:  92.6 % top-1; then 65.9 % mean IoU over background and ten digits (seed 0).
Data:      digit_scenes, 6,000 + 1,000 scenes of 64x64, made on first use; nothing is downloaded.
"""

from ml_collections import ConfigDict

from drn_jax.config import check_variant, complete

VARIANTS = ("classification", "segmentation")


def get_config(variant: str = "classification") -> ConfigDict:
    check_variant(variant, VARIANTS)
    config = ConfigDict()
    config.name = "quickstart"
    config.task = "classification"
    config.model = ConfigDict({"name": "drn_d_22", "width": 0.25})
    config.data = ConfigDict({"name": "digit_scenes", "crop": 64, "resize": 64})
    config.data.random_crop = False  # Scenes vary enough, and a mirrored digit is none.
    config.data.flip = False
    config.batch_size = 25
    config.epochs = 5
    config.log_steps = 40
    config.optimizer = ConfigDict({"learning_rate": 0.1, "weight_decay": 2e-3, "warmup_steps": 100})
    config.schedule = ConfigDict({"kind": "poly"})
    if variant == "segmentation":
        config.name = "quickstart_segmentation"
        config.task = "segmentation"
        config.init_from = "runs/quickstart"
        config.data = ConfigDict({"name": "digit_scenes", "crop": (64, 64), "flip": False})
        config.optimizer.learning_rate = 0.02
    return complete(config)
