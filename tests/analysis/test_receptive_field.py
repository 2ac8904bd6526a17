"""Receptive fields are those computed by hand from the papers' definitions, and those of the
networks themselves: where the gradient of a cell is not 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drn_jax import models
from drn_jax.analysis import receptive_field
from drn_jax.errors import UserError
from drn_jax.models.context import Context
from drn_jax.models.stages import Stage, blocks, surroundings


def last(name, **options):
    return receptive_field.of_stages(models.table(name, **options))[-1]


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet_18", 435), ("resnet_34", 899), ("resnet_50", 427), ("resnet_101", 971)],
)
def test_a_resnet_sees_as_far_as_computed_by_hand(name, size):
    field = last(name)
    assert (field.size, field.stride) == (size, 32)


@pytest.mark.parametrize("output_stride", [32, 16, 8, 4])
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_conversion_to_drn_a_keeps_the_receptive_field(depth, output_stride):
    field = last(f"drn_a_{depth}", output_stride=output_stride)
    assert (field.size, field.stride) == (last(f"resnet_{depth}").size, output_stride)


@pytest.mark.parametrize(("name", "size"), [("drn_a_18", 355), ("drn_a_50", 411)])
def test_the_published_code_shrinks_the_receptive_field(name, size):
    assert last(name, variant="published_code").size == size


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("drn_c_26", (11, 17, 45, 101, 229, 485, 549, 581)),
        ("drn_c_42", (11, 17, 61, 181, 565, 949, 1013, 1045)),
        ("drn_d_22", (9, 11, 39, 95, 223, 479, 511, 527)),
        ("drn_d_105", (9, 11, 31, 87, 823, 1015, 1047, 1063)),
    ],
)
def test_every_level_of_a_drn_sees_as_far_as_computed_by_hand(name, sizes):
    fields = receptive_field.of_stages(models.table(name))
    assert tuple(field.size for field in fields[1:]) == sizes


def test_every_row_of_vgg_16_sees_as_far_as_computed_by_hand():
    fields = {
        f.stage: (f.size, f.stride) for f in receptive_field.of_stages(models.table("vgg_16"))
    }
    assert [fields[f"pool{level}"] for level in range(1, 6)] == [
        (6, 2),
        (16, 4),
        (44, 8),
        (100, 16),
        (212, 32),
    ]
    assert fields["fc6"] == fields["fc7"] == (404, 32)


@pytest.mark.parametrize("padding", ["none", "zero"])
def test_every_row_of_the_dilated_front_end_sees_as_far_as_computed_by_hand(padding):
    rows = models.table("vgg_16_front_end", padding=padding)
    fields = {f.stage: (f.size, f.stride) for f in receptive_field.of_stages(rows)}
    assert [fields[name] for name in ("pool1", "pool2", "pool3", "conv4_3", "conv5_3", "fc6")] == [
        (6, 2),
        (16, 4),
        (44, 8),
        (92, 8),
        (188, 8),
        (380, 8),
    ]
    assert fields["fc7"] == (380, 8)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vgg_16_front_end", 380),
        ("dilation7_kitti", 652),
        ("dilation8_camvid", 908),
        ("dilation8_pascal_voc", 908),
        ("dilation10_cityscapes", 2444),
    ],
)
def test_a_published_dilated_net_sees_as_far_as_computed_by_hand(name, size):
    field = receptive_field.of_stages(models.create(name).table)[-1]
    assert (field.size, field.stride) == (size, 8)


@pytest.mark.parametrize("padding", ["layer", "once", "mirror", "none"])
@pytest.mark.parametrize("size", ["basic", "large"])
def test_a_context_module_of_any_size_and_padding_sees_as_far_as_table_1(size, padding):
    module = models.create("context", context=Context(8, size, padding))
    fields = receptive_field.of_stages(module.table)
    assert [(f.size, f.stride) for f in fields] == [(s, 1) for s in (3, 5, 9, 17, 33, 65, 67, 67)]


def test_a_context_module_widens_the_field_of_a_drn_by_66_of_its_cells():
    model = models.create("drn_c_26", context=Context())
    fields = {f.stage: f for f in receptive_field.of_stages(model.table)}
    assert fields["head"].size == 581
    assert fields["ctx_final"].size == 581 + 8 * 66


def test_rows_are_the_layers_of_the_network_under_their_parameters_names():
    rows = receptive_field.of("drn_a_18")
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(models.create("drn_a_18").init, jax.random.key(0), images)["params"]
    kernels = {
        "/".join(key.key for key in path[:-1])
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel"
    }
    sums = {f"level{level}/block{block}" for level in (2, 3, 4, 5) for block in (1, 2)}
    assert {row.layer for row in rows} == kernels | sums | {"pool"}
    assert len(rows) == len({row.layer for row in rows})


def test_a_sum_sees_what_the_widest_branch_sees_and_by_the_shortest_what_the_narrowest_sees():
    rows = {row.layer: row for row in receptive_field.of("drn_a_18", 224)}
    inside, shortcut = rows["level4/block1/conv2"], rows["level4/block1/projection"]
    assert (inside.size, inside.size_min, inside.dilation) == (147, 59, 2)
    assert (shortcut.size, shortcut.size_min, shortcut.dilation) == (99, 11, 1)
    whole = rows["level4/block1"]
    assert (whole.size, whole.size_min, whole.dilation, whole.output) == (147, 11, 2, 28)


@pytest.mark.parametrize("size", [224, 225, 231])
def test_output_sizes_are_those_of_the_feature_maps(size):
    model = models.create("drn_d_22", 2, 1 / 64)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    (_, maps), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    rows = {row.stage: row.output for row in receptive_field.of_stages(model.table, size)}
    assert rows.pop("head") == maps.pop("logits_2d").shape[1]
    assert rows == {name: map.shape[1] for name, map in maps.items()}


def test_first_cell_of_a_drn_is_centred_on_the_first_pixel_and_of_the_front_end_on_3_5():
    assert {row.offset for row in receptive_field.of("drn_c_26")} == {0.0}
    margin = surroundings(models.table("vgg_16_front_end"))
    assert receptive_field.of("vgg_16_front_end")[-1].offset - margin == 3.5


def test_branches_that_are_not_aligned_are_refused():
    """A kernel of 2 shifts its map by half a cell."""
    with pytest.raises(ValueError, match="level/block1: its branches are not aligned"):
        receptive_field.of((Stage("level", "basic", 3, kernel=2),))


def test_a_network_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="drn_c_27"):
        receptive_field.of("drn_c_27")


# The support of the gradient


ALONE = (
    "dilation7_kitti",
    "dilation8_camvid",
    "dilation10_cityscapes",
    "context7_kitti",
    "context8_pascal_voc",
    "context10_cityscapes",
)
"""Of the published dilated nets; the others have one of these tables but for their channels."""
NAMES = (*(name for name in models.MODELS if name not in models.dilation.PUBLISHED), *ALONE)


class Probe:
    """The gradient of a cell in the middle of every stage's map by the input.

    With positive weights nothing cancels, and every ReLU is open. A pooling lets through the
    winner alone: on an image that rises downwards the last of each window, on one that falls the
    first; both together reach the whole field. The image is as narrow as can be, as the geometry is
    the same along both axes. Example k of the batch asks for the gradient of one cell of stage k,
    both ways.
    """

    def __init__(self, name, odd):
        options = {"padding": "zero"} if name.startswith(("dilation", "vgg_16_")) else {}
        options |= {"fc_channels": 1} if name.startswith(("dilation", "vgg_16")) else {}
        if name.startswith("context"):
            self.model, channels = models.create(name, 1, convolution="native"), 1
        else:
            self.model = models.create(name, 1, 1 / 512, convolution="native", **options)
            channels = 3
        self.fields = receptive_field.of_stages(self.model.table)
        self.height = self.fields[-1].size + 2 * max(field.stride for field in self.fields)
        self.height += (self.height % 2 == 0) == odd
        self.cells = [round((self.height / 2 - f.offset) / f.stride) for f in self.fields]
        width = 193 if name == "vgg_16" else 1
        ramp = np.arange(1, self.height + 1, dtype=np.float32)
        shape = (len(self.fields), self.height, width, channels)
        images = np.stack([ramp, ramp[::-1]])[:, None, :, None, None]
        self.images = np.broadcast_to(images, (2, *shape))
        one = jax.ShapeDtypeStruct((1, *shape[1:]), jnp.float32)
        self.shapes = jax.eval_shape(self.model.init, jax.random.key(0), one)
        # Compiled in haste: a deep network is run twice.
        self.gradient = (
            jax.jit(jax.grad(self.total, 1))
            .lower(self.shapes, jnp.asarray(self.images))
            .compile(compiler_options={"xla_backend_optimization_level": 0})
        )

    def total(self, variables, images):
        _, maps = self.model.apply(variables, images.reshape(-1, *images.shape[2:]))
        maps["head"] = maps.get("front_end", maps["logits_2d"])
        found = 0.0
        for k, (field, cell) in enumerate(zip(self.fields, self.cells, strict=True)):
            both = maps[field.stage]
            found += both[k, cell].sum() + both[len(self.fields) + k, cell].sum()
        return found

    def reached(self, closed):
        """First and last row of the input that reaches the cell of every stage, with some batch
        norms multiplying by 0."""

        def leaf(path, leaf):
            if tuple(key.key for key in path[1:-1]) in closed:
                return np.zeros(leaf.shape, leaf.dtype)
            # Taps beyond a narrow map meet zeros: kernels of any sum will do.
            values = {"kernel": 1 / np.prod(leaf.shape[1:-1], initial=1.0), "scale": 1, "var": 1}
            return np.full(leaf.shape, values.get(path[-1].key, 0), leaf.dtype)

        variables = jax.tree_util.tree_map_with_path(leaf, self.shapes)
        gradient = np.asarray(self.gradient(variables, jnp.asarray(self.images)))
        hit = [np.flatnonzero(rows) for rows in (gradient > 0).any((0, 3, 4))]
        return [(rows[0], rows[-1]) for rows in hit]

    def expected(self, sizes):
        middles = [f.offset + f.stride * c for f, c in zip(self.fields, self.cells, strict=True)]
        reach = [(size - 1) / 2 for size in sizes]
        return [(m - r, m + r) for m, r in zip(middles, reach, strict=True)]


def last_norms(table):
    """The batch norm at the end of every path beside which there is a shortcut."""
    found, channels = set(), 3
    for stage in table:
        for block in blocks(stage, channels):
            if block.shortcut != "none":
                found.add((stage.name, block.name, block.path[-1].norm))
        channels = stage.outputs
    return found


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_a_cell_of_every_stage_reaches_exactly_its_field(name):
    """By all paths; and with the paths closed that have a shortcut beside them, by the shortest.
    Half of the networks see an odd number of rows, half an even one."""
    probe = Probe(name, odd=NAMES.index(name) % 2 == 0)
    fields = probe.fields
    assert probe.reached(closed=()) == probe.expected([field.size for field in fields])
    shortest = probe.reached(closed=last_norms(probe.model.table))
    assert shortest == probe.expected([field.size_min for field in fields])


@pytest.mark.parametrize("name", ["resnet_18", "drn_a_18", "drn_c_26", "vgg_16_front_end"])
def test_gradient_reaches_the_field_on_images_of_the_other_parity(name):
    probe = Probe(name, odd=NAMES.index(name) % 2 != 0)
    assert probe.reached(closed=()) == probe.expected([field.size for field in probe.fields])


def test_every_network_has_the_table_of_one_whose_gradient_is_looked_at():
    def geometry(name):
        return [(s.name, s.kind, s.kernel, s.stride, s.dilation) for s in models.full_table(name)]

    looked_at = [geometry(name) for name in NAMES]
    for name in models.MODELS:
        same = geometry(name)
        assert any([row[1:] for row in other] == [row[1:] for row in same] for other in looked_at)


def test_gradient_reaches_the_field_of_the_front_end_that_pads_nothing():
    """By the upper left cell, whose field is at the very corner of the image."""
    model = models.create("vgg_16_front_end", 1, 1 / 512, fc_channels=1, convolution="native")
    ramp = jnp.arange(1.0, 390.0)
    # Poolings let through the greatest: falling and rising along both axes.
    ways = [ramp[:, None] * ramp[None, :], (ramp[:, None] * ramp[None, :])[::-1, ::-1]]
    images = jnp.broadcast_to(jnp.stack(ways)[..., None], (2, 389, 389, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images[:1])
    variables = jax.tree.map(lambda s: jnp.full(s.shape, float(len(s.shape) > 1) / 9), shapes)
    total = lambda images: model.apply(variables, images)[1]["logits_2d"][:, 0, 0].sum()  # noqa: E731
    reached = np.asarray(jax.jit(jax.grad(total))(images) > 0).any((0, 3))
    expected = np.arange(389) < receptive_field.of("vgg_16_front_end")[-1].size
    np.testing.assert_array_equal(reached.any(1), expected)
    np.testing.assert_array_equal(reached.any(0), expected)


# Coverage


def loops(dilations):
    """Paths counted one by one: offsets of every choice of taps."""
    reach = sum(dilations)
    counts = np.zeros(2 * reach + 1, int)
    offsets = [0]
    for dilation in dilations:
        offsets = [place + tap * dilation for place in offsets for tap in (-1, 0, 1)]
    for place in offsets:
        counts[place + reach] += 1
    return np.outer(counts, counts)


@pytest.mark.parametrize("dilations", [(1,), (1, 2), (1, 2, 4), (2, 2, 2), (3, 1), (1, 1, 2, 4)])
def test_coverage_of_a_series_counts_its_paths_one_by_one(dilations):
    counted = receptive_field.coverage(receptive_field.series(dilations))
    np.testing.assert_array_equal(counted, loops(dilations))


@pytest.mark.parametrize("layers", [1, 2, 3, 6])
def test_dilations_that_double_see_2_to_the_i_plus_2_less_1_without_a_hole(layers):
    """Context paper, section 2: F_i is seen by (2^(i+1) - 1)^2 of F_0 for i layers."""
    table = receptive_field.series([2**i for i in range(layers)])
    size = 2 ** (layers + 1) - 1
    assert receptive_field.of(table)[-1].size == size
    counted = receptive_field.coverage(table)
    assert counted.shape == (size, size)
    assert counted.min() >= 1


def test_equal_dilations_of_2_never_use_three_pixels_of_four():
    counted = receptive_field.coverage(receptive_field.series((2, 2, 2)))
    used = counted > 0
    assert counted.shape == (13, 13)
    np.testing.assert_array_equal(used, np.outer(np.arange(13) % 2 == 0, np.arange(13) % 2 == 0))


@pytest.mark.parametrize("strided", [False, True])
def test_coverage_of_a_block_is_its_path_and_its_shortcut(strided):
    """A 3x3 and a 3x3 behind another layer, and the cell itself, or where it strides the cell below
    it: by the definition, tap by tap."""
    stride = 2 if strided else 1
    table = (
        Stage("stem", "conv", 3),
        Stage("level", "basic", 3, stride=stride, dilation=2),
    )
    counted = receptive_field.coverage(table)
    reach = 1 + 2 + 2 * stride
    expected = np.zeros((2 * reach + 1,) * 2)
    steps = (-1, 0, 1)

    def taps(dilation):
        return [(dilation * y, dilation * x) for y in steps for x in steps]

    for y0, x0 in taps(1):
        expected[reach + y0, reach + x0] += 1  # The shortcut.
        for y1, x1 in taps(2):
            for y2, x2 in taps(2 * stride):
                expected[reach + y0 + y1 + y2, reach + x0 + x1 + x2] += 1
    np.testing.assert_array_equal(counted, expected)


@pytest.mark.parametrize("name", ["resnet_18", "drn_a_18", "drn_d_22", "dilation7_kitti"])
def test_coverage_fills_the_field_and_is_symmetric(name):
    counted = receptive_field.coverage(name)
    assert counted.shape == (receptive_field.of(name)[-1].size,) * 2
    np.testing.assert_allclose(counted, counted.T, rtol=1e-12)
    np.testing.assert_allclose(counted, counted[::-1, ::-1], rtol=1e-12)
    assert counted.min() >= 1
