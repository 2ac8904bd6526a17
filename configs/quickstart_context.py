"""The context module in three stages, in minutes on two CPU cores."""

from ml_collections import ConfigDict

from drn_jax.config import check_variant, complete, staged

VARIANTS = ("vgg", "drn")


def get_config(variant: str = "vgg") -> ConfigDict:
    check_variant(variant, VARIANTS)
    net = {"name": "vgg_16_front_end", "width": 0.125, "dropout": 0.0, "fc_channels": 1024, "space": "rgb"}
    if variant == "drn":
        net = {"name": "drn_d_22", "width": 0.25}
    stages = {}
    if variant == "vgg":
        stages["classifier"] = _classifier({**net, "padding": "zero"})
    stages["front_end"] = _front_end(net, "classifier" if variant == "vgg" else "")
    stages["context"] = _context()
    stages["joint"] = _joint(net)
    return staged(f"quickstart_context_{variant}", stages)


def _classifier(net):
    config = ConfigDict()
    config.name = "classifier"
    config.task = "classification"
    config.model = ConfigDict(net)
    config.data = ConfigDict({"name": "ribbon_scenes", "crop": 64, "resize": 72})
    config.data.crop_area = (0.6, 1.0)
    config.data.flip = False
    config.batch_size = 16
    config.epochs = 3
    config.log_steps = 40
    config.optimizer = ConfigDict({"learning_rate": 0.02, "weight_decay": 5e-4, "warmup_steps": 50})
    config.schedule = ConfigDict({"kind": "poly"})
    return config


def _front_end(net, start):
    config = ConfigDict()
    config.name = "front_end"
    config.task = "segmentation"
    config.model = ConfigDict(net)
    config.data = ConfigDict({"name": "ribbon_scenes", "crop": (256, 256), "flip": False})
    config.batch_size = 4
    config.epochs = 2
    config.log_steps = 20
    config.init_from = start
    config.optimizer = ConfigDict({"learning_rate": 0.02, "weight_decay": 5e-4, "warmup_steps": 20})
    config.schedule = ConfigDict({"kind": "poly"})
    return config


def _context():
    config = ConfigDict()
    config.name = "context"
    config.task = "context"
    config.model = ConfigDict({"name": "context", "context": {"layers": 8}})
    config.data = ConfigDict({"front_end": "front_end"})
    config.batch_size = 10
    config.epochs = 10
    config.log_steps = 20
    config.optimizer = ConfigDict({"learning_rate": 0.01, "weight_decay": 5e-4, "rule": "caffe"})
    config.schedule = ConfigDict({"kind": "poly"})
    return config


def _joint(net):
    config = _front_end(net, "front_end")
    config.name = "joint"
    config.model.context = ConfigDict({"layers": 8})
    config.init_context_from = "context"
    config.epochs = 1
    config.optimizer.learning_rate = 1e-3
    return config
