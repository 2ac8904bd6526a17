"""The table of Cityscapes: 35 labels, 19 classes, 7 categories."""

from drn_jax.data.labels.cityscapes import CITYSCAPES


def test_the_classes_are_those_of_the_train_ids_in_their_order():
    # cityscapesScripts: labelId -> trainId.
    published = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    here = {there: own for there, own in CITYSCAPES.ids() if own != 255}
    assert here == {label: train for train, label in enumerate(published)}


def test_every_label_id_of_a_mask_is_listed_once_and_in_order():
    assert len(CITYSCAPES.labels) == 35
    assert [there for there, _ in CITYSCAPES.ids()] == list(range(34))
    assert (CITYSCAPES.labels[-1].name, CITYSCAPES.labels[-1].id) == ("license plate", -1)


def test_class_ids_go_back_to_label_ids_and_the_ignored_to_unlabeled():
    back = CITYSCAPES.own_ids()
    assert (back[0], back[18], back[255]) == (7, 33, 0)
    assert all(back[own] == there for there, own in CITYSCAPES.ids() if own != 255)


def test_each_class_bears_the_name_and_colour_of_its_label():
    trained = [label for label in CITYSCAPES.labels if label.trained]
    assert [(a.name, a.color) for a in trained] == [tuple(c) for c in CITYSCAPES.classes]
    assert all(label.name == label.trained for label in trained)


def test_a_colour_that_two_labels_share_is_that_of_the_class():
    by_color = dict(CITYSCAPES.color_ids())
    assert by_color[153, 153, 153] == CITYSCAPES.names.index("pole")
    assert by_color[0, 0, 142] == CITYSCAPES.names.index("car")
    assert by_color[0, 0, 0] == 255


def test_the_seven_categories_hold_the_classes_that_are_scored_together():
    categories = CITYSCAPES.categories()
    assert categories == (*("flat", "construction", "object", "nature", "sky", "human", "vehicle"),)
    ids = CITYSCAPES.category_ids()
    groups = [ids.tolist().count(i) for i in range(len(categories))]
    assert groups == [2, 3, 3, 2, 1, 2, 6]
    assert categories[ids[CITYSCAPES.names.index("rider")]] == "human"
    assert ids[255] == 255
    assert ids.dtype == "uint8"


def test_every_alias_means_a_class_and_is_in_lower_case():
    assert set(CITYSCAPES.aliases.values()) <= set(CITYSCAPES.names)
    assert all(alias == alias.lower() for alias in CITYSCAPES.aliases)
