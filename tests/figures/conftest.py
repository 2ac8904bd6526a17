"""Working directories of tiny networks with random weights."""

import pytest

ANIMALS = ("cat", "dog", "eel", "fox")
STREETS = ("road", "sky", "car")


@pytest.fixture(scope="session")
def classifiers(place, tmp_path_factory, save_random):
    """DRN-A-18 and DRN-D-22 for four classes."""
    top = tmp_path_factory.mktemp("classifiers")
    data = {"name": "imagenet", "dir": str(place / "photographs"), "crop": 32, "resize": 32}
    return [
        save_random(top / name, name, "classification", ANIMALS, data)
        for name in ("drn_a_18", "drn_d_22")
    ]


@pytest.fixture(scope="session")
def segmenter(place, tmp_path_factory, save_random):
    """DRN-D-22 for three classes."""
    data = {"name": "list_folder", "dir": str(place / "streets"), "crop": (32, 32)}
    top = tmp_path_factory.mktemp("segmenters")
    return save_random(top / "run", "drn_d_22", "segmentation", STREETS, data)


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
