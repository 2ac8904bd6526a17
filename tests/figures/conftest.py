"""Working directories of tiny networks with random weights."""

import pytest
from ml_collections import ConfigDict

from drn_jax import config, models, trained
from drn_jax.training.checkpoint import Checkpoints

ANIMALS = ("cat", "dog", "eel", "fox")
STREETS = ("road", "sky", "car")


def save_network(place, variables_of, name, task, classes, data):
    network = models.create(name, len(classes), 0.05)
    settings = {
        "name": "tiny",
        "task": task,
        "model": {"name": name, "width": 0.05},
        "data": data,
        "batch_size": 1,
        "epochs": 1,
        "optimizer": {"learning_rate": 0.1},
        "schedule": {"kind": "poly"},
    }
    described = trained.described(tuple(classes), None, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    known = {"config": config.complete(ConfigDict(settings)).to_dict(), **described}
    with Checkpoints(place) as checkpoints:
        checkpoints.save_weights(variables_of(network, (1, 64, 64, 3)), known)
    return str(place)


@pytest.fixture(scope="session")
def classifiers(place, tmp_path_factory, variables_of):
    """DRN-A-18 and DRN-D-22 for four classes."""
    top = tmp_path_factory.mktemp("classifiers")
    data = {"name": "imagenet", "dir": str(place / "photographs"), "crop": 32, "resize": 32}
    return [
        save_network(top / name, variables_of, name, "classification", ANIMALS, data)
        for name in ("drn_a_18", "drn_d_22")
    ]


@pytest.fixture(scope="session")
def segmenter(place, tmp_path_factory, variables_of):
    """DRN-D-22 for three classes."""
    data = {"name": "list_folder", "dir": str(place / "streets"), "crop": (32, 32)}
    top = tmp_path_factory.mktemp("segmenters")
    return save_network(top / "run", variables_of, "drn_d_22", "segmentation", STREETS, data)


def bars(figure):
    """The colour bars of a figure."""
    return [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]


def texts(figure):
    """All that is written in a figure's axes, its titles and labels among it."""
    return [text.get_text() for axes in figure.axes for text in axes.findobj(match=_is_text)]


def _is_text(artist):
    return hasattr(artist, "get_text") and bool(artist.get_text())


@pytest.fixture
def looked():
    """`bars` and `texts`."""
    return bars, texts
