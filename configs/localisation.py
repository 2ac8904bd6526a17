"""Networks whose boxes are compared: one recipe, whatever the network (DRN paper, section 5.2).

    python train.py --config=localisation --config.model.name=resnet_18 --workdir=runs/resnet_18
    python train.py --config=localisation:tiny_imagenet --config.data.dir=FOLDER_OR_ZIP \\
        --config.model.name=drn_c_26 --workdir=runs/drn_c_26
    python eval.py --workdir=runs/drn_c_26 --localise

Paper:     its networks are trained on ImageNet (configs/imagenet.py); here at a quarter of their
           width on small images.
Hardware:  two CPU cores.
Expected:  docs/localisation.md.
"""

from ml_collections import ConfigDict

from drn_jax.config import check_variant, complete

VARIANTS = ("digit_scenes", "tiny_imagenet")


def get_config(variant: str = "digit_scenes") -> ConfigDict:
    check_variant(variant, VARIANTS)
    config = ConfigDict()
    config.name = f"localisation_{variant}"
    config.task = "classification"
    config.model = ConfigDict({"name": "drn_c_26", "width": 0.25})
    config.data = ConfigDict({"name": variant, "crop": 64, "resize": 64})
    config.optimizer = ConfigDict({"weight_decay": 5e-4, "warmup_steps": 100})
    config.schedule = ConfigDict({"kind": "poly"})
    if variant == "digit_scenes":
        config.data.random_crop = False  # As in configs/quickstart.py.
        config.data.flip = False
        config.data.held_out = 500
        config.batch_size = 25
        config.epochs = 5
        config.optimizer.learning_rate = 0.02  # At 0.1 resnet_18 learns nothing.
    else:
        config.data.crop_area = (0.5, 1.0)  # As in configs/tiny_imagenet.py.
        config.data.held_out = 1000
        config.batch_size = 50
        config.epochs = 6
        config.optimizer.learning_rate = 0.03
    return complete(config)
