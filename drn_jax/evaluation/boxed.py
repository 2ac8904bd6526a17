"""Single images of a localisation, to be looked at: the prediction, its box, and its map."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drn_jax.evaluation import crops as classification
from drn_jax.evaluation import localisation
from drn_jax.evaluation.crops import Crops, Geometry
from drn_jax.evaluation.localisation import Localisation
from drn_jax.experiment import Experiment
from drn_jax.training.steps import Variables


@dataclass(frozen=True)
class Boxed:
    """An image of the validation set, and what the network makes of it."""

    image: np.ndarray
    """uint8 [H, W, 3]."""
    crop: np.ndarray
    """What the map is of: the centre crop, or the whole resized image, uint8 [h, w, 3]."""
    label: int
    predicted: int
    probability: float
    """Of the predicted class."""
    map: np.ndarray
    """Probability of the predicted class at every cell of that, float32."""
    box: np.ndarray
    """Of the predicted class, [4], pixels of the image."""
    truth: np.ndarray
    """[n, 4], likewise."""
    overlap: float
    """IoU of the box with the best of the true ones."""


def of_images(
    run: Experiment,
    variables: Variables,
    crops: Crops,
    protocol: Localisation,
    threshold: float | None,
    indices: Sequence[int],
) -> Iterator[Boxed]:
    """Validation images with boxes, by their numbers, one after the other.

    Args:
      variables: whole on one device, as of `program.here`.
      threshold: t; None: none.
    """
    thresholds = jnp.asarray([-np.inf if threshold is None else threshold], jnp.float32)

    @jax.jit
    def look(
        variables: Variables, views: jax.Array, seen: jax.Array, geometry: Geometry
    ) -> tuple[jax.Array, ...]:
        found: Any = run.model.apply(variables, run.inputs({"image": views}), train=False)
        scores = classification.averaged(found[0][None], crops.average)
        best = scores.argmax(-1)[:, None]
        found = run.model.apply(variables, run.inputs({"image": seen}), train=False)
        maps = found[1]["logits_2d"]
        cells = localisation.boxes(protocol.responses(maps), best, thresholds)
        box = localisation.to_pixels(cells, run.stride, geometry)[0, 0, 0]
        return best[0, 0], jax.nn.softmax(scores)[0], jax.nn.softmax(maps)[0], box

    for index in indices:
        example = run.dataset.validation[index]
        if not len(example.get("boxes", ())):
            continue
        resized, views, places = classification.cropped(example["image"], crops)
        seen = views[crops.centre]
        geometry = Geometry(*(np.asarray(a)[crops.centre : crops.centre + 1] for a in places))
        if protocol.image == "whole":
            seen = resized
            geometry = classification.located(
                example["image"], seen, seen.shape[:2], [(0, 0)], np.zeros(1, bool)
            )
        answer = jax.device_get(look(variables, views, seen[None], geometry))
        predicted, probability, maps, box = answer
        overlaps = localisation.iou(jnp.asarray(box)[None, :], jnp.asarray(example["boxes"]))
        yield Boxed(
            image=example["image"],
            crop=seen,
            label=int(example["label"]),
            predicted=int(predicted),
            probability=float(probability[predicted]),
            map=maps[..., predicted],
            box=box,
            truth=example["boxes"],
            overlap=float(overlaps.max()),
        )
