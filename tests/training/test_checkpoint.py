"""Checkpoints come back bit for bit, the right ones are kept, and a misfit is named."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from drn_jax.errors import UserError
from drn_jax.models.context import Context, ContextModule
from drn_jax.models.dilation import ContextNetwork
from drn_jax.models.network import Network
from drn_jax.models.stages import Stage
from drn_jax.training import optim, sharding
from drn_jax.training import state as states
from drn_jax.training.checkpoint import Checkpoints

META = {"config": {"name": "tiny", "crop": [16, 16]}, "classes": ["a", "b", "c"]}


@pytest.fixture(scope="module")
def scrambled(fresh_state):
    """A state as after `step` steps: every float, velocity and statistics too, is random."""

    def scramble(step):
        rng = np.random.default_rng(step)

        def draw(leaf):
            if leaf.dtype != jnp.float32:
                return leaf
            return jnp.asarray(rng.normal(size=leaf.shape).astype(np.float32))

        return jax.tree.map(draw, fresh_state()).replace(step=jnp.asarray(step, jnp.int32))

    return scramble


def abstract(tree, where=None):
    """To be restored onto the first device, or by a sharding."""
    where = where or SingleDeviceSharding(jax.devices()[0])
    return sharding.placed(
        jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree), where
    )


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    paths = jax.tree_util.tree_leaves_with_path(expected)
    for leaf, (path, other) in zip(jax.tree.leaves(found), paths, strict=True):
        name = jax.tree_util.keystr(path)
        assert leaf.dtype == other.dtype, name
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes(), name


def variables_of(network):
    """Zeros where `network` has parameters and statistics, ones in its classifier."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    zeros["params"]["head"] = jax.tree.map(jnp.ones_like, zeros["params"]["head"])
    return zeros


def test_a_state_comes_back_bit_for_bit_with_its_optimiser_and_step(tmp_path, scrambled):
    state = scrambled(7)
    scores = {"top1": 0.25, "loss": 1.5}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META, scores, "top1")
    with Checkpoints(tmp_path) as checkpoints:
        assert_same_bits(checkpoints.restore(7, abstract(state)), state)
        variables = checkpoints.restore_variables(7, abstract(state.variables))
        assert_same_bits(variables, state.variables)
        assert checkpoints.meta(7) == META
        latest = checkpoints.latest()
        assert latest is not None
        assert latest.scores is not None
        assert {k: latest.scores[k] for k in scores} == scores


def test_a_state_can_be_restored_while_it_is_being_written(tmp_path, scrambled):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            state = scrambled(step)
            checkpoints.save(state, META)
            assert_same_bits(checkpoints.restore(step, abstract(state)), state)
            checkpoints.save(scrambled(10 * step), META)
            assert checkpoints.meta(10 * step) == META


def test_a_checkpoint_holds_the_state_as_it_was_though_the_next_step_consumes_it(
    tmp_path, scrambled
):
    consume = jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)
    state, expected = scrambled(1), scrambled(1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META)
        for _ in range(3):
            state = consume(state)
        assert_same_bits(checkpoints.restore(1, abstract(expected)), expected)


def test_the_best_and_the_newest_are_kept_and_no_other(tmp_path, scrambled):
    def steps():
        return [c.step for c in checkpoints.saved()]

    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        assert checkpoints.best() is None
        kept = []
        for step, score in enumerate([0.1, 0.5, 0.3, None], start=1):
            scores = None if score is None else {"top1": score}
            checkpoints.save(scrambled(step), META, scores, "top1")
            kept.append(steps())
        assert kept == [[1], [2], [2, 3], [2, 4]]
        assert checkpoints.choose("best").step == 2
        assert checkpoints.choose("latest").step == 4
        assert checkpoints.choose("2").step == 2
        with pytest.raises(UserError, match=r"no checkpoint '3' in .* one of 2, 4$"):
            checkpoints.choose("3")


def test_the_best_is_the_latest_of_equals(tmp_path, scrambled):
    with Checkpoints(tmp_path) as checkpoints:
        for step, score in ((1, 0.5), (2, 0.5), (3, 0.4)):
            checkpoints.save(scrambled(step), META, {"top1": score}, "top1")
        assert [c.step for c in checkpoints.saved()] == [2, 3]
        assert checkpoints.choose("best").step == 2


def test_the_primary_score_ranks_whatever_the_others_are(tmp_path, scrambled):
    with Checkpoints(tmp_path) as checkpoints:
        for step, top1, loss in ((1, 0.9, 1.0), (2, 0.5, 9.0)):
            checkpoints.save(scrambled(step), META, {"loss": loss, "top1": top1}, "top1")
        assert checkpoints.choose("best").step == 1


def test_a_step_saved_without_scores_receives_them_later_and_never_loses_them(tmp_path, scrambled):
    with Checkpoints(tmp_path) as checkpoints:
        for scores in (None, {"top1": 0.5}, None):
            checkpoints.save(scrambled(3), META, scores, "top1")
        (only,) = checkpoints.saved()
        assert (only.step, only.rank) == (3, 0.5)


def test_another_class_count_is_refused_naming_both_shapes(tmp_path, scrambled, model):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(scrambled(1), META)
        with pytest.raises(UserError) as caught:
            checkpoints.restore_variables(1, abstract(variables_of(model(5))))
    message = str(caught.value)
    assert "step 1" in message
    assert str(tmp_path) in message
    assert "- params/head/kernel (1, 1, 8, 3), + params/head/kernel (1, 1, 8, 5)" in message
    assert "stem" not in message
    assert "\n" not in message


def test_transfer_to_another_class_count_keeps_the_fresh_head_and_takes_the_rest(
    tmp_path, scrambled, model
):
    state, wanted = scrambled(1), variables_of(model(5))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META)
        found, fresh_head = checkpoints.transfer(1, wanted)
    assert fresh_head
    assert_same_bits(found["params"]["head"], wanted["params"]["head"])
    for part in ("stem", "level1"):
        assert_same_bits(found["params"][part], state.params[part])
    assert_same_bits(found["batch_stats"], state.batch_stats)


def test_transfer_to_the_same_classes_takes_the_head_too(tmp_path, scrambled, model):
    state = scrambled(1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META)
        found, fresh_head = checkpoints.transfer(1, variables_of(model()))
    assert not fresh_head
    assert_same_bits(found, state.variables)


def test_transfer_into_another_network_is_refused_naming_what_differs(tmp_path, scrambled):
    wider = Network((Stage("stem", "conv", 9, kernel=3, stride=2),), num_classes=5)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(scrambled(1), META)
        with pytest.raises(UserError) as caught:
            checkpoints.transfer(1, variables_of(wider))
    message = str(caught.value)
    assert "- batch_stats/level1/block1/norm1/mean (8,)" in message
    assert "more (- given, + expected)" in message
    assert "head" not in message


# Networks in two parts


@pytest.fixture(scope="module")
def whole():
    """`whole(network, context)`: that network with a context module behind it."""

    def make(network, context=Context(4)):
        return ContextNetwork(network, ContextModule(network.num_classes, context))

    return make


def drawn(module, seed, channels=3):
    """Random numbers where a module has parameters and statistics."""
    inputs = jnp.zeros((1, 16, 16, channels))
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), shapes)


def transferred(tmp_path, given, wanted, part):
    """`Checkpoints.transfer` of the variables `given` into `wanted`."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_weights(given, META)
        return checkpoints.transfer(0, wanted, part)


def test_a_front_end_goes_into_a_whole_network_and_leaves_its_context_module(
    tmp_path, model, whole
):
    given, wanted = drawn(model(), 1), drawn(whole(model()), 2)
    found, fresh_head = transferred(tmp_path, given, wanted, "front_end")
    assert not fresh_head
    assert set(found) == {"params", "batch_stats"}
    assert set(found["params"]) == {"front_end", "context"}
    assert_same_bits(found["params"]["front_end"], given["params"])
    assert_same_bits(found["batch_stats"], {"front_end": given["batch_stats"]})
    assert_same_bits(found["params"]["context"], wanted["params"]["context"])


def test_a_context_module_goes_into_a_whole_network_and_leaves_its_front_end(
    tmp_path, model, whole
):
    given, wanted = drawn(ContextModule(3, Context(4)), 1), drawn(whole(model()), 2)
    assert set(given) == {"params"}
    found, fresh_head = transferred(tmp_path, given, wanted, "context")
    assert not fresh_head
    assert_same_bits(found["params"]["context"], given["params"])
    assert_same_bits(found["params"]["front_end"], wanted["params"]["front_end"])
    assert_same_bits(found["batch_stats"], wanted["batch_stats"])


def test_a_front_end_of_other_classes_leaves_the_fresh_head_and_the_context_module(
    tmp_path, model, whole
):
    given, wanted = drawn(model(5), 1), drawn(whole(model()), 2)
    found, fresh_head = transferred(tmp_path, given, wanted, "front_end")
    assert fresh_head
    front_end = found["params"]["front_end"]
    assert_same_bits(front_end["head"], wanted["params"]["front_end"]["head"])
    for name in ("stem", "level1"):
        assert_same_bits(front_end[name], given["params"][name])
    assert_same_bits(found["params"]["context"], wanted["params"]["context"])


@pytest.mark.parametrize("part", ["", "front_end"])
def test_a_whole_network_goes_into_a_whole_network(tmp_path, model, whole, part):
    given, wanted = drawn(whole(model()), 1), drawn(whole(model()), 2)
    found, fresh_head = transferred(tmp_path, given, wanted, part)
    assert not fresh_head
    assert_same_bits(found, given)


def test_of_a_whole_network_the_context_module_alone_can_be_taken(tmp_path, model, whole):
    given, wanted = drawn(whole(model()), 1), drawn(whole(model()), 2)
    found, fresh_head = transferred(tmp_path, given, wanted, "context")
    assert not fresh_head
    assert_same_bits(found["params"]["context"], given["params"]["context"])
    assert_same_bits(found["params"]["front_end"], wanted["params"]["front_end"])
    assert_same_bits(found["batch_stats"], wanted["batch_stats"])


@pytest.mark.parametrize("part", ["front_end", "context", ""])
def test_a_part_that_does_not_fit_is_named_in_one_line(tmp_path, model, whole, part):
    smaller = Network((Stage("stem", "conv", 6, kernel=3, stride=2),), num_classes=3)
    with pytest.raises(UserError) as caught:
        transferred(tmp_path, drawn(model(), 1), drawn(whole(smaller), 2), part)
    message = str(caught.value)
    assert f"the checkpoint of step 0 in {tmp_path}" in message
    assert "does not fit the model: " in message
    assert "- batch_stats/level1/block1/norm1/mean (8,)" in message
    assert "more (- given, + expected)" in message
    assert "\n" not in message


def test_a_network_without_batch_statistics_saves_and_restores(tmp_path):
    network = Network((Stage("conv1", "plain", 4, stride=4),), num_classes=3)
    tx = optim.caffe_sgd(lambda _: 0.1, momentum=0.9, weight_decay=1e-4)
    draw = jax.jit(lambda key: states.init(network, tx, key, (16, 16, 3)))
    state = draw(jax.random.key(1))
    state = state.replace(opt_state=jax.tree.map(lambda a: a + 1, state.opt_state))
    assert set(state.variables) == {"params"}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META, {"miou": 0.5}, "miou")
        assert_same_bits(checkpoints.restore(0, abstract(state)), state)
        variables = checkpoints.restore_variables(0, abstract(state.variables))
        assert_same_bits(variables, state.variables)
        wanted = draw(jax.random.key(2)).variables
        found, fresh_head = checkpoints.transfer(0, wanted)
    assert not fresh_head
    assert_same_bits(found, state.variables)


def test_a_folder_without_checkpoints_is_refused_where_one_must_exist(tmp_path, scrambled):
    with pytest.raises(UserError, match=f"no checkpoints in {tmp_path / 'runs'}: is it"):
        Checkpoints(tmp_path / "runs", must_exist=True)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="no complete checkpoint in"):
        Checkpoints(tmp_path / "empty", must_exist=True)
    with Checkpoints(tmp_path / "full") as checkpoints:
        checkpoints.save(scrambled(1), META)
    with Checkpoints(tmp_path / "full", must_exist=True) as checkpoints:
        assert checkpoints.choose("best").step == 1


def test_a_checkpoint_of_one_device_restores_onto_eight(tmp_path, scrambled):
    state = scrambled(1)
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(state)} == {1}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META)
        everywhere = sharding.replicated(sharding.make_mesh())
        found = checkpoints.restore(1, abstract(state, everywhere))
    assert {leaf.sharding for leaf in jax.tree.leaves(found)} == {everywhere}
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(found)} == {8}
    assert_same_bits(found, state)


def test_averages_come_back_beside_what_they_are_of(tmp_path, scrambled):
    state = scrambled(1)
    state = state.replace(ema=jax.tree.map(lambda a: a + 1, state.trained))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META)
        assert_same_bits(checkpoints.restore(1, abstract(state)), state)
        scored = checkpoints.restore_variables(1, abstract(state.variables))
    assert_same_bits(scored, state.ema)


def test_a_run_may_begin_and_cease_to_average(tmp_path, scrambled):
    plain = scrambled(1)
    averaging = plain.replace(ema=jax.tree.map(lambda a: a + 1, plain.trained))
    with Checkpoints(tmp_path / "plain") as checkpoints:
        checkpoints.save(plain, META)
        begun = checkpoints.restore(1, abstract(averaging))
    assert_same_bits(begun.ema, plain.trained)
    assert_same_bits(begun.trained, plain.trained)
    twice = {id(leaf) for tree in (begun.ema, begun.trained) for leaf in jax.tree.leaves(tree)}
    assert len(twice) == 2 * len(jax.tree.leaves(begun.ema))  # A step consumes both.
    with Checkpoints(tmp_path / "averaging") as checkpoints:
        checkpoints.save(averaging, META)
        assert_same_bits(checkpoints.restore(1, abstract(plain)), plain)


def test_the_state_of_another_optimiser_is_refused(tmp_path, scrambled, model):
    other = optim.caffe_sgd(lambda _: 0.1, momentum=0.9, weight_decay=1e-4)
    fresh = jax.eval_shape(lambda: states.init(model(), other, jax.random.key(0), (16, 16, 3)))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(scrambled(1), META)
        with pytest.raises(UserError, match=r"another optimiser: leave config\.optimizer as it"):
            checkpoints.restore(1, abstract(fresh))


@pytest.mark.parametrize("target", [(2, 4, 1), (2, 2, 2)], ids=str)
def test_a_checkpoint_of_one_mesh_restores_onto_another(tmp_path, model, target):
    """Split by other axes, over more and fewer devices: the same bits."""
    wide = model(classes=700)
    tx = optim.sgd(lambda _: 0.1, momentum=0.9, weight_decay=1e-4)

    def on(mesh):
        shapes = jax.eval_shape(lambda: states.init(wide, tx, jax.random.key(0), (16, 16, 3)))
        return sharding.placed(shapes, sharding.of_state(mesh, shapes))

    source = on(sharding.make_mesh(sharding.MeshShape(1, 8, 1)))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda a: jax.device_put(rng.normal(size=a.shape).astype(a.dtype), a.sharding), source
    )
    assert not drawn.params["head"]["kernel"].sharding.is_fully_replicated
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(drawn, META)
        wanted = on(sharding.make_mesh(sharding.MeshShape(*target)))
        step = checkpoints.saved()[0].step
        found = checkpoints.restore(step, wanted)
        alone = checkpoints.restore(step, abstract(wanted))
    places = [jax.tree.map(lambda a: a.sharding, tree) for tree in (found, wanted)]
    assert jax.tree.leaves(places[0]) == jax.tree.leaves(places[1])
    assert_same_bits(found, drawn)
    assert_same_bits(alone, drawn)


@pytest.mark.filterwarnings("default")
def test_a_write_that_was_killed_is_ignored_and_can_be_repeated(tmp_path, scrambled):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(scrambled(1), META)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
    shutil.rmtree(next(p for p in (folder / "2.orbax-checkpoint-tmp").iterdir() if p.is_dir()))
    state = scrambled(2)
    with Checkpoints(tmp_path, must_exist=True) as checkpoints:
        assert [c.step for c in checkpoints.saved()] == [1]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META)
        assert checkpoints.choose("latest").step == 2
        assert_same_bits(checkpoints.restore(2, abstract(state)), state)


def test_scores_that_come_later_replace_the_unscored_checkpoint(tmp_path, scrambled):
    state = scrambled(4)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META)
    with Checkpoints(tmp_path) as checkpoints:
        assert [c.scores for c in checkpoints.saved()] == [None]
        checkpoints.save(state, META, {"miou": 0.5}, "miou")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
    with Checkpoints(tmp_path, must_exist=True) as checkpoints:
        (saved,) = checkpoints.saved()
        assert saved.step == 4
        assert saved.rank == 0.5
        assert_same_bits(checkpoints.restore(4, abstract(state)), state)


def test_what_was_set_aside_by_a_killed_process_comes_back(tmp_path, scrambled):
    state = scrambled(4)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, META, {"miou": 0.5}, "miou")
    folder = tmp_path / "checkpoints"
    (folder / "4").rename(folder / "4.aside")
    with Checkpoints(tmp_path) as checkpoints:
        assert [c.step for c in checkpoints.saved()] == [4]
        assert_same_bits(checkpoints.restore(4, abstract(state)), state)
    assert [path.name for path in folder.iterdir()] == ["4"]


def test_what_was_set_aside_goes_where_its_successor_is_whole(tmp_path, scrambled):
    step = jnp.asarray(4, jnp.int32)
    states = {"old": scrambled(4), "new": scrambled(5).replace(step=step)}
    folder = tmp_path / "checkpoints"
    for name, state in states.items():
        with Checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save(state, META)
    shutil.copytree(tmp_path / "new" / "checkpoints", folder)
    shutil.copytree(tmp_path / "old" / "checkpoints" / "4", folder / "4.aside")
    with Checkpoints(tmp_path, must_exist=True):
        assert (folder / "4.aside").exists()  # Its run may be under way.
    with Checkpoints(tmp_path) as checkpoints:
        assert [c.step for c in checkpoints.saved()] == [4]
        assert_same_bits(checkpoints.restore(4, abstract(states["new"])), states["new"])
    assert [path.name for path in folder.iterdir()] == ["4"]


def test_what_a_killed_process_left_half_written_goes_unless_one_only_reads(tmp_path, scrambled):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(scrambled(1), META)
    left = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    (left / "variables").mkdir(parents=True)
    with Checkpoints(tmp_path, must_exist=True):
        pass
    assert left.exists()
    with Checkpoints(tmp_path) as checkpoints:
        assert not left.exists()
        assert [c.step for c in checkpoints.saved()] == [1]
