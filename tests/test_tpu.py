"""What the TPU's compiler makes of a training step, without a TPU: `pip install -e '.[tpu]'`.

Nothing is executed. libtpu is large and under terms of its own, so these tests are optional.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies

from drn_jax import models, program
from drn_jax.analysis import collectives
from drn_jax.tasks import Segmentation
from drn_jax.training import optim, sharding
from drn_jax.training.sharding import MeshShape

pytest.importorskip("libtpu", reason="needs the TPU's compiler: pip install -e '.[tpu]'")

SIDE, IMAGES, CLASSES = 128, 4, 3
SGD = optim.sgd(lambda _: 0.01, momentum=0.9, weight_decay=1e-4)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def compiled(request):
    """The training step of a narrow network, its rows over four of eight chips."""
    preprocess = models.preprocessing("drn_d_22")
    run = SimpleNamespace(
        model=models.create(
            "drn_d_22",
            CLASSES,
            width=0.25,
            dtype=jnp.dtype(request.param),
            convolution="native",  # What a run chooses where rows are split.
        ),
        task=Segmentation(CLASSES, 8),
        training_inputs=lambda batch: preprocess(batch["image"]),
        input_shape=(SIDE, SIDE, 3),
        batch_shapes={
            "image": jax.ShapeDtypeStruct((IMAGES, SIDE, SIDE, 3), np.uint8),
            "mask": jax.ShapeDtypeStruct((IMAGES, SIDE, SIDE), np.uint8),
        },
        config=SimpleNamespace(seed=0, accumulate=1, ema=0.0, deterministic=False),
    )
    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
    mesh = sharding.make_mesh(MeshShape(data=2, spatial=4), chips)
    state, batch = program.abstract_state(run, SGD, mesh), program.abstract_batch(run, mesh)
    step = program.trainer(run, SGD, mesh).lower(state, batch).compile()
    return step, sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


@pytest.mark.long
def test_rows_over_chips_are_exchanged_with_neighbours_and_never_gathered(compiled):
    step, _ = compiled
    found = collectives.of_program(step.as_text())
    kinds = {one.kind for one in found}
    assert "collective-permute" in kinds
    assert kinds <= {"collective-permute", "all-reduce"}


@pytest.mark.long
def test_what_a_chip_holds_is_told_and_the_state_is_used_again(compiled):
    step, state = compiled
    held = step.memory_analysis()
    assert held.temp_size_in_bytes > 0
    assert state <= held.alias_size_in_bytes <= held.argument_size_in_bytes
