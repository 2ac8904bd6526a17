"""Label spaces: what a set's files hold becomes class ids, and back."""

import pytest

from drn_jax.data.labels.space import Class, Label, LabelSpace
from drn_jax.errors import UserError

SPACE = LabelSpace(
    name="toy",
    source="",
    classes=(Class("road", (1, 1, 1)), Class("car", (2, 2, 2))),
    labels=(
        Label("nothing", (0, 0, 0), 0, "", "void"),
        Label("van", (3, 3, 3), 1, "car", "vehicle"),
        Label("car", (4, 4, 4), 2, "car", "vehicle"),
        Label("street", (5, 5, 5), 3, "road", "flat"),
        Label("plate", (4, 4, 4), -1, "", "vehicle"),
        Label("secret", None, 4, "", "void"),
    ),
    aliases={"vehicle": "car"},
)


def test_ids_list_every_label_that_has_one():
    assert SPACE.ids() == ((0, 255), (1, 1), (2, 1), (3, 0), (4, 255))


def test_of_labels_that_share_a_colour_the_first_counts():
    assert dict(SPACE.color_ids()) == {(0, 0, 0): 255, (3, 3, 3): 1, (4, 4, 4): 1, (5, 5, 5): 0}


def test_the_first_of_merged_labels_stands_for_their_class():
    assert SPACE.own_ids()[[0, 1, 2, 255]].tolist() == [3, 1, 0, 0]


def test_categories_group_classes_in_the_order_of_the_labels():
    assert SPACE.categories() == ("vehicle", "flat")
    assert SPACE.category_ids()[[0, 1, 2, 255]].tolist() == [1, 0, 255, 255]


def test_another_order_is_mapped_by_name_and_alias_in_any_case():
    assert SPACE.reordered(["Vehicle", " ROAD "], "info.json") == ((0, 1), (1, 0))


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (["road", "cat"], "class 'cat' is none of toy"),
        (["road"], "each class of toy once"),
        (["car", "vehicle"], "each class of toy once"),
    ],
)
def test_names_that_are_no_order_of_the_classes_are_refused(listed, expected):
    with pytest.raises(UserError, match=expected) as caught:
        SPACE.reordered(listed, "info.json")
    assert str(caught.value).startswith("info.json: ")
