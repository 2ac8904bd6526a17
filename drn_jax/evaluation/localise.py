"""The localisation of a data set scored by the protocol of the DRN paper, section 5.2.

A network that learnt classes alone predicts five of them, from one crop or ten, and its class map a
box for each. Top-1 is right if the class is and its box overlaps a true one by more than half;
top-5 if that is so for any of the five. The paper does not say how it chose the threshold t of the
boxes. So t is chosen on other images than those that are scored, and beside it stand the best t on
the very images (the oracle), no t at all, the whole curves, and two scores that need no class
prediction: GT-known, whose box is that of the true class, and MaxBoxAcc (Choe et al. 2020).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from drn_jax.data import decoding
from drn_jax.data.dataset import Example, Part, Source, evenly
from drn_jax.data.sources import FileSource
from drn_jax.errors import UserError
from drn_jax.evaluation import crops as classification
from drn_jax.evaluation import localisation
from drn_jax.evaluation.crops import Crops, Geometry
from drn_jax.evaluation.localisation import Localisation
from drn_jax.experiment import Experiment
from drn_jax.training import evaluate as training
from drn_jax.training import sharding
from drn_jax.training.steps import Variables

TUNING = 1000
"""Images that a threshold is chosen on, at most."""

DELTAS = (0.3, 0.5, 0.7)
"""Overlaps that MaxBoxAcc asks for, and averages over (Choe et al. 2020, MaxBoxAccV2)."""

SCORE_THRESHOLDS = np.linspace(0, 1, 100, endpoint=False).astype(np.float32)
"""Of MaxBoxAcc, for class maps scaled to [0, 1]."""

Arrays = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Scores:
    """At one threshold; shares of the images in [0, 1]."""

    threshold: float
    """-inf: none."""
    top1_error: float
    top5_error: float
    gt_known: float
    """Accuracy of the true class's box."""

    def as_json(self) -> dict[str, float | None]:
        """JSON has no -inf: no threshold is None."""
        return {
            "threshold": _number(self.threshold),
            "top1_error": self.top1_error,
            "top5_error": self.top5_error,
            "gt_known": self.gt_known,
        }


@dataclass(frozen=True)
class Curves:
    """The scores of a set of images at every threshold."""

    count: int
    """Images that were scored."""
    left_out: int
    """Images without any box, which were not."""
    top1: float
    """Accuracy of the classification alone, of the images that were scored."""
    top5: float
    thresholds: np.ndarray
    """float32 [T], rising"""
    top1_error: np.ndarray
    """float64 [T], as all below: shares in [0, 1]"""
    top5_error: np.ndarray
    gt_known: np.ndarray
    """Accuracy of the true class's box."""
    box_accuracy: np.ndarray
    """[DELTAS, SCORE_THRESHOLDS]: accuracy of boxes as for MaxBoxAcc."""
    class_count: np.ndarray
    """int64 [classes]: images of each."""
    class_localised: np.ndarray
    """int64 [classes, T]: of those, how many have their class and its box right (top-1)."""
    class_known: np.ndarray
    """int64 [classes, T]: likewise, whatever class is predicted."""

    @property
    def best(self) -> int:
        """The threshold of least top-1 error; of equals, of least top-5 error; then the first."""
        return int(np.lexsort((self.top5_error, self.top1_error))[0])

    @property
    def max_box_acc(self) -> np.ndarray:
        """[DELTAS]: the accuracy at the best threshold of each."""
        return self.box_accuracy.max(1)

    def at(self, index: int) -> Scores:
        """The scores at a threshold, by its place."""
        return Scores(
            float(self.thresholds[index]),
            float(self.top1_error[index]),
            float(self.top5_error[index]),
            float(self.gt_known[index]),
        )

    def as_json(self) -> dict[str, Any]:
        """As a JSON file may hold them."""
        return {
            "count": self.count,
            "left_out": self.left_out,
            "classification_top1": self.top1,
            "classification_top5": self.top5,
            "thresholds": [_number(t) for t in self.thresholds.tolist()],
            "top1_error": self.top1_error.tolist(),
            "top5_error": self.top5_error.tolist(),
            "gt_known": self.gt_known.tolist(),
            "box_thresholds": SCORE_THRESHOLDS.tolist(),
            "box_accuracy": {
                str(delta): row.tolist()
                for delta, row in zip(DELTAS, self.box_accuracy, strict=True)
            },
        }


@dataclass(frozen=True)
class Report:
    """What is known of a network's localisation."""

    chosen: int
    """Which of the thresholds was chosen on the tuning images, or given."""
    curves: Curves
    """Of the images that are scored."""
    tuning: Curves | None
    """Of those that the threshold is chosen on; None where it is given."""

    def as_json(self) -> dict[str, Any]:
        """`chosen`: at the chosen threshold. `oracle`: at the one that suits these images best.
        `unthresholded`: at none. `whole_image`: at one above all responses, where every box is the
        whole image: what is to be beaten. `max_box_acc`: accuracy by overlap, and the mean. The
        rest: `Curves`."""
        curves = self.curves
        found = curves.max_box_acc
        return {
            "chosen": curves.at(self.chosen).as_json(),
            "oracle": curves.at(curves.best).as_json(),
            "unthresholded": curves.at(0).as_json(),
            "whole_image": curves.at(len(curves.thresholds) - 1).as_json(),
            "max_box_acc": {
                **{str(delta): float(acc) for delta, acc in zip(DELTAS, found, strict=True)},
                "mean": float(found.mean()),
            },
            "curves": curves.as_json(),
            "tuning": None if self.tuning is None else self.tuning.as_json(),
        }


def _number(threshold: float) -> float | None:
    return threshold if math.isfinite(threshold) else None


def report(
    run: Experiment,
    variables: Variables,
    mesh: Mesh,
    crops: Crops,
    protocol: Localisation,
    held_out: Source | None = None,
    source: Source | None = None,
) -> Report:
    """Choose the threshold on one set of images, score another.

    Args:
      held_out: to choose on, at most `TUNING` of them, evenly spaced; by default those that the run
        did not train on, or else training images.
      source: to score; by default the validation images.

    Raises: UserError for a run that is no classification, a set without boxes, and settings that
      can't be.
    """
    if held_out is None:
        kept = run.dataset.held_out
        held_out = run.dataset.train if kept is None else kept
    source = run.dataset.validation if source is None else source
    scorer = Scorer(run, mesh, crops, protocol)
    if protocol.threshold is not None:
        thresholds = scorer.thresholds(variables, source)
        chosen = int(np.searchsorted(thresholds, np.float32(protocol.threshold)))
        return Report(chosen, scorer(variables, source, thresholds), None)
    few = evenly(held_out, TUNING)
    thresholds = scorer.thresholds(variables, few)
    tuning = scorer(variables, few, thresholds)
    return Report(tuning.best, scorer(variables, source, thresholds), tuning)


def tune(
    run: Experiment,
    variables: Variables,
    mesh: Mesh,
    crops: Crops,
    protocol: Localisation,
    source: Source,
) -> tuple[float, Curves]:
    """The threshold of least top-1 error on at most `TUNING` images of a source, evenly spaced, and
    the curves there. Raises: UserError as `report`."""
    few = evenly(source, TUNING)
    scorer = Scorer(run, mesh, crops, protocol)
    curves = scorer(variables, few, scorer.thresholds(variables, few))
    return float(curves.thresholds[curves.best]), curves


def evaluate(
    run: Experiment,
    variables: Variables,
    mesh: Mesh,
    crops: Crops,
    protocol: Localisation,
    source: Source,
    thresholds: np.ndarray,
) -> Curves:
    """The scores of every image of a source at all thresholds, float [T]. Raises: UserError as
    `report`."""
    return Scorer(run, mesh, crops, protocol)(variables, source, thresholds)


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores sets of images, compiled once for all that have as many true boxes.

    Raises: UserError for a run that is no classification, and settings that can't be.
    """

    run: Experiment
    mesh: Mesh
    crops: Crops
    protocol: Localisation

    def __post_init__(self) -> None:
        classification.check(self.run, self.crops)
        self.protocol.check()

    @cached_property
    def _score(self) -> Callable[[Variables, Arrays, np.ndarray], dict[str, jax.Array]]:
        return jax.jit(self._sums, out_shardings=sharding.replicated(self.mesh))

    @cached_property
    def _respond(self) -> Callable[[Variables, Arrays], jax.Array]:
        return jax.jit(self._greatest, out_shardings=sharding.replicated(self.mesh))

    def __call__(self, variables: Variables, source: Source, thresholds: np.ndarray) -> Curves:
        """See `evaluate`."""
        boxed = _boxed(source, self.run.dataset.name, self.crops, self.protocol)
        thresholds = localisation.rising(thresholds)

        def step(variables: Variables, batch: Arrays) -> dict[str, jax.Array]:
            return self._score(variables, batch, thresholds)

        sums = training.evaluate(step, variables, self._batches(boxed), self._to_devices())
        count = int(sums["count"])
        return Curves(
            count,
            boxed.left_out,
            int(sums["top1"]) / count,
            int(sums["top5"]) / count,
            thresholds,
            (count - sums["top1_localised"]) / count,
            (count - sums["top5_localised"]) / count,
            sums["gt_known"] / count,
            sums["box_accuracy"] / count,
            sums["class_count"],
            sums["class_localised"],
            sums["class_known"],
        )

    def thresholds(self, variables: Variables, source: Source) -> np.ndarray:
        """Those worth trying, float32 [T], rising from -inf. For logits they are quantiles of the
        responses that are in g somewhere in the images of the source."""
        if self.protocol.map == "softmax":
            found = localisation.probability_thresholds()
        else:
            boxed = _boxed(source, self.run.dataset.name, self.crops, self.protocol)
            place = self._to_devices()
            values = [
                np.asarray(self._respond(variables, place(batch))).ravel()
                for batch in self._batches(boxed)
            ]
            greatest = np.concatenate(values)
            greatest = greatest[np.isfinite(greatest)]
            found = localisation.quantile_thresholds(greatest if greatest.size else np.zeros(1))
        given = self.protocol.threshold
        return found if given is None else localisation.rising(found, given)

    def _batches(self, boxed: "_Boxed") -> Any:
        keys = ("image", "label", "boxes", "boxed", *Geometry._fields)
        whole = self.protocol.image == "whole"
        return classification.batches(
            self.run,
            self.mesh,
            self.crops,
            boxed.source,
            (*keys, "whole") if whole else keys,
            partial(_example, self.crops, boxed.most, whole),
            boxed.sizes,
        )

    def _to_devices(self) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]:
        return classification.to_devices(self.run, self.mesh)

    def _responses(self, variables: Variables, batch: Arrays) -> tuple[jax.Array, jax.Array]:
        """Logits [N, C] from all crops, and the class map [N, h, w, C] that boxes are found in."""
        logits, maps = classification.outputs(self.run, self.mesh, variables, batch["image"])
        if "whole" in batch:
            images = batch["whole"][:, None]
            _, maps = classification.outputs(self.run, self.mesh, variables, images)
            images, maps = images[:, 0], maps[:, 0]
        else:
            images, maps = batch["image"][:, 0], maps[:, self.crops.centre]
        self._check_map(images.shape[1:3], maps.shape[1:3])
        return classification.averaged(logits, self.crops.average), maps

    def _check_map(self, image: tuple[int, ...], cells: tuple[int, ...]) -> None:
        """Raise UserError unless the cells cover the image."""
        stride = self.run.stride
        if any(-(-pixels // stride) != n for pixels, n in zip(image, cells, strict=True)):
            raise UserError(
                f"{self.run.config.model.name}: its {_by(cells)} cells of {stride} pixels do not "
                f"cover an image of {_by(image)}, so they tell no place; use a DRN or a ResNet"
            )

    def _greatest(self, variables: Variables, batch: Arrays) -> jax.Array:
        """The response of the class in g at every cell [N, h, w]; NaN for copies."""
        _, maps = self._responses(variables, batch)
        best = self.protocol.responses(maps).max(-1)
        return jnp.where(batch["valid"][:, None, None], best, jnp.nan)

    def _sums(
        self, variables: Variables, batch: Arrays, thresholds: jax.Array
    ) -> dict[str, jax.Array]:
        """Counts, int32, of the batch's valid images."""
        logits, maps = self._responses(variables, batch)
        geometry = Geometry(**{name: batch[name] for name in Geometry._fields})
        label, valid = batch["label"][:, None], batch["valid"]

        def overlaps(cells: jax.Array) -> jax.Array:
            found = localisation.to_pixels(cells, self.run.stride, geometry)
            return localisation.best_iou(found, batch["boxes"], batch["boxed"])

        predicted = jax.lax.top_k(logits, min(5, logits.shape[-1]))[1]
        # A broken network is never right.
        sound = ~jnp.isnan(logits).any(-1, keepdims=True)
        right = (predicted == label) & sound & valid[:, None]
        classes = jnp.concatenate([predicted, label], 1)
        cells = localisation.boxes(self.protocol.responses(maps), classes, thresholds)
        hit = overlaps(cells) > self.protocol.iou
        localised = right[..., None] & hit[:, :-1]
        # On logits, as there, also where the paper's boxes are of probabilities.
        scored = localisation.score_boxes(maps, label, jnp.asarray(SCORE_THRESHOLDS))
        deltas = jnp.asarray(DELTAS)[None, :, None]
        enough = overlaps(scored) >= deltas
        of_class = jax.nn.one_hot(batch["label"], logits.shape[-1], dtype=jnp.int32)
        of_class = of_class * valid[:, None]

        def by_class(true: jax.Array) -> jax.Array:
            return jnp.einsum("nc,nt->ct", of_class, true.astype(jnp.int32))

        return {
            "count": _total(valid),
            "top1": _total(right[:, 0]),
            "top5": _total(right.any(1)),
            "top1_localised": _total(localised[:, 0]),
            "top5_localised": _total(localised.any(1)),
            "gt_known": _total(hit[:, -1] & valid[:, None]),
            "class_count": of_class.sum(0),
            "class_localised": by_class(localised[:, 0]),
            "class_known": by_class(hit[:, -1]),
            "box_accuracy": _total(enough & valid[:, None, None]),
        }


def _total(true: jax.Array) -> jax.Array:
    return true.sum(0, dtype=jnp.int32)


def _by(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


@dataclass(frozen=True)
class _Boxed:
    """The images of a source that have boxes."""

    source: Part
    most: int
    """True boxes that every image has room for."""
    left_out: int
    sizes: tuple[tuple[int, int], ...] | None
    """(height, width) of each image once it is resized; None where only crops are taken."""


def _boxed(source: Source, name: str, crops: Crops, protocol: Localisation) -> _Boxed:
    """Look through a source of the data set `name`. Raises: UserError if it has no boxes."""
    whole = protocol.image == "whole"

    def look(index: int) -> tuple[int, tuple[int, int]]:
        if not whole:
            known = _boxes_alone(source, index)
            if known is not None:
                return known, (0, 0)
        example = source[index]
        if not whole:
            return len(example.get("boxes", ())), (0, 0)
        height, width = classification.cropped(example["image"], crops)[0].shape[:2]
        return len(example.get("boxes", ())), (height, width)

    counts: list[int] = []
    sizes: list[tuple[int, int]] = []
    for found in decoding.each(source, look):
        if isinstance(found, UserError):
            raise found
        counts.append(found[0])
        sizes.append(found[1])
    kept = tuple(index for index, count in enumerate(counts) if count)
    if not kept:
        raise UserError(
            f"data set {name}: {len(counts)} images and not one box among them; localisation needs "
            "a set with boxes (imagenet with its CLS-LOC annotations, tiny_imagenet, digit_scenes)"
        )
    # Powers of two, so that two sets seldom need two compilations.
    most = 1 << (max(counts) - 1).bit_length()
    resized = tuple(sizes[index] for index in kept) if whole else None
    return _Boxed(Part(source, kept), most, len(counts) - len(kept), resized)


def _boxes_alone(source: Source, index: int) -> int | None:
    """How many boxes an example has, where that is known without decoding its image."""
    if isinstance(source, Part):
        return _boxes_alone(source.whole, source.indices[index])
    if isinstance(source, FileSource):
        return 0 if source.boxes is None else len(source.boxes[index])
    return None


def _example(crops: Crops, most: int, whole: bool, example: Example) -> Example:
    """What a batch holds of an image: its crops; where the crop that is mapped, or the whole image,
    lies; and its true boxes, which stay in the pixels of the original."""
    resized, views, places = classification.cropped(example["image"], crops)
    if whole:
        size = (resized.shape[0], resized.shape[1])
        places = classification.located(
            example["image"], resized, size, [(0, 0)], np.zeros(1, bool)
        )
        place = 0
    else:
        place = crops.centre
    boxes = np.zeros((most, 4), np.float32)
    boxes[: len(example["boxes"])] = example["boxes"]
    found = {
        "image": views,
        "label": example["label"],
        "boxes": boxes,
        "boxed": np.arange(most) < len(example["boxes"]),
        **{name: values[place] for name, values in places._asdict().items()},
    }
    return found | {"whole": resized} if whole else found
