"""The main job: digits on cluttered scenes, in a few minutes on two CPU cores.

    python train.py                                                  # the classifier
    python train.py --config=configs/quickstart.py:segmentation      # then a segmenter from it

Paper:     the recipe of DRN section 5 made small: SGD with momentum 0.9 and weight decay 1e-4,
           a classifier first, then segmentation from its weights.
Data:      digit_scenes, 6,000 + 1,000 scenes of 64x64, made on first use; nothing is downloaded.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "classification") -> ConfigDict:
    """Variants: `classification` (default) and `segmentation`."""
    config = ConfigDict()
    config.name = "quickstart"
    config.task = "classification"
    config.seed = 0
    config.model = ConfigDict({"name": "drn_d_22", "width": 0.25, "dtype": "float32"})
    config.model.running_variance = "biased"
    config.data = ConfigDict({"name": "digit_scenes", "dir": ""})
    config.data.crop = 64
    config.data.resize = 64
    config.data.crop_area = ()
    config.data.flip = False
    config.batch_size = 50
    config.eval_batch_size = 50
    config.epochs = 5
    config.eval_epochs = 1
    config.log_steps = 20
    config.optimizer = ConfigDict(
        {
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 1e-3,
            "warmup_steps": 50,
        }
    )
    config.schedule = ConfigDict({"kind": "poly", "power": 0.9, "per_epoch": False})
    config.init_from = ""
    return config
