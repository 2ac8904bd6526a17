"""The goldens: what the published networks compute on weights drawn by `goldens/procedural.py`."""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType

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
def torch() -> ModuleType:
    """PyTorch; what needs it is skipped without the extra `torch`."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def procedural() -> ModuleType:
    return _procedural()


@pytest.fixture(scope="session")
def goldens() -> Path:
    """The folder of the goldens."""
    return FOLDER


@pytest.fixture(scope="session")
def golden(procedural):
    """`golden(name)`: the state, facts and figures of one published network. `golden(name, drawn)`
    takes arrays that were drawn before, by name."""

    def read(name: str, drawn: Mapping[str, np.ndarray] = MappingProxyType({})) -> Golden:
        facts = json.loads((FOLDER / f"{name}.json").read_text())
        state = {}
        for key, shape in dict(facts["state"]).items():
            known = key in drawn and drawn[key].shape == tuple(shape)
            state[key] = drawn[key] if known else procedural.tensor(key, tuple(shape))
        with np.load(FOLDER / f"{name}.npz") as figures:
            return Golden(name, state, facts, dict(figures))

    return read
