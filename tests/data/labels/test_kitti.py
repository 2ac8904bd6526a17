"""The table of KITTI as Ros et al. labelled it."""

from drn_jax.data.labels.camvid import CAMVID_DILATION
from drn_jax.data.labels.kitti import KITTI


def test_the_classes_are_dilations_camvid_with_a_sidewalk_for_pavement():
    renamed = [{"pavement": "sidewalk"}.get(name, name) for name in CAMVID_DILATION.names]
    assert list(KITTI.names) == renamed
    assert KITTI.colors == CAMVID_DILATION.colors


def test_ids_0_to_11_become_the_classes_and_11_is_ignored():
    ids = dict(KITTI.ids())
    assert sorted(ids) == list(range(12))
    assert ids[11] == 255
    assert KITTI.names[ids[0]] == "sky"
    assert KITTI.names[ids[5]] == "tree"
    assert KITTI.names[ids[10]] == "bicyclist"


def test_colours_and_ids_mean_the_same():
    by_color = dict(KITTI.color_ids())
    ids = dict(KITTI.ids())
    assert all(by_color[a.color or (0, 0, 0)] == ids[a.id] for a in KITTI.labels)
    assert [by_color[c.color] for c in KITTI.classes] == list(range(11))


def test_class_ids_go_back_to_the_ids_of_the_masks():
    back = KITTI.own_ids()
    assert all(back[own] == there for there, own in KITTI.ids() if own != 255)
