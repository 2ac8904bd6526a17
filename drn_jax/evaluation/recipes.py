"""The recipes behind published numbers, as far as papers and code state them, by the fields of a
configuration: what a run of ours differs in is said beside its scores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drn_jax.config import Config
from drn_jax.evaluation.published import module


@dataclass(frozen=True)
class Recipe:
    """How a network was trained, or one stage of it."""

    settings: Mapping[str, Any]
    """By the path of a field below `config`: its published value, or a frozenset of those that no
    source tells apart."""
    start: str | None = None
    """What the weights came from; "": random ones; None: not said, or does not matter."""
    context_start: str = ""
    """What the context module's came from, where that was trained before; else ""."""
    stage: str = ""
    """Which, of several."""


_DRN = {
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 1e-4,
    "optimizer.rule": "pytorch",
    "optimizer.warmup_steps": 0,
    "data.flip": True,
    "ema": 0.0,
    "model.running_variance": "unbiased",
    # Of each GPU's share, or of all of them: only for DRN-D-105 is it said which.
    "model.norm.statistics": frozenset({"global", "group"}),
}

_IMAGENET = Recipe(
    {
        **_DRN,
        "epochs": 120,
        "batch_size": 256,
        "data.crop": 224,
        "data.random_crop": True,
        "data.crop_area": (0.08, 1.0),
        "data.held_out": 0,
        "optimizer.learning_rate": 0.1,
        "schedule.kind": "step",
        "schedule.epochs": 30,
        "schedule.factor": 0.1,
    },
    start="",
)
"""DRN paper, section 5.1, and fyu/drn's classify.py. (Of colours they say different things.)"""

_STREETS = {
    **_DRN,
    "optimizer.learning_rate": 0.01,
    "data.jitter": (0.0, 0.0, 0.0, 0.0),
    "data.lighting": 0.0,
    "data.grid.alignment": "centre",
    "data.grid.border": "zero",
    "data.grid.interpolate": "logits",
    "data.grid.loss_at": "pixels",
}
_FROM_IMAGENET = "ImageNet's"

_CITYSCAPES = Recipe(
    {
        **_STREETS,
        "epochs": 250,
        "batch_size": 32,
        "data.crop": (896, 896),
        "data.scale": 1.0,
        "data.rotate": 0,
        "schedule.kind": "step",
        "schedule.epochs": 100,
        "schedule.factor": 0.1,
    },
    start=_FROM_IMAGENET,
)
"""fyu/drn's README, for DRN-D-22, see `remarks`."""

_CITYSCAPES_LARGEST = Recipe(
    {
        **_STREETS,
        "epochs": 500,
        "batch_size": 16,
        "data.crop": (840, 840),
        "data.scale": 2.0,
        "data.rotate": 10,
        "schedule.kind": "poly",
        "schedule.power": 0.9,
        "schedule.per_epoch": True,
        "model.norm.statistics": "global",
    },
    start=_FROM_IMAGENET,
)
"""The same, for DRN-D-105."""


def _vgg(batch: int, rate: float, momentum: float, steps: int = 0, **more: Any) -> dict[str, Any]:
    """A stage of the Context paper; of 0 steps, a number that is not stated. Weight decay, and the
    rule of descent, as in fyu/dilation."""
    counted = {"steps": steps} if steps else {}
    return {
        **counted,
        "batch_size": batch,
        "optimizer.learning_rate": rate,
        "optimizer.momentum": momentum,
        "optimizer.weight_decay": 5e-4,
        "optimizer.rule": "caffe",
        "optimizer.warmup_steps": 0,
        "schedule.kind": "constant",
        "ema": 0.0,
        "data.flip": True,
        "data.scale": 1.0,
        "data.rotate": 0,
        "data.jitter": (0.0, 0.0, 0.0, 0.0),
        "data.lighting": 0.0,
        **more,
    }


def _crop(side: int) -> dict[str, Any]:
    """A square crop, its margin of 186 pixels on each side taken off, which ours are without."""
    return {"data.crop": (side - 2 * 186, side - 2 * 186)}


_VGG_16 = "VGG-16's of ImageNet"
_BEFORE = "the front end's own training"
_CELLS = {
    "data.grid.alignment": "corner",
    "data.grid.interpolate": "probabilities",
    "data.grid.loss_at": "cells",
}
_PIXELS = {
    "data.grid.alignment": "centre",
    "data.grid.interpolate": "logits",
    "data.grid.loss_at": "pixels",
}
# Paper and code differ in the noise of the identity.
_INIT = {"model.context.init": frozenset({"identity", "filler"})}
_LAYER = {**_INIT, "model.context.padding": "layer"}
_ONCE = {**_INIT, "model.context.padding": "once"}
_FALL = {"schedule.kind": "step", "schedule.steps": 100_000, "schedule.factor": 0.1}

_VOC_AND_COCO = Recipe(
    _vgg(14, 1e-3, 0.9, 140_000, **_crop(500), **_CELLS, **_FALL), _VGG_16, stage="VOC and COCO"
)
_VOC_AFTER_COCO = Recipe(
    _vgg(14, 1e-5, 0.9, 50_000, **_crop(500), **_CELLS),
    "those of training on VOC and COCO",
    stage="VOC after COCO",
)
_VOC_ALONE = Recipe(
    _vgg(14, 1e-3, 0.9, 60_000, **_crop(500), **_CELLS), _VGG_16, stage="without COCO"
)
_VOC_CONTEXT = Recipe(_vgg(60, 1e-3, 0.9, **{"data.crop": (66, 66)}, **_CELLS, **_ONCE))
_STAGES: Mapping[tuple[str, str], Recipe] = {
    ("dilation8_camvid", "segmentation"): Recipe(
        _vgg(1, 1e-5, 0.9, **_crop(852), **_CELLS, **_LAYER), _BEFORE
    ),
    ("dilation7_kitti", "segmentation"): Recipe(
        _vgg(1, 1e-5, 0.99, 20_000, **_crop(900), **_CELLS, **_LAYER), _BEFORE
    ),
    ("dilation10_cityscapes", "segmentation"): Recipe(
        _vgg(1, 1e-5, 0.99, 60_000, **_crop(1396), **_PIXELS, **_LAYER),
        _BEFORE,
        "its own training on fixed maps",
    ),
    ("dilation10_cityscapes", "context"): Recipe(
        _vgg(100, 1e-4, 0.99, 24_000, **{"data.crop": (0, 0)}, **_PIXELS, **_LAYER)
    ),
    ("dilation8_pascal_voc", "context"): _VOC_CONTEXT,
    ("vgg_16_front_end, Basic", "context"): _VOC_CONTEXT,
}
"""Of nets with a context module: the stage that a run of that task can be. Context paper, sections
4 and 5 and appendix; crops for Pascal VOC, and what `_vgg` says, as in fyu/dilation."""

_STORIES = {
    "vgg_16_front_end": "VOC and COCO, then VOC; without COCO one, VOC",
    "vgg_16_front_end, Basic": "the front end on VOC and COCO, then on VOC; the context module on "
    "its maps; not both together",
    "dilation8_camvid": "the front end, then both together",
    "dilation7_kitti": "the front end, then both together",
    "dilation10_cityscapes": "the front end, the context module on its maps, then both together",
}
_STORIES["dilation8_pascal_voc"] = _STORIES["vgg_16_front_end, Basic"]
"""The stages of the dilated nets."""


def of(net: str, data: str, task: str) -> tuple[Recipe, ...]:
    """What is published of how a network was trained on a set: one recipe; several, if the numbers
    are of several; or none.

    Args:
      net: as `Published.model`.
      data: as in `data.DATASETS`; of a context module's run the front end's.
      task: `config.task`.
    """
    if net.startswith(("drn_", "resnet_")):
        if data == "cityscapes":
            return (_CITYSCAPES_LARGEST if net == "drn_d_105" else _CITYSCAPES,)
        return (_IMAGENET,) if data == "imagenet" else ()
    if net == "vgg_16_front_end" and task == "segmentation":
        return (_VOC_AND_COCO,) if data == "pascal_voc_coco" else (_VOC_ALONE, _VOC_AFTER_COCO)
    stage = _STAGES.get((net, task))
    return () if stage is None else (stage,)


def differences(config: Config, data: str, net: str = "") -> list[str]:
    """Each setting of a run that is not the published one, in words; of several recipes, those of
    the recipe that it is closest to.

    Args:
      data, net: see `of`; "": the configuration's network.
    """
    known = of(net or config.model.name, data, config.task)
    return min((list(_against(config, recipe)) for recipe in known), key=len, default=[])


def remarks(data: str, net: str) -> Iterator[str]:
    """In what any run of the network on the set may differ from the published one. See `of`."""
    if data == "cityscapes" and net.startswith("drn_") and net != "drn_d_105":
        if net != "drn_d_22":
            yield (
                "the published recipe that this is compared with is fyu/drn's for DRN-D-22; that "
                f"of {net} by itself is not stated"
            )
        yield (
            "until June 2018 fyu/drn stated batch 16 and momentum 0.99: with which the published "
            "number was reached is uncertain"
        )
    if net in _STORIES:
        yield f"published: trained in stages ({_STORIES[net]}), see configs/dilation.py"
    lacking = {"pascal_voc": "nothing of COCO and SBD", "pascal_voc_aug": "nothing of COCO"}
    if data in lacking:
        yield (
            "the published nets were trained with COCO, too, unless it is said otherwise; "
            f"{data} holds {lacking[data]}"
        )


def _against(config: Config, recipe: Recipe) -> Iterator[str]:
    """The differences from one recipe."""
    where = f" ({recipe.stage})" if recipe.stage else ""
    for path, theirs in recipe.settings.items():
        ours = _setting(config, path)
        if ours is _NONE or ours == theirs or (isinstance(theirs, frozenset) and ours in theirs):
            continue
        said = " or ".join(sorted(theirs)) if isinstance(theirs, frozenset) else theirs
        yield f"{_label(path)} {ours}, published {said}{where}"
    if recipe.start and not config.init_from:
        yield f"started from random weights, published from {recipe.start}{where}"
    if recipe.start == "" and config.init_from:
        yield f"started from the weights of {config.init_from}, published from random ones{where}"
    if recipe.context_start and not config.init_context_from:
        yield f"context module not trained before, published after {recipe.context_start}{where}"


_NONE = object()
"""There is no such setting: the task, or the kind of schedule, has none."""


def _setting(config: Config, path: str) -> Any:
    """The value of a field; in words, where it counts the other way, in steps or in epochs."""
    if path == "epochs":
        return config.epochs or f"(in all {config.steps} steps)"
    if path == "steps":
        return config.steps or f"(in all {config.epochs} epochs)"
    found: Any = config
    for name in path.split("."):
        if name == "context":
            found = module(config.model.name, config.model.context)
        else:
            found = getattr(found, name, _NONE)
    if path == "schedule.epochs" and found == 0:
        return f"(every {_setting(config, 'schedule.steps')} steps)"
    if path == "schedule.steps" and found == 0:
        return f"(every {_setting(config, 'schedule.epochs')} epochs)"
    return found


def _label(path: str) -> str:
    """A field in words."""
    for group in ("data.", "optimizer.", "model."):
        path = path.removeprefix(group)
    return path.removesuffix(".kind").replace("_", " ").replace(".", " ")
