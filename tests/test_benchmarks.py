"""The benchmarks compare like with like."""

import importlib.util
import sys
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, PLACE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("recipe", ["ImageNet", "Cityscapes"])
def test_the_input_pipelines_make_the_same_image_pixels_of_the_same_draws(recipe, tmp_path):
    input_pipeline = load("input_pipeline")
    input_pipeline.make_images(tmp_path, recipe, 1)
    found = input_pipeline.check_pixels(recipe, tmp_path, draws=3)  # Raises for any difference.
    assert found["mask_agreement"] > 0.999
