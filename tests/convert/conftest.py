"""The goldens: what the published networks compute on weights drawn by `goldens/procedural.py`."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "goldens"


@dataclass(frozen=True)
class Golden:
    """One published network: its state, and the figures that it printed."""

    name: str
    state: dict[str, np.ndarray]
    facts: dict
    figures: dict[str, np.ndarray]


def _procedural() -> ModuleType:
    spec = importlib.util.spec_from_file_location("procedural", FOLDER / "procedural.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def procedural() -> ModuleType:
    return _procedural()


@pytest.fixture(scope="session")
def golden(procedural):
    """`golden(name)`: the state, facts and figures of one published network."""

    def read(name: str) -> Golden:
        facts = json.loads((FOLDER / f"{name}.json").read_text())
        state = {
            key: procedural.tensor(key, tuple(shape)) for key, shape in dict(facts["state"]).items()
        }
        with np.load(FOLDER / f"{name}.npz") as figures:
            return Golden(name, state, facts, dict(figures))

    return read
