"""`variables_of` of the models' tests."""

import importlib.util
from pathlib import Path

import pytest

_PLACE = Path(__file__).parents[1] / "models/conftest.py"


@pytest.fixture(scope="session")
def variables_of():
    """See `random_variables` there."""
    spec = importlib.util.spec_from_file_location("models_conftest", _PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.random_variables
